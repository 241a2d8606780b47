"""The grid's points and cells, and how their logits are kept: all of a coarse grid, bricks of a fine one."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ff3d.geometry.arrays import Floats, Ints

Cells = NDArray[np.int32]  # (3, m), the index of each cell's lowest corner
Cases = NDArray[np.uint8]  # (m,), which corners of a cell are inside: corner (i, j, k) is bit 4 i + 2 j + k
Logits = Callable[[Floats], NDArray[np.floating]]
Guide = Callable[[Floats, float], NDArray[np.bool_]]
MARGIN = 1e-3  # of a cell: no vertex comes nearer to a grid point, so that no face collapses
HUGE = 1e30  # infinite logits become this
BORDER = -1e38  # far more than any logit, so that a surface closed at a side of the box lies at that side
BATCH = 2**16  # cells that pass through the caches together
# peak resident memory, measured for spheres and gyroids of three sizes at resolutions 128 to 1024
BYTES_A_VOXEL = 9  # of the coarse grid: 4 for the logit, the rest in passing
BYTES_A_TILE = 4  # of 8^3 points: an entry of a table
BYTES_A_BRICK = 512 * 9  # for each of 8^3 points the logit, whether its cell was visited, the number of its cell
BYTES_A_CELL = 40  # that was visited
BYTES_A_VERTEX = 130  # with its two faces
CORNERS: list[tuple[int, int, int]] = [
    (i, j, k) for i in (0, 1) for j in (0, 1) for k in (0, 1)
]  # in the order of a case's bits
# of a cell: the axis, the side (0 lower, 1 upper), and the bits of the four corners of each face
FACES = [
    (axis, side, sum(1 << b for b, c in enumerate(CORNERS) if c[axis] == side)) for axis in range(3) for side in (0, 1)
]


class ExtractionError(ValueError):
    """A function that has no surface to extract; the message says what it answered, and where."""


def cells_along(box: Floats, resolution: int) -> tuple[int, int, int]:
    """How many cubes, `resolution` of them along the longest side, cover each side."""
    extent = box[1] - box[0]
    nx, ny, nz = (max(1, math.ceil(side * int(resolution) / extent.max() - 1e-9)) for side in extent)
    return nx, ny, nz


def grid_axes(box: Floats, resolution: int) -> list[Floats]:
    """The coordinates of the grid points along each axis, the first and last of them on the box's sides."""
    cell = float((box[1] - box[0]).max()) / int(resolution)
    axes = []
    for low, high, cells in zip(*box, cells_along(box, resolution), strict=True):
        axis = low + ((high - low) - cells * cell) / 2 + cell * np.arange(cells + 1)
        axis[0], axis[-1] = low, high
        axes.append(axis)
    return axes


class Frame:
    """The fine grid in its box. An index (3, m) counts from `step` before the first grid point, so that the border
    of the coarse grid has one too: there everything is outside.
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

    def holds(self, index: Cells) -> NDArray[np.bool_]:
        """Whether points are of the grid, not of its border."""
        return np.logical_and.reduce(
            [(i >= self.step) & (i <= self.step + n) for i, n in zip(index, self.cells, strict=True)]
        )

    def centers(self, cells: Cells, side: int) -> Floats:
        """The centres (m, 3) of cells of `side` fine ones, cubes whether or not they stand out of the box."""
        middle = self.step + np.array(self.cells) / 2
        return self.middle + (cells.T * side + (side / 2 - middle)) * self.cell


class DenseLevel:
    """The logits of all points of a grid, inside a border of one layer that is outside: (nx, ny, nz)."""

    def __init__(self, table: NDArray[np.float32], step: int):
        self.table, self.step = table, step
        self.values = table.reshape(-1)
        self.strides = table.shape[1] * table.shape[2], table.shape[2]

    def locate(self, index: Cells) -> Ints:
        """Where in `values` points are."""
        x, y, z = index
        return (x.astype(np.int64) * self.strides[0] + y * self.strides[1]) + z

    def around(self, cells: Cells) -> Ints:
        """Where in `values` the corners of cells are (8, m)."""
        return self.locate(cells) + np.array(CORNERS) @ [[self.strides[0]], [self.strides[1]], [1]]

    def look(self, index: Cells) -> NDArray[np.float32]:
        """The logits of points."""
        return self.values[self.locate(index)]

    def all_cells(self) -> Iterator[tuple[Cells, Cases]]:
        """Every cell with its case, slab by slab, in the order of their indices."""
        shape = [n - 1 for n in self.table.shape]
        thick = max(1, 2**21 // (shape[1] * shape[2]))
        for x in range(0, shape[0], thick):
            inside = (self.table[x : x + thick + 1] > 0).view(np.uint8)
            case = np.zeros((len(inside) - 1, *shape[1:]), dtype=np.uint8)
            for bit, (i, j, k) in enumerate(CORNERS):
                case |= inside[i : i + case.shape[0], j : j + shape[1], k : k + shape[2]] << bit
            flat = case.reshape(-1)
            kept = np.flatnonzero(mixed(flat)) if self.step == 1 else np.arange(len(flat))
            cells = np.stack(np.unravel_index(kept, case.shape)).astype(np.int32)
            cells[0] += x
            yield cells, flat[kept]


class Queries(Protocol):
    """What a level needs of whoever queries the function: its grid, and the bounds on its work."""

    frame: Frame
    chunk: int
    bar: Any

    def ask(self, points: Floats) -> Floats:
        """The logits (n,) of points (n, 3), finite."""

    def check_room(self, level: Level, cells: int, vertices: int = 0) -> None:
        """Raise MemoryError if so many cells, or vertices, take more than is available."""


class BrickLevel:
    """The logits of some points of a grid, in bricks of 8^3 points that are there where they are needed.

    A value is NaN until it is wanted, and infinite until it is known. Each point stands for the cell that it is the
    lowest corner of, too: `visited` says which cells were claimed.
    """

    def __init__(self, parent: Level, search: Queries):
        self.parent, self.search, self.frame = parent, search, search.frame
        self.step: int = parent.step // 2
        coarse = search.frame.step // self.step
        tiles = [((n // search.frame.step + 2) * coarse >> 3) + 1 for n in search.frame.cells]
        self.tiles = tuple(tiles)
        self.strides = tiles[1] * tiles[2], tiles[2]
        self.table = np.full(math.prod(tiles), -1, dtype=np.int32)
        self.count = 0
        self.corner = np.empty((3, 0), dtype=np.int32)  # the lowest index of each brick
        self.values = np.empty(0, dtype=np.float32)
        self.visited = np.empty(0, dtype=np.bool_)
        self.touched = np.empty(0, dtype=np.bool_)  # bricks with a value that is wanted

    def locate(self, index: Cells) -> Ints:
        """Where in `values` points are; negative where there is no brick."""
        x, y, z = index
        brick = self.table[(x >> 3) * self.strides[0] + (y >> 3) * self.strides[1] + (z >> 3)]
        return (brick.astype(np.int64) << 9) + (((x & 7) << 6) | ((y & 7) << 3) | (z & 7))

    def around(self, cells: Cells) -> Ints:
        """`locate` of the corners of cells, (8, m)."""
        address = np.empty((8, cells.shape[1]), dtype=np.int64)
        ends = cells, cells + np.int32(1)
        tile = [(it[0] >> 3) * self.strides[0] for it in ends], [(it[1] >> 3) * self.strides[1] for it in ends]
        place = [(it[0] & 7) << 6 for it in ends], [(it[1] & 7) << 3 for it in ends]
        last = [it[2] >> 3 for it in ends], [it[2] & 7 for it in ends]
        for bit, (i, j, k) in enumerate(CORNERS):
            if k == 0:
                tiles, places = tile[0][i] + tile[1][j], place[0][i] | place[1][j]
            address[bit] = self.table[tiles + last[0][k]]
            address[bit] <<= 9
            address[bit] += places | last[1][k]
        return address

    def look(self, index: Cells) -> NDArray[np.float32]:
        """The logits of points as far as they are known on this level or one above, else NaN."""
        address = self.locate(index)
        values = np.where(address >= 0, self.values[np.maximum(address, 0)], np.float32(np.nan))
        above = np.flatnonzero(np.isnan(values) & ((index[0] | index[1] | index[2]) & 1 == 0))
        values[above] = self.parent.look(index[:, above] >> 1)
        return values

    def make(self, index: Cells) -> Ints:
        """Where in `values` points are, bricks made where there are none."""
        address = self.locate(index)
        if (absent := address < 0).any():
            x, y, z = index[:, absent] >> 3
            tile = np.unique(x * self.strides[0] + y * self.strides[1] + z)
            old, self.count = self.count, self.count + len(tile)
            self.table[tile] = np.arange(old, self.count)
            corner = np.stack(np.unravel_index(tile, self.tiles)).astype(np.int32) * 8
            self.corner = np.concatenate([self.corner[:, :old], corner], axis=1)
            if self.count > len(self.touched):
                room = max(self.count, len(self.touched) * 5 // 4)
                # in place where the system can: no second copy
                self.values.resize(room * 512, refcheck=False)
                self.visited.resize(room * 512, refcheck=False)
                self.touched.resize(room, refcheck=False)
            self.values[old * 512 : self.count * 512] = np.nan
            address[absent] = self.locate(index[:, absent])
        return address

    def want(self, index: Cells) -> None:
        """Mark points whose values `fill` is to find."""
        self._mark(self.make(index))

    def want_corners(self, cells: Cells) -> None:
        """Mark the corners of cells."""
        address = self.around(cells)
        absent = (address < 0).any(axis=0)
        if absent.any():
            for corner in CORNERS:
                self.make(cells[:, absent] + column(corner))
            address[:, absent] = self.around(cells[:, absent])
        self._mark(address)

    def _mark(self, address: Ints) -> None:
        new = address[np.isnan(self.values[address])]
        self.values[new] = np.inf
        self.touched[new >> 9] = True

    def fill(self) -> None:
        """Find the values wanted: outside on the border, from the level above, by asking; brick by brick."""
        bricks = np.flatnonzero(self.touched)
        self.touched[bricks] = False
        unknown = []
        for start in range(0, len(bricks), 2**11):
            some = bricks[start : start + 2**11]
            row, place = np.nonzero(np.isinf(self.values.reshape(-1, 512)[some]))
            address = some[row] * 512 + place
            index = self._index(address)
            held = self.frame.holds(index * np.int32(self.step))
            self.values[address[~held]] = BORDER
            address, index = address[held], index[:, held]
            even = (index[0] | index[1] | index[2]) & 1 == 0
            known = self.parent.look(index[:, even] >> 1)
            even[even] = ~np.isnan(known)
            self.values[address[even]] = known[~np.isnan(known)]
            unknown.append(address[~even])
        asked = np.concatenate(unknown) if unknown else np.zeros(0, dtype=np.int64)
        self.search.bar.total = (self.search.bar.total or 0) + len(asked)
        for start in range(0, len(asked), self.search.chunk):
            address = asked[start : start + self.search.chunk]
            points = self.frame.points(self._index(address) * np.int32(self.step))
            self.values[address] = self.search.ask(points)

    def _index(self, address: Ints) -> Cells:
        place = (address & 511).astype(np.int32)
        index = self.corner[:, address >> 9]
        index += np.stack([place >> 6, place >> 3 & 7, place & 7])
        return index

    def claim(self, cells: Cells) -> Cells:
        """Those of distinct cells that were not claimed before."""
        address = self.make(cells)
        new = ~self.visited[address]
        self.visited[address[new]] = True
        return cells[:, new]

    def visit(self, cells: Cells) -> tuple[Cells, Cases]:
        """The cells, and all that the surface leads to from them through faces with corners of both signs.

        cells: claimed. Returns all of them with their cases, on the finest level those alone that are mixed.
        """
        found: list[Cells] = [cells[:, :0]]
        cases: list[Cases] = [np.zeros(0, dtype=np.uint8)]
        seen = 0
        while cells.size:
            seen += cells.shape[1]
            self.search.check_room(self, seen)
            for some in batches(cells):
                self.want_corners(some)
            self.fill()
            beyond = []
            for some in batches(cells):
                case = self.case(some)
                for axis, side, corners in FACES:
                    part = case & corners
                    leaves = some[:, (part != 0) & (part != corners)]
                    leaves[axis] += 2 * side - 1
                    beyond.append(self.claim(leaves))
                kept = mixed(case) if self.step == 1 else slice(None)
                found.append(some[:, kept])
                cases.append(case[kept])
            cells = np.concatenate(beyond, axis=1)
        return np.concatenate(found, axis=1), np.concatenate(cases)

    def case(self, cells: Cells) -> Cases:
        """The cases of cells whose corners are known."""
        return np.packbits(self.values[self.around(cells)] > 0, axis=0, bitorder="little")[0]


Level = DenseLevel | BrickLevel


def column(corner: tuple[int, int, int]) -> Cells:
    """An offset as a column, to be added to cells (3, m)."""
    return np.array(corner, dtype=np.int32)[:, None]


def mixed(cases: Cases) -> NDArray[np.bool_]:
    """Whether cells have corners of both signs."""
    return (cases != 0) & (cases != 255)


def batches(cells: Cells) -> Iterator[Cells]:
    """Cells in portions that stay in the cache."""
    for start in range(0, cells.shape[1], BATCH):
        yield cells[:, start : start + BATCH]
