"""A lattice in few bytes: numbers solved for, and rounded where that saves bits and costs little."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ff3d.geometry.arrays import Floats, Ints, Singles
from ff3d.geometry.sampling import sample_surface
from ff3d.lattices.codec import Batch, Bytes, Encoder, Probabilities, grow, symbols_of
from ff3d.lattices.lattice import OCTANT_SLOTS, OCTANT_WEIGHTS, OCTANTS, Frame, Growth, Lattice, Nodes
from ff3d.points.lattice_sampling import Samples, SignedDistance, root_numbers, sample

STEPS = 4  # half a cell's side: finer steps rounded more boldly, or coarser ones, take more bytes
POINTS_PER_CELL, MOST_POINTS = 24, 2_500_000  # whose distances are fitted
NOISE = 0.2  # cells: how far from the surface they lie
DAMPING = 0.003  # how much numbers are held to the sampled distances, of the mean weight
ROBUST = 0.02  # cells: of smaller errors the square counts, of larger ones the size
RATE = 0.4  # squared steps that a bit is worth
FREEDOM = 0.6  # of an error's cost that remains once the numbers still to come have made up for it
DESCENTS = 4  # steps by which these are moved after each pass
SOLVED_LEVELS = 4  # the last ones
PAIRS = [(i, j) for i in range(8) for j in range(i, 8)]
FIRST_CELLS = 64  # along the unit cube, of the first attempt to reach a number of bytes
FEWEST_CELLS, MOST_CELLS, ENOUGH, ATTEMPTS = 16, 640, 192, 4
# Bytes grow with the square of the cells along a surface, less where it is smooth: known better after two attempts
FIRST_POWER = 1.8
SLIGHTLY = 1.12
BOLDER = (1.3, 1.7, 2.2, 3.0, 4.0)  # rates, times the usual one, where the last attempt is too large

Solution = tuple[Any, Floats]  # the normal equations' sparse matrix, and the numbers (u,)


class _Choice:
    """The differences that an encoder writes: rounded distances, and at the last levels the solution of least squares.

    There each pass takes of several whole numbers the one for which error + rate * bits is least, and what its
    rounding spoils is made up for by the numbers of the passes to come, solved for again.
    """

    def __init__(self, samples: Samples, *, rate: float, seed: int, solutions: dict[bytes, Solution]):
        self.samples, self.rate, self.seed, self._solutions = samples, rate, seed, solutions
        self._quadratic: _Quadratic | None = None

    def started(self, growth: Growth, nodes: Nodes) -> None:
        """Find the numbers that this level should have, in its steps."""
        level, frame = growth.level, growth.frame
        distance = self.samples.at(nodes.place, level)
        self._target = distance / frame.step(level)
        corners = distance[nodes.of_block][:, OCTANT_SLOTS].reshape(-1, 8)
        solved = level > frame.levels - SOLVED_LEVELS
        needed = (corners.min(axis=1) < 0) & (corners.max(axis=1) > 0)
        if not solved:
            needed |= np.abs(corners.mean(axis=1)) < 1.2 * frame.side / 2**level
        self._relevant = np.zeros(len(distance), dtype=bool)
        cells = nodes.of_block[:, OCTANT_SLOTS].reshape(-1, 8)
        self._relevant[cells[needed]] = True
        self._quadratic = None
        if solved:
            key = nodes.place.tobytes()
            if key not in self._solutions:
                self._solutions[key] = _solve(self.samples, growth, nodes, self._target, self.seed)
            self._quadratic = _Quadratic(*self._solutions[key])

    def __call__(self, batch: Batch, probabilities: Probabilities) -> Ints:
        """The differences of a batch."""
        index, quadratic = batch.nodes, self._quadratic
        target = self._target[index] if quadratic is None else quadratic.numbers[index]
        error = target - batch.prediction
        found = np.rint(error).astype(np.int64)
        if quadratic is not None:
            known = quadratic.weights[index] > 0
            cheapest = self._cheapest(batch, error, probabilities, FREEDOM * quadratic.weights[index])
            found = np.where(known | (batch.level == self.samples.frame.levels), cheapest, found)
        kept = np.sign(batch.prediction) == np.sign(self._target[index])
        found[~self._relevant[index] & kept] = 0
        # further than half a cell from the surface no error may be bought that is a speck of its own
        side = np.sign(self._target[index]).astype(np.int64)
        wrong = np.abs(self._target[index]) > self.samples.frame.steps
        wrong &= np.sign(batch.prediction + found) != side
        found[wrong] = (side - batch.prediction)[wrong]
        if quadratic is not None:
            quadratic.fix(index, batch.prediction + found)
        return found

    def _cheapest(self, batch: Batch, error: Floats, probabilities: Probabilities, weight: Floats) -> Ints:
        """Of the nearest whole number, the next one towards 0, and 0: the one with the least error + rate * bits."""
        contexts, row = np.unique(batch.context, return_inverse=True)
        bits = np.stack([probabilities.bits(context) for context in contexts.tolist()])
        nearest = np.rint(error).astype(np.int64)
        candidates = np.stack([nearest, nearest - np.sign(nearest), np.zeros_like(nearest)])
        costs = weight * (error - candidates) ** 2 + self.rate * bits[row, symbols_of(candidates)]
        return np.take_along_axis(candidates, costs.argmin(axis=0)[None], axis=0)[0]


class _Quadratic:
    """The cost of numbers (u,), (numbers - solution) matrix (numbers - solution), while they are fixed pass by pass."""

    def __init__(self, matrix: Any, solution: Floats):
        self._matrix, self._solution = matrix, solution
        self._diagonal = matrix.diagonal()
        known = self._diagonal > 0
        self.weights = self._diagonal / (self._diagonal[known].mean() if known.any() else 1.0)
        self.numbers = solution.copy()
        self._free = known.copy()

    def fix(self, index: Ints, numbers: Ints) -> None:
        """Fix these numbers, and move the others to make up for it: steepest descent, scaled by the diagonal."""
        self.numbers[index] = numbers
        self._free[index] = False
        scale = np.where(self._free, 1 / np.where(self._diagonal > 0, self._diagonal, 1), 0)
        for _ in range(DESCENTS if self._free.any() else 0):
            slope = self._matrix @ (self.numbers - self._solution)
            way = -scale * slope
            curvature = float(way @ (self._matrix @ way))
            if not curvature > 0:
                break
            self.numbers += way * (float(-(way @ slope)) / curvature)


def _solve(samples: Samples, growth: Growth, nodes: Nodes, start: Floats, seed: int) -> Solution:
    """The normal equations' matrix and the numbers of a level, in its steps, that fit the distances about the surface.

    start: those sampled.  Errors count by their size, not their square (iteratively reweighted least squares).
    """
    frame, level, distance = growth.frame, growth.level, samples.distance
    side = frame.side / 2**level
    cells = nodes.of_block[:, OCTANT_SLOTS].reshape(-1, 8)
    signs = start[cells] > 0
    crossed = int(np.count_nonzero(signs.any(axis=1) & ~signs.all(axis=1)))
    count = min(POINTS_PER_CELL * crossed, MOST_POINTS)
    rng = np.random.default_rng([seed, level])
    on_surface, _ = sample_surface(distance.surface, count, rng)
    points = distance.cube.to_unit(on_surface) + rng.standard_normal((count, 3)) * (NOISE * side)
    place = (points - frame.lower) / side
    cell = np.floor(place).astype(np.int64)
    block_keys = frame.keys(nodes.place[nodes.of_block[:, 0]] // 2, level - 1)
    order = np.argsort(block_keys)
    keys = frame.keys(cell // 2, level - 1)
    found = np.minimum(np.searchsorted(block_keys[order], keys), len(order) - 1)
    kept = np.flatnonzero(block_keys[order][found] == keys)
    row = 8 * order[found[kept]] + (cell[kept] & 1) @ OCTANT_WEIGHTS
    used, row = np.unique(row, return_inverse=True)
    corners = cells[used]
    share = (place[kept] - cell[kept]).astype(np.float32)
    weights = np.ones((len(kept), 8), dtype=np.float32)
    for axis in range(3):
        weights *= np.where(OCTANTS[:, axis], share[:, axis, None], 1 - share[:, axis, None])
    target = (distance(points[kept], 2 * side) / frame.step(level)).astype(np.float32)
    trust = np.ones(len(kept), dtype=np.float32)
    matrix, numbers = None, start
    for _ in range(2):
        matrix, right = _normal_equations(corners, row, weights, right=target * trust, trust=trust, size=len(start))
        numbers = _conjugate_gradients(matrix, right, start)
        error = np.abs(np.einsum("nk,nk->n", weights, numbers[corners[row]].astype(np.float32)) - target)
        trust = 1 / np.maximum(error, ROBUST * 2 * frame.steps)
        trust /= trust.mean()
    return matrix, numbers


def _normal_equations(
    corners: Ints, row: Ints, weights: Singles, *, right: Singles, trust: Singles, size: int
) -> Solution:
    """The matrix (size, size) and right side of least squares; point i has weights[i] at the corners of cell row[i]."""
    from scipy.sparse import coo_array

    count = len(corners)
    sums = np.stack([np.bincount(row, weights[:, k] * right, count) for k in range(8)], axis=1)
    right_side = np.bincount(corners.reshape(-1), sums.reshape(-1), size)
    i, j, value = [], [], []
    for a, b in PAIRS:
        product = np.bincount(row, weights[:, a] * weights[:, b] * trust, count)
        i.append(corners[:, a])
        j.append(corners[:, b])
        value.append(product if a != b else product / 2)
    half = coo_array((np.concatenate(value), (np.concatenate(i), np.concatenate(j))), shape=(size, size)).tocsr()
    return (half + half.T).tocsr(), np.asarray(right_side, dtype=np.float64)


def _conjugate_gradients(matrix: Any, right: Floats, start: Floats) -> Floats:
    """The solution near `start`, held to it by `DAMPING`."""
    from scipy.sparse import diags_array
    from scipy.sparse.linalg import cg

    diagonal = matrix.diagonal()
    damping = DAMPING * float(diagonal.mean())
    damped = matrix + diags_array(np.full(len(start), damping))
    found, _ = cg(
        damped, right + damping * start, x0=start, M=diags_array(1 / (diagonal + damping)), rtol=1e-4, maxiter=100
    )
    return np.asarray(found)


def solved(distance: SignedDistance, box: Floats, cells: int, *, rate: float = RATE, seed: int = 0) -> Lattice:
    """The lattice of a shape with so many of its smallest cells along the unit cube.

    box: (2, 3), the shape's, unit coordinates.  rate: squared steps that a bit is worth.
    """
    frame = Frame.around(box, cells, STEPS)
    return _rounded(sample(distance, frame)[1], rate, seed, {})[0]


def solved_to(
    distance: SignedDistance,
    box: Floats,
    size: int,
    *,
    seed: int = 0,
    progress: Callable[[float], None] | None = None,
    on_lattice: Callable[[Lattice], None] | None = None,
) -> Lattice:
    """The lattice that decodes from about `size` bytes, and from no more. Raises ValueError as `fitted_to`.

    on_lattice: is given each attempt.
    """
    last: tuple[Samples, dict[bytes, Solution]] | None = None

    def make(cells: int) -> tuple[Lattice, Bytes]:
        nonlocal last
        last = sample(distance, Frame.around(box, cells, STEPS))[1], {}
        found = _rounded(last[0], RATE, seed, last[1])
        if on_lattice:
            on_lattice(found[0])
        return found

    def bolder(factor: float) -> tuple[Lattice, Bytes]:
        assert last is not None
        return _rounded(last[0], factor * RATE, seed, last[1])

    return fitted_to(size, make, bolder, progress)[0]


def fitted_to(
    size: int,
    make: Callable[[int], tuple[Lattice, Bytes]],
    bolder: Callable[[float], tuple[Lattice, Bytes]] | None = None,
    progress: Callable[[float], None] | None = None,
) -> tuple[Lattice, Bytes]:
    """Of lattices the largest found that takes at most `size` bytes.

    make: cells along the unit cube -> a lattice and its bytes.  bolder: how much more a bit is worth -> the last one
    again, in fewer bytes.  Raises ValueError if even the coarsest takes more.
    """
    cells, best, power = FIRST_CELLS, None, FIRST_POWER
    last: tuple[int, int] | None = None
    tried = set[int]()
    for attempt in range(ATTEMPTS):
        tried.add(cells)
        if progress:
            progress(attempt / ATTEMPTS)
        found = make(cells)
        coarser = attempt < ATTEMPTS - 1 and cells > FEWEST_CELLS
        for factor in () if coarser else BOLDER:
            if bolder and len(found[1]) > size:
                found = bolder(factor)
        used = len(found[1])
        if used <= size and (best is None or used > len(best[1])):
            best = found
        if last:
            measured = math.log(used / last[1]) / math.log(cells / last[0])
            power = measured if 1 <= measured <= 3 else FIRST_POWER
        last = cells, used
        cells = math.floor(cells * (0.97 * size / used) ** (1 / power))
        cells = min(max(cells, FEWEST_CELLS), MOST_CELLS)
        power_of_two = 1 << cells.bit_length()
        if power_of_two <= SLIGHTLY * cells and power_of_two not in tried:
            cells = power_of_two  # with a level more than a few cells less, it often takes less than those
        smooth = last[0] >= ENOUGH and used < size / 2  # finer cells would show nothing more
        if 0.94 * size <= used <= size or cells == last[0] or smooth:
            break
    if best is None:
        raise ValueError(f"the shape takes more than {size:,} bytes; give more")
    return best


def _rounded(samples: Samples, rate: float, seed: int, solutions: dict[bytes, Solution]) -> tuple[Lattice, Bytes]:
    """The lattice solved for and rounded, and its bytes. solutions: those found before, to be used again."""
    frame = samples.frame
    choice = _Choice(samples, rate=rate, seed=seed, solutions=solutions)
    encoder = Encoder(root_numbers(frame, samples.values[0]), choice.started, choice)
    lattice = grow(frame, encoder)
    return lattice, encoder.data()
