"""A lattice in few bytes: what each number differs by from its prediction, by a range coder with adaptive contexts.

Whole numbers alone decide predictions, contexts and probabilities, so that a file decodes alike on every machine.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from ff3d.geometry.arrays import Floats, Ints
from ff3d.lattices.lattice import (
    MOST_ROOT,
    OCTANTS,
    ROOT_STEPS,
    SLOTS,
    WEIGHTS,
    Frame,
    Growth,
    Lattice,
    Nodes,
)

# Nodes come in eight passes: first those at corners of halved cells, then by the axes along which they lie halfway
PASSES = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [1, 0, 1], [0, 1, 1], [1, 1, 1]])
# How much the differences at neighbours (beside a node, across an edge, across a corner) that came before add to its
# prediction, in 64ths: about what least squares gave on Lucy
SLOPES = np.array(
    [[0, 0, 0], [16, 0, 0], [32, 24, 0], [22, 64, 0], [88, -4, 12], [64, 60, -20], [70, 44, -24], [86, 2, -36]]
)
SHARE = 24  # a multiple of every number of such neighbours
LARGEST = 24  # differences from here on are escaped
BUCKETS, NEAR = 12, 4
STEPS = np.array([362, 512, 724, 1024, 1448, 2048, 2896, 4096, 5793, 8192, 11585])  # 2^10 2^((i - 3) / 2)
DECAYS = (1, 7, 25, 58, 98, 138, 172, 198, 217, 230, 239, 245)  # in 256ths: of the first guess, for each bucket
PRIOR, PRECISION = 12, 2**20
ESCAPES = 2**16
LARGEST_NUMBER = 2**15 - 1
KIND_WEIGHTS = (10, 7, 5)  # of the three kinds of neighbours in what a context goes by


def _neighbours() -> list[list[Ints]]:
    """For each slot and each kind of neighbour in its block the slots that belong to earlier passes."""
    order = {tuple(odd): k for k, odd in enumerate(PASSES.tolist())}
    found: list[list[Ints]] = []
    for slot in SLOTS:
        groups: list[list[int]] = [[], [], []]
        for step in product((-1, 0, 1), repeat=3):
            other = slot + step
            earlier = order[tuple((other & 1).tolist())] < order[tuple((slot & 1).tolist())]
            if any(step) and earlier and ((other >= 0) & (other <= 2)).all():
                groups[sum(map(abs, step)) - 1].append(int(other @ WEIGHTS))
        found.append([np.array(group, dtype=np.int64) for group in groups])
    return found


def _passes() -> list[tuple[Ints, Ints, list[Ints]]]:
    """For each pass its slots (s,), the corners of the halved cell around each (s, c), its neighbours (s, n) x 3."""
    neighbours, passes = _neighbours(), []
    for odd in PASSES:
        slots = np.flatnonzero((odd == SLOTS & 1).all(axis=1))
        parents = []
        for slot in SLOTS[slots]:
            fits = ((slot & 1 == 1) | (slot == 2 * OCTANTS)).all(axis=1)
            parents.append(np.flatnonzero(fits))
        groups = [np.array([neighbours[slot][kind] for slot in slots]) for kind in range(3)]
        passes.append((slots, np.array(parents), groups))
    return passes


_PASSES = _passes()
_PASS_OF_SLOT, _ROW_OF_SLOT = np.empty((2, 27), dtype=np.int64)
for _number, _pass in enumerate(_PASSES):
    _PASS_OF_SLOT[_pass[0]], _ROW_OF_SLOT[_pass[0]] = _number, np.arange(len(_pass[0]))


class Batch(NamedTuple):
    """Nodes of one pass, and what is known of their numbers beforehand.

    level: theirs.  nodes: (n,), which of the level's.  prediction: (n,).  context: (n,), the probabilities' row.
    """

    level: int
    nodes: Ints
    prediction: Ints
    context: Ints


class Differences(Protocol):
    """Where the differences of numbers from their predictions come from: an encoder's choice, or a file."""

    def root(self, frame: Frame) -> Ints:
        """The root's numbers, in its own steps."""

    def begin(self, growth: Growth, nodes: Nodes) -> None:
        """The nodes of the next level are known."""

    def of(self, batch: Batch) -> Ints:
        """The differences (n,) of a batch."""


def grow(frame: Frame, source: Differences) -> Lattice:
    """The lattice whose numbers are the predictions plus the differences of a source."""
    root = source.root(frame) * (2 * frame.steps // ROOT_STEPS)
    growth = Growth(frame, root)
    numbers, symbols = root, np.zeros_like(root)
    for _ in range(frame.levels):
        nodes = growth.halve()
        source.begin(growth, nodes)
        numbers, symbols = _level(growth, nodes, numbers[growth.corners], np.abs(symbols)[growth.corners], source)
        growth.add(numbers)
    return growth.lattice()


def _level(growth: Growth, nodes: Nodes, corners: Ints, symbols: Ints, source: Differences) -> tuple[Ints, Ints]:
    """The numbers of a level's nodes, and their differences from the predictions.

    corners, symbols (m, 8): the numbers at the corners of the halved cells, and how large the differences there were.
    """
    frame, level = growth.frame, growth.level
    numbers, symbol, change = (np.zeros(len(nodes.slot), dtype=np.int64) for _ in range(3))
    number_of_pass = _PASS_OF_SLOT[nodes.slot]
    for k, (_, parents, groups) in enumerate(_PASSES):
        index = np.flatnonzero(number_of_pass == k)
        owner, row = nodes.owner[index], _ROW_OF_SLOT[nodes.slot[index]]
        between = parents[row]
        odd = int(PASSES[k].sum())
        eighths = corners[owner[:, None], between].sum(axis=1) << (4 - odd)  # the trilinear prediction times 8
        doubt = symbols[owner[:, None], between].sum(axis=1) << (3 - odd)
        share = sum(weight for weight, group in zip(KIND_WEIGHTS, groups, strict=True) if group.shape[1])
        size = 38 * doubt + 102
        prediction = eighths * (64 * SHARE)
        for kind, group in enumerate(groups):
            if group.shape[1]:
                near = nodes.of_block[owner[:, None], group[row]]
                beside = change[near]
                prediction += int(SLOPES[k, kind]) * (SHARE // group.shape[1]) * beside.sum(axis=1)
                size += np.abs(beside).sum(axis=1) * (115 * KIND_WEIGHTS[kind]) // (share * group.shape[1])
        if not share:
            size = 64 * doubt + 154
        prediction = (prediction + 4 * 64 * SHARE) // (8 * 64 * SHARE)
        near_surface = np.minimum(5 * np.abs(eighths) // (32 * frame.steps), NEAR - 1)
        bucket = np.searchsorted(STEPS, size, side="right")
        context = (k * NEAR + near_surface) * BUCKETS + bucket
        symbol[index] = source.of(Batch(level, index, prediction, context))
        numbers[index] = np.clip(prediction + symbol[index], -LARGEST_NUMBER, LARGEST_NUMBER)
        change[index] = 8 * numbers[index] - eighths
    return numbers, symbol


def symbols_of(differences: Ints) -> Ints:
    """Differences as numbers from 0 to 2 LARGEST, both ends being the escape."""
    symbols: Ints = np.clip(differences, -LARGEST, LARGEST) + LARGEST
    return symbols


class Probabilities:
    """For each context how often each difference came so far, from a first guess on."""

    def __init__(self) -> None:
        self._counts: dict[int, Ints] = {}

    def counts(self, context: int) -> Ints:
        """Of -LARGEST to LARGEST, (2 LARGEST + 1,), in 256ths; both ends are the escape."""
        if context not in self._counts:
            decay, count = DECAYS[context % BUCKETS], [2**16]
            for _ in range(LARGEST):
                count.append(count[-1] * decay >> 8)
            guess = np.array(count[:0:-1] + count)
            self._counts[context] = guess * (256 * PRIOR) // guess.sum() + 2
        return self._counts[context]

    def shares(self, context: int) -> Floats:
        """The same as probabilities: multiples of 1 / PRECISION, so that no machine rounds them."""
        counts = self.counts(context)
        scaled = counts * (PRECISION - len(counts)) // counts.sum() + 1
        scaled[LARGEST] += PRECISION - scaled.sum()
        return scaled / PRECISION

    def bits(self, context: int) -> Floats:
        """What each difference costs."""
        return -np.log2(self.shares(context))

    def saw(self, context: int, differences: Ints) -> None:
        """Learn from differences that were coded."""
        self.counts(context)[:] += 256 * np.bincount(symbols_of(differences), minlength=2 * LARGEST + 1)


def _by_context(context: Ints) -> list[tuple[int, Ints]]:
    """The contexts of a batch and the places (k,) of each, in order."""
    if not len(context):
        return []
    order = np.argsort(context, kind="stable")
    values, starts = np.unique(context[order], return_index=True)
    return list(zip(values.tolist(), np.split(order, starts[1:]), strict=True))


Choice = Callable[[Batch, Probabilities], Ints]
Bytes = NDArray[np.uint8]


class Encoder:
    """Writes what a choice of differences says.

    root_numbers: of the root, in its own steps.  started: is told the nodes of each level.  choice: a batch and the
    probabilities so far -> differences (n,).
    """

    def __init__(self, root_numbers: Ints, started: Callable[[Growth, Nodes], None], choice: Choice):
        import constriction

        self.root_numbers, self.started, self.choice = root_numbers, started, choice
        self.probabilities = Probabilities()
        self._stream = constriction.stream
        self._coder = self._stream.queue.RangeEncoder()

    def root(self, frame: Frame) -> Ints:
        """The given numbers, written."""
        numbers = np.clip(self.root_numbers, -MOST_ROOT, MOST_ROOT)
        self._coder.encode((numbers + MOST_ROOT).astype(np.int32), self._stream.model.Uniform(2 * MOST_ROOT + 1))
        return numbers

    def begin(self, growth: Growth, nodes: Nodes) -> None:
        """Pass the nodes on."""
        self.started(growth, nodes)

    def of(self, batch: Batch) -> Ints:
        """The chosen differences, written."""
        chosen = self.choice(batch, self.probabilities)
        symbols = symbols_of(chosen).astype(np.int32)
        for context, places in _by_context(batch.context):
            model = self._stream.model.Categorical(self.probabilities.shares(context), perfect=False)
            self._coder.encode(symbols[places], model)
            self.probabilities.saw(context, chosen[places])
        over = np.abs(chosen)[np.abs(chosen) >= LARGEST] - LARGEST
        if len(over):
            self._coder.encode(np.minimum(over, ESCAPES - 1).astype(np.int32), self._stream.model.Uniform(ESCAPES))
        return chosen

    def data(self) -> Bytes:
        """The bytes."""
        return np.asarray(self._coder.get_compressed(), dtype="<u4").view(np.uint8)


def encoded(lattice: Lattice) -> Bytes:
    """The bytes that a lattice decodes from, number for number."""
    numbers: Ints = np.zeros(0, dtype=np.int64)

    def started(growth: Growth, nodes: Nodes) -> None:
        nonlocal numbers
        numbers = lattice.blocks[growth.level - 1][nodes.owner, nodes.slot].astype(np.int64)

    def choice(batch: Batch, _: Probabilities) -> Ints:
        return numbers[batch.nodes] - batch.prediction

    frame = lattice.frame
    encoder = Encoder(lattice.root // (2 * frame.steps // ROOT_STEPS), started, choice)
    grow(frame, encoder)
    return encoder.data()


class Decoder:
    """Reads what an `Encoder` wrote. most: numbers that a level may have; ValueError for more."""

    def __init__(self, data: Bytes, most: int):
        import constriction

        if data.ndim != 1 or len(data) % 4:
            raise ValueError(f"{data.size} bytes of a lattice, expected a multiple of 4")
        self._stream, self._most = constriction.stream, most
        self._coder = self._stream.queue.RangeDecoder(data.view("<u4").astype(np.uint32))
        self._probabilities = Probabilities()

    def root(self, frame: Frame) -> Ints:
        """The root's numbers."""
        count = int((frame.shape + 1).prod())
        numbers = self._coder.decode(self._stream.model.Uniform(2 * MOST_ROOT + 1), count)
        return np.asarray(numbers, dtype=np.int64) - MOST_ROOT

    def begin(self, growth: Growth, nodes: Nodes) -> None:
        """Refuse what is larger than the file says."""
        self._most -= len(nodes.slot)
        if self._most < 0:
            raise ValueError("the lattice has more numbers than its header says")

    def of(self, batch: Batch) -> Ints:
        """The differences."""
        found = np.empty(len(batch.nodes), dtype=np.int64)
        for context, places in _by_context(batch.context):
            model = self._stream.model.Categorical(self._probabilities.shares(context), perfect=False)
            found[places] = np.asarray(self._coder.decode(model, len(places)), dtype=np.int64) - LARGEST
            self._probabilities.saw(context, found[places])
        over = np.flatnonzero(np.abs(found) >= LARGEST)
        if len(over):
            more = np.asarray(self._coder.decode(self._stream.model.Uniform(ESCAPES), len(over)), dtype=np.int64)
            found[over] += np.sign(found[over]) * more
        return found
