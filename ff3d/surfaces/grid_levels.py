"""The points and cells of the extraction grid, and their logits: dense when coarse, in bricks when fine."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ff3d.geometry.arrays import Bools, Floats, Ints, Singles

Cells = NDArray[np.int32]  # (3, m), the index of each cell's lowest corner
Cases = NDArray[np.uint8]  # (m,), which corners of a cell are inside: corner (i, j, k) is bit 4 i + 2 j + k
Logits = Callable[[Floats], NDArray[np.floating]]  # points (n, 3) -> (n,), > 0 inside
Guide = Callable[[Floats, float], Bools]  # centers (n, 3) and side of cubes -> (n,), whether the surface may cross them
MARGIN = 1e-3  # of a cell: no vertex comes nearer to a grid point, so that no face collapses
LARGEST_LOGIT = 1e30  # infinite logits are clipped to this
BORDER_LOGIT = -1e38  # far below any other, so that a surface closed at a side of the box lies at that side
BATCH = 2**16  # cells processed together, so that they stay in the cache
# peak resident memory, measured for spheres and gyroids of three sizes at resolutions 128 to 1024
BYTES_PER_VOXEL = 9  # of the coarse grid: 4 for the logit, the rest temporary
BYTES_PER_TILE = 4  # of 8^3 points: an entry of a table
BYTES_PER_BRICK = 512 * 9  # for each of 8^3 points the logit, whether its cell was visited, the number of its cell
BYTES_PER_CELL = 40  # visited
BYTES_PER_VERTEX = 130  # with its two faces
CORNERS: list[tuple[int, int, int]] = [
    (i, j, k) for i in (0, 1) for j in (0, 1) for k in (0, 1)
]  # in the order of a case's bits
# of a cell: the axis, the side (0 lower, 1 upper), and the bits of the four corners of each face
FACES = [
    (axis, side, sum(1 << b for b, c in enumerate(CORNERS) if c[axis] == side)) for axis in range(3) for side in (0, 1)
]


class ExtractionError(ValueError):
    """No surface can be extracted from a function; the message says what the function returned, and where."""


def cells_along(box: Floats, resolution: int) -> tuple[int, int, int]:
    """How many cubes cover each side of the box, `resolution` of them along the longest.

    >>> cells_along(np.array([[0.0, 0, 0], [4, 2, 1.1]]), 8)
    (8, 4, 3)
    """
    extent = box[1] - box[0]
    nx, ny, nz = (max(1, math.ceil(side * int(resolution) / extent.max() - 1e-9)) for side in extent)
    return nx, ny, nz


def grid_axes(box: Floats, resolution: int) -> list[Floats]:
    """The coordinates of the grid points along each axis; the first and the last lie on the box's sides."""
    cell = float((box[1] - box[0]).max()) / int(resolution)
    axes = []
    for low, high, cells in zip(*box, cells_along(box, resolution), strict=True):
        axis = low + ((high - low) - cells * cell) / 2 + cell * np.arange(cells + 1)
        axis[0], axis[-1] = low, high
        axes.append(axis)
    return axes


class FineGrid:
    """The finest grid in its box. Indices (3, m) count from `step` cells before the first grid point, so that the
    border of the coarse grid, where everything is outside, has indices too.
    """

    def __init__(self, box: Floats, resolution: int, step: int):
        self.resolution, self.step = int(resolution), step
        self.axes = grid_axes(box, resolution)
        self.cells = cells_along(box, resolution)
        self.cell = float((box[1] - box[0]).max()) / int(resolution)
        self.middle = box[0] + (box[1] - box[0]) / 2

    def points(self, index: Cells) -> Floats:
        """The coordinates (m, 3) of grid points."""
        return np.stack([axis[i - self.step] for axis, i in zip(self.axes, index, strict=True)], axis=1)

    def contains(self, index: Cells) -> Bools:
        """Whether indices are those of grid points, not of the border (m,)."""
        return np.logical_and.reduce(
            [(i >= self.step) & (i <= self.step + n) for i, n in zip(index, self.cells, strict=True)]
        )

    def centers(self, cells: Cells, side: int) -> Floats:
        """The centres (m, 3) of coarse cells, `side` fine ones wide: cubes, even where they stand out of the box."""
        middle = self.step + np.array(self.cells) / 2
        return self.middle + (cells.T * side + (side / 2 - middle)) * self.cell


class DenseLevel:
    """The logits of all points of a grid (nx, ny, nz), with one layer of outside points around them."""

    def __init__(self, table: Singles, step: int):
        self.table, self.step = table, step
        self.values = table.reshape(-1)
        self.strides = table.shape[1] * table.shape[2], table.shape[2]

    def addresses(self, index: Cells) -> Ints:
        """The places of points in `values` (m,)."""
        x, y, z = index
        return (x.astype(np.int64) * self.strides[0] + y * self.strides[1]) + z

    def corner_addresses(self, cells: Cells) -> Ints:
        """The places of the corners of cells in `values` (8, m)."""
        return self.addresses(cells) + np.array(CORNERS) @ [[self.strides[0]], [self.strides[1]], [1]]

    def values_at(self, index: Cells) -> Singles:
        """The logits of points (m,)."""
        return self.values[self.addresses(index)]

    def all_cells(self) -> Iterator[tuple[Cells, Cases]]:
        """Every cell with its case, slab by slab, in ascending order of indices; on the finest level the mixed ones."""
        shape = [n - 1 for n in self.table.shape]
        thickness = max(1, 2**21 // (shape[1] * shape[2]))
        for x in range(0, shape[0], thickness):
            inside = (self.table[x : x + thickness + 1] > 0).view(np.uint8)
            slab = np.zeros((len(inside) - 1, *shape[1:]), dtype=np.uint8)
            for bit, (i, j, k) in enumerate(CORNERS):
                slab |= inside[i : i + slab.shape[0], j : j + shape[1], k : k + shape[2]] << bit
            cases = slab.reshape(-1)
            rows = np.flatnonzero(mixed(cases)) if self.step == 1 else np.arange(len(cases))
            cells = np.stack(np.unravel_index(rows, slab.shape)).astype(np.int32)
            cells[0] += x
            yield cells, cases[rows]


class Evaluator(Protocol):
    """What a level needs to evaluate the function: the grid, the batch size, and the limit on memory."""

    grid: FineGrid
    chunk: int
    bar: Any

    def query(self, points: Floats) -> Floats:
        """The logits (n,) of points (n, 3), finite."""

    def check_memory(self, level: Level, cells: int, vertices: int = 0) -> None:
        """Raise MemoryError if so many cells, or vertices, need more than is available."""


class BrickLevel:
    """The logits of some points of a grid, in bricks of 8^3 points that are allocated where they are needed.

    A value is NaN until it is requested, and infinite until it is evaluated. A point also stands for the cell of which
    it is the lowest corner: `visited` marks those cells.
    """

    def __init__(self, parent: Level, evaluator: Evaluator):
        self.parent, self.evaluator, self.grid = parent, evaluator, evaluator.grid
        self.step: int = parent.step // 2
        coarse = self.grid.step // self.step
        tiles = [((n // self.grid.step + 2) * coarse >> 3) + 1 for n in self.grid.cells]
        self.tiles = tuple(tiles)
        self.strides = tiles[1] * tiles[2], tiles[2]
        self.table = np.full(math.prod(tiles), -1, dtype=np.int32)  # the brick of each tile
        self.count = 0
        self.corner = np.empty((3, 0), dtype=np.int32)  # the lowest index of each brick
        self.values = np.empty(0, dtype=np.float32)
        self.visited = np.empty(0, dtype=np.bool_)
        self.pending = np.empty(0, dtype=np.bool_)  # bricks with a value that is requested and not yet evaluated

    def addresses(self, index: Cells) -> Ints:
        """The places of points in `values` (m,); negative where there is no brick."""
        x, y, z = index
        brick = self.table[(x >> 3) * self.strides[0] + (y >> 3) * self.strides[1] + (z >> 3)]
        return (brick.astype(np.int64) << 9) + (((x & 7) << 6) | ((y & 7) << 3) | (z & 7))

    def corner_addresses(self, cells: Cells) -> Ints:
        """`addresses` of the corners of cells (8, m)."""
        address = np.empty((8, cells.shape[1]), dtype=np.int64)
        ends = cells, cells + np.int32(1)
        tile = [(end[0] >> 3) * self.strides[0] for end in ends], [(end[1] >> 3) * self.strides[1] for end in ends]
        place = [(end[0] & 7) << 6 for end in ends], [(end[1] & 7) << 3 for end in ends]
        last = [end[2] >> 3 for end in ends], [end[2] & 7 for end in ends]
        for bit, (i, j, k) in enumerate(CORNERS):
            if k == 0:
                tiles, places = tile[0][i] + tile[1][j], place[0][i] | place[1][j]
            address[bit] = self.table[tiles + last[0][k]]
            address[bit] <<= 9
            address[bit] += places | last[1][k]
        return address

    def values_at(self, index: Cells) -> Singles:
        """The logits of points (m,) that are known on this level or a coarser one, else NaN."""
        address = self.addresses(index)
        values = np.where(address >= 0, self.values[np.maximum(address, 0)], np.float32(np.nan))
        above = np.flatnonzero(np.isnan(values) & ((index[0] | index[1] | index[2]) & 1 == 0))
        values[above] = self.parent.values_at(index[:, above] >> 1)
        return values

    def allocate(self, index: Cells) -> Ints:
        """The places of points in `values` (m,), after allocating the bricks that are absent."""
        address = self.addresses(index)
        if (absent := address < 0).any():
            x, y, z = index[:, absent] >> 3
            tile = np.unique(x * self.strides[0] + y * self.strides[1] + z)
            old, self.count = self.count, self.count + len(tile)
            self.table[tile] = np.arange(old, self.count)
            corner = np.stack(np.unravel_index(tile, self.tiles)).astype(np.int32) * 8
            self.corner = np.concatenate([self.corner[:, :old], corner], axis=1)
            if self.count > len(self.pending):
                capacity = max(self.count, len(self.pending) * 5 // 4)
                # in place where the system can: no second copy
                self.values.resize(capacity * 512, refcheck=False)
                self.visited.resize(capacity * 512, refcheck=False)
                self.pending.resize(capacity, refcheck=False)
            self.values[old * 512 : self.count * 512] = np.nan
            address[absent] = self.addresses(index[:, absent])
        return address

    def request(self, index: Cells) -> None:
        """Mark points whose values `evaluate_requested` is to find."""
        self._mark_requested(self.allocate(index))

    def request_corners(self, cells: Cells) -> None:
        """Request the corners of cells."""
        address = self.corner_addresses(cells)
        absent = (address < 0).any(axis=0)
        if absent.any():
            for corner in CORNERS:
                self.allocate(cells[:, absent] + column(corner))
            address[:, absent] = self.corner_addresses(cells[:, absent])
        self._mark_requested(address)

    def _mark_requested(self, address: Ints) -> None:
        new = address[np.isnan(self.values[address])]
        self.values[new] = np.inf
        self.pending[new >> 9] = True

    def evaluate_requested(self) -> None:
        """Find the values requested, brick by brick: the border's, those known on a coarser level, the function's."""
        bricks = np.flatnonzero(self.pending)
        self.pending[bricks] = False
        unknown = []
        for start in range(0, len(bricks), 2**11):
            batch = bricks[start : start + 2**11]
            row, place = np.nonzero(np.isinf(self.values.reshape(-1, 512)[batch]))
            address = batch[row] * 512 + place
            index = self._index(address)
            on_grid = self.grid.contains(index * np.int32(self.step))
            self.values[address[~on_grid]] = BORDER_LOGIT
            address, index = address[on_grid], index[:, on_grid]
            even = (index[0] | index[1] | index[2]) & 1 == 0
            known = self.parent.values_at(index[:, even] >> 1)
            even[even] = ~np.isnan(known)
            self.values[address[even]] = known[~np.isnan(known)]
            unknown.append(address[~even])
        rest = np.concatenate(unknown) if unknown else np.zeros(0, dtype=np.int64)
        evaluator = self.evaluator
        evaluator.bar.total = (evaluator.bar.total or 0) + len(rest)
        for start in range(0, len(rest), evaluator.chunk):
            address = rest[start : start + evaluator.chunk]
            points = self.grid.points(self._index(address) * np.int32(self.step))
            self.values[address] = evaluator.query(points)

    def _index(self, address: Ints) -> Cells:
        place = (address & 511).astype(np.int32)
        index = self.corner[:, address >> 9]
        index += np.stack([place >> 6, place >> 3 & 7, place & 7])
        return index

    def mark_visited(self, cells: Cells) -> Cells:
        """Mark distinct cells as visited; return those that were not before."""
        address = self.allocate(cells)
        new = ~self.visited[address]
        self.visited[address[new]] = True
        return cells[:, new]

    def follow(self, cells: Cells) -> tuple[Cells, Cases]:
        """The cells, and all those that the surface reaches from them through faces with corners of both signs.

        cells: marked as visited. Returns them with their cases; on the finest level, only those that are mixed.
        """
        found: list[Cells] = [cells[:, :0]]
        cases: list[Cases] = [np.zeros(0, dtype=np.uint8)]
        seen = 0
        while cells.size:
            seen += cells.shape[1]
            self.evaluator.check_memory(self, seen)
            for batch in batches(cells):
                self.request_corners(batch)
            self.evaluate_requested()
            beyond = []
            for batch in batches(cells):
                case = self.cases_of(batch)
                for axis, side, corners in FACES:
                    on_face = case & corners
                    across = batch[:, (on_face != 0) & (on_face != corners)]
                    across[axis] += 2 * side - 1
                    beyond.append(self.mark_visited(across))
                kept = mixed(case) if self.step == 1 else slice(None)
                found.append(batch[:, kept])
                cases.append(case[kept])
            cells = np.concatenate(beyond, axis=1)
        return np.concatenate(found, axis=1), np.concatenate(cases)

    def cases_of(self, cells: Cells) -> Cases:
        """The cases (m,) of cells whose corners are known."""
        return np.packbits(self.values[self.corner_addresses(cells)] > 0, axis=0, bitorder="little")[0]


Level = DenseLevel | BrickLevel


def column(corner: tuple[int, int, int]) -> Cells:
    """An offset as a column (3, 1), to be added to cells (3, m)."""
    return np.array(corner, dtype=np.int32)[:, None]


def mixed(cases: Cases) -> Bools:
    """Whether cells have corners of both signs (m,)."""
    return (cases != 0) & (cases != 255)


def batches(cells: Cells) -> Iterator[Cells]:
    """Cells in batches that stay in the cache."""
    for start in range(0, cells.shape[1], BATCH):
        yield cells[:, start : start + BATCH]
