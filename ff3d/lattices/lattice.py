"""Lattice: signed distances at the corners of cells that are halved again and again where the surface is."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product

import numpy as np
from numpy.typing import NDArray

from ff3d.geometry.arrays import Bools, Floats, Indices, Ints, Singles
from ff3d.geometry.cores import threads

OCTANTS = np.stack(np.unravel_index(np.arange(8), (2, 2, 2)), axis=1)  # of a cell, and its corners
SLOTS = np.stack(np.unravel_index(np.arange(27), (3, 3, 3)), axis=1)  # of a block: the corners of its eight cells
WEIGHTS = np.array([9, 3, 1])  # a slot's number is its place times these
OCTANT_WEIGHTS = np.array([4, 2, 1])  # and an octant's
OCTANT_SLOTS = (OCTANTS[:, None] + OCTANTS) @ WEIGHTS  # (8, 8): the corners of each cell of a block
# A cell is halved where the mean of its corners' distances is at most so many of its sides: the nearest point of a
# surface that touches it lies within .87 of the centre, and the mean of the corners may be off by what is curved. The
# smallest cells are needed only where corners lie on both sides.
REACH, LAST_REACH = 1.0, 0.9
ROOT_STEPS = 2  # a cell's side in steps of the root's own values, which finer levels correct
MOST_ROOT = 15  # such steps: further away distances are cut off
COARSEST = 8  # cells along the cube at the root, at least
MOST_LEVELS, MOST_STEPS, FARTHEST = 9, 64, 2**10  # in a file; the last in cubes
TABLE = 64  # cells along the cube of the table in which a query begins
CHUNK = 2**14  # points of a query: what stays in the cache


@dataclass(frozen=True)
class Frame:
    """Where the cells of a lattice lie, in the coordinates of the unit cube.

    lower: (3,), the root's lowest corner.  side: of a root cell.  shape: (3,), the root's cells.  levels: how often
    cells are halved.  steps: half a cell's side in steps of its level, the unit of the stored whole numbers.
    """

    lower: Floats
    side: float
    shape: Ints
    levels: int
    steps: int

    @classmethod
    def around(cls, box: Floats, cells: int, steps: int) -> Frame:
        """About a box (2, 3), with so many of the smallest cells along the unit cube."""
        levels = 0
        while cells / 2 ** (levels + 1) >= COARSEST:
            levels += 1
        side = 2**levels / cells
        shape = np.ceil((box[1] - box[0]) / side + 1).astype(np.int64)
        return cls(box.mean(axis=0) - shape * side / 2, side, shape, levels, steps)

    def check(self) -> None:
        """Raise ValueError for what no lattice has."""
        if self.lower.shape != (3,) or not (
            (np.abs(self.lower) < FARTHEST).all() and 1 / FARTHEST < self.side < FARTHEST
        ):
            raise ValueError(f"a lattice at {self.lower.tolist()} of side {self.side}")
        if self.shape.shape != (3,) or not ((self.shape >= 1) & (self.shape <= 4 * COARSEST)).all():
            raise ValueError(f"a lattice of {self.shape.tolist()} cells at its root")
        if not (0 <= self.levels <= MOST_LEVELS and 1 <= self.steps <= MOST_STEPS):
            raise ValueError(f"a lattice of {self.levels} levels in {self.steps} steps")

    @property
    def cell(self) -> float:
        """The side of the smallest cells."""
        return self.side / 2**self.levels

    def step(self, level: int) -> float:
        """The unit of the whole numbers at the corners of the cells of a level, 0 being the root."""
        return self.side / 2**level / (2 * self.steps)

    def points(self, place: Ints, level: int) -> Floats:
        """The corners (n, 3), numbered from the lowest along each axis, of a level's cells: unit coordinates."""
        return self.lower + place * (self.side / 2**level)

    def root_cells(self) -> Ints:
        """The places (n, 3) of the root's cells."""
        return np.stack(np.unravel_index(np.arange(self.shape.prod()), tuple(self.shape)), axis=1)

    def root_corners(self) -> Ints:
        """The places (n, 3) of the root's corners."""
        return np.stack(np.unravel_index(np.arange((self.shape + 1).prod()), tuple(self.shape + 1)), axis=1)

    def keys(self, place: Ints, level: int) -> Ints:
        """One number for each corner (..., 3) of a level, in ascending order of the places."""
        _, y, z = (self.shape << level) + 1
        keys: Ints = (place[..., 0] * y + place[..., 1]) * z + place[..., 2]
        return keys

    def halved(self, sums: Ints, level: int) -> Bools:
        """Which cells of a level are halved, by the sums (n,) of the whole numbers at their corners."""
        reach = LAST_REACH if level == self.levels - 1 else REACH
        return np.abs(sums) <= int(16 * reach * self.steps)


@dataclass(frozen=True)
class Nodes:
    """The corners of the cells of blocks, each once.

    place: (u, 3), in cells of the blocks' level.  of_block: (m, 27), the node of each slot of each block.
    owner, slot: (u,), the first block that holds a node, and where.  Nodes are in ascending order of `Frame.keys`.
    """

    place: Ints
    of_block: Indices
    owner: Ints
    slot: Ints

    @classmethod
    def of(cls, frame: Frame, blocks: Ints, level: int) -> Nodes:
        """Those of blocks (m, 3), places of the cells of the level above that are halved."""
        if not len(blocks):
            return cls(np.zeros((0, 3), np.int64), np.zeros((0, 27), np.int32), *np.zeros((2, 0), np.int64))
        first, offset = frame.keys(2 * blocks, level), frame.keys(SLOTS, level)
        holder = _holders(first, frame.keys(_BESIDE, level))
        held = np.flatnonzero(holder.reshape(-1) == np.arange(holder.size))
        owner, slot = np.divmod(held, 27)
        order = np.argsort(first[owner] + offset[slot])
        held, owner, slot = held[order], owner[order], slot[order]
        number = np.empty(holder.size, dtype=np.int32)
        number[held] = np.arange(len(held))
        return cls(2 * blocks[owner] + SLOTS[slot], number[holder], owner, slot)


_BESIDE = np.array([step for step in product((-2, 0, 2), repeat=3) if step > (0, 0, 0)])  # of two neighbours, one way


def _holders(first: Ints, steps: Ints) -> Ints:
    """Of blocks whose lowest corners have the keys first (m,): where each slot's node occurs first, as 27 block + slot.

    steps (13,): the keys' differences between neighbours, in the order of `_BESIDE`.
    """
    count, order = len(first), np.argsort(first)
    ordered = first[order]
    holder = np.arange(27 * count).reshape(count, 27)

    def neighbours(step: int) -> tuple[Ints, Ints]:
        """The blocks that have a neighbour so much further, and those neighbours."""
        place = np.minimum(np.searchsorted(ordered, ordered + step), count - 1)
        found = np.flatnonzero(ordered[place] == ordered + step)
        return order[found], order[place[found]]

    with ThreadPoolExecutor(threads()) as pool:
        for step, (lower, upper) in zip(_BESIDE, pool.map(neighbours, steps.tolist()), strict=True):
            for slot in np.flatnonzero(((step <= SLOTS) & (step + 2 >= SLOTS)).all(axis=1)):
                there = int((SLOTS[slot] - step) @ WEIGHTS)
                holder[lower, slot] = np.minimum(holder[lower, slot], 27 * upper + there)
                holder[upper, there] = np.minimum(holder[upper, there], 27 * lower + slot)
    return holder


def _halves() -> Singles:
    """For each eighth of a cell (8, 8, 8): how much of each of the cell's corners there is in each of its own."""
    at = (OCTANTS[:, None] + OCTANTS)[:, None] / 2  # (eighth, 1, own corner, axis)
    return np.where(OCTANTS[:, None], at, 1 - at).prod(axis=-1).astype(np.float32)


_HALVES = _halves()


class Lattice:
    """A function of space, trilinear in each cell: about the signed distance to a surface, positive inside.

    frame: where its cells lie.  root: the whole numbers at the root's corners.  blocks: for each level the whole
    numbers (m, 27) int16 at the corners of the eight cells that a halved cell became.  numbers: how many there are, a
    corner of several blocks counted once on each level.  children: for each level but the
    root (m, 8) int32, the block of the next level that halves a cell, -1 where none does.

    Cells are halved by the numbers at their corners alone (`Frame.halved`), so that no mask is stored. Where a cell is
    not halved its numbers show that the surface is elsewhere.
    """

    def __init__(
        self,
        frame: Frame,
        root: Ints,
        blocks: Sequence[NDArray[np.int16]],
        children: Sequence[Indices],
        *,
        numbers: int,
        grown: Frame | None = None,
    ):
        self.frame, self.root = frame, root
        self._grown = grown or frame  # whose rule says which cells of the root are halved
        self.blocks, self.children = blocks, children
        self.numbers = numbers

    def coarser(self, levels: int) -> Lattice:
        """What its first levels alone say; to be looked at, not to be encoded: the last level's rule is another."""
        frame = replace(self.frame, levels=min(levels, self.frame.levels))
        blocks, children = self.blocks[: frame.levels], self.children[: max(frame.levels - 1, 0)]
        return Lattice(frame, self.root, blocks, children, numbers=self.numbers, grown=self._grown)

    def __call__(self, points: Floats) -> Singles:
        """points (n, 3), unit coordinates -> about the signed distance (n,), units; far outside beyond the root."""
        distance = np.full(len(points), -self.frame.side, dtype=np.float32)

        def fill(start: int) -> None:
            chunk = slice(start, start + CHUNK)
            distance[chunk] = self._evaluate(points[chunk], distance[chunk])

        with ThreadPoolExecutor(threads()) as pool:
            list(pool.map(fill, range(0, len(points), CHUNK)))
        return distance

    @cached_property
    def _table(self) -> tuple[int, Indices, Singles]:
        """The level at which a query begins; which block halves each of its cells; and the distances at their corners.

        level, (x, y, z), (x, y, z, 8): a cell that is not halved so far down has the values that hold there.
        """
        frame, level = self.frame, 0
        while level < frame.levels and round(2**level / frame.side) < TABLE:
            level += 1
        corners = _cell_corners(self.root.reshape(frame.shape + 1))
        halved = self._grown.halved(corners.sum(axis=1), 0) & (frame.levels > 0)
        block = np.where(halved, np.cumsum(halved) - 1, -1).reshape(frame.shape)
        values = (corners * frame.step(0)).astype(np.float32).reshape(*frame.shape, 8)
        for down in range(level):
            place, number = np.argwhere(block >= 0), block[block >= 0]
            halves = np.empty((*(2 * np.array(block.shape)), 8), dtype=np.float32)
            block = np.full(halves.shape[:3], -1)
            for octant, offset in enumerate(OCTANTS):
                at = tuple((2 * place + offset).T)
                halves[tuple(slice(start, None, 2) for start in offset)] = values @ _HALVES[octant]
                halves[at] = self.blocks[down][number][:, OCTANT_SLOTS[octant]] * np.float32(frame.step(down + 1))
                if down + 1 < frame.levels:
                    block[at] = self.children[down][number, octant]
            values = halves
        return level, block.astype(np.int32), values

    def _evaluate(self, points: Floats, distance: Singles) -> Singles:
        """The distances of a chunk; `distance` where it lies beyond the root."""
        frame = self.frame
        level, table, values = self._table
        with np.errstate(over="ignore", invalid="ignore"):  # beyond all measure is beyond the root
            place = ((points - frame.lower) * (2**level / frame.side)).T
        cells = np.array(table.shape)[:, None]
        within = np.flatnonzero(((place >= 0) & (place < cells)).all(axis=0))
        place = place[:, within]
        cell = place.astype(np.int32)
        share = (place - cell).astype(np.float32)
        x, y, z = cell
        number = (x * table.shape[1] + y) * table.shape[2] + z
        block = table.reshape(-1)[number]
        found = np.empty(len(within), dtype=np.float32)
        ends = np.flatnonzero(block < 0)
        found[ends] = _trilinear(values.reshape(-1), 8 * number[ends], (4, 2, 1), share[:, ends])
        left = np.flatnonzero(block >= 0)
        block, share = block[left].astype(np.int64), share[:, left]
        for down in range(level, frame.levels):
            share *= 2
            upper = share >= 1
            share -= upper
            octant = upper[0] * np.int64(4) + upper[1] * np.int64(2) + upper[2]
            last = down == frame.levels - 1
            below = np.full(len(block), -1) if last else self.children[down].reshape(-1)[8 * block + octant]
            ends = np.arange(len(block)) if last else np.flatnonzero(below < 0)
            corner = 27 * block[ends] + OCTANT_SLOTS[:, 0][octant[ends]]
            step = np.float32(frame.step(down + 1))
            found[left[ends]] = _trilinear(self.blocks[down].reshape(-1), corner, (9, 3, 1), share[:, ends]) * step
            if last:
                break
            on = np.flatnonzero(below >= 0)
            left, block, share = left[on], below[on].astype(np.int64), share[:, on]
        answer = distance.copy()
        answer[within] = found
        return answer


def _trilinear(values: NDArray[np.generic], corner: Ints, strides: tuple[int, int, int], share: Singles) -> Singles:
    """Between eight of the values: those at `corner` (n,) and one stride further along each axis, by shares (3, n)."""
    x, y, z = share
    planes = []
    for i in (0, strides[0]):
        lines = []
        for j in (0, strides[1]):
            low = values.take(corner + (i + j)).astype(np.float32)
            high = values.take(corner + (i + j + strides[2])).astype(np.float32)
            high -= low
            high *= z
            high += low
            lines.append(high)
        lines[1] -= lines[0]
        lines[1] *= y
        lines[1] += lines[0]
        planes.append(lines[1])
    planes[1] -= planes[0]
    planes[1] *= x
    planes[1] += planes[0]
    return planes[1]


def _cell_corners(values: Ints) -> Ints:
    """The values at the corners (n, 8) of the cells of a dense grid."""
    x, y, z = (np.array(values.shape) - 1).tolist()
    return np.stack([values[i : i + x, j : j + y, k : k + z].reshape(-1) for i, j, k in OCTANTS], axis=1)


class Growth:
    """A lattice as it grows, level by level: which cells are halved next, and where the corners of the halves lie.

    Whoever samples, solves, encodes or decodes one gives the whole numbers of each level's nodes in turn. The root's
    nodes are its corners.
    """

    def __init__(self, frame: Frame, root: Ints):
        self.frame, self.root = frame, root
        self.blocks: list[NDArray[np.int16]] = []
        self.children: list[Indices] = []
        self.nodes: Nodes | None = None
        self.corners: Ints = np.zeros((0, 8), dtype=np.int64)
        self._numbers = int(root.size)
        self._halved = np.zeros((0, 3), dtype=np.int64)  # the places of the cells that are the blocks

    @property
    def level(self) -> int:
        """That of the nodes that come next."""
        return len(self.blocks) + 1

    def halve(self) -> Nodes:
        """The nodes of the next level. `corners`: (m, 8), which nodes of this one are the halved cells' corners."""
        if self.nodes is None:
            cells = self.frame.root_cells()
            corners = self.frame.keys(cells[:, None] + OCTANTS, 0)
            chosen = np.flatnonzero(self.frame.halved(self.root[corners].sum(axis=1), 0))
            self._halved, self.corners = cells[chosen], corners[chosen]
        else:
            block = self.blocks[-1]
            sums = sum(block[:, slots].astype(np.int32) for slots in OCTANT_SLOTS.T)
            halved = self.frame.halved(np.asarray(sums).reshape(-1), self.level - 1)
            chosen = np.flatnonzero(halved)
            self.children.append(np.where(halved, np.cumsum(halved) - 1, -1).astype(np.int32).reshape(-1, 8))
            owner, octant = np.divmod(chosen, 8)
            self._halved = 2 * self._halved[owner] + OCTANTS[octant]
            self.corners = self.nodes.of_block[owner[:, None], OCTANT_SLOTS[octant]]
        self.nodes = Nodes.of(self.frame, self._halved, self.level)
        self._numbers += len(self.nodes.slot)
        return self.nodes

    def add(self, numbers: Ints) -> None:
        """Give the whole numbers (u,) of the nodes that `halve` returned."""
        assert self.nodes is not None
        self.blocks.append(numbers.astype(np.int16)[self.nodes.of_block])

    def lattice(self) -> Lattice:
        """The finished lattice."""
        return Lattice(self.frame, self.root, self.blocks, self.children, numbers=self._numbers)
