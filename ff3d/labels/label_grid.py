"""The cell grid: cells that no triangle touches have one label each, so a point in them needs a look-up, no oracle."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ff3d.geometry.arrays import Bools, Floats, Indices, Ints
from ff3d.geometry.crossings import CellFaces, Spaces, Stations
from ff3d.geometry.surface_cells import (
    INSIDE,
    OUTSIDE,
    REACH,
    TOUCHED,
    UNKNOWN,
    SurfaceCells,
    brick_address,
    floor_cells,
    lattice,
    touched_cells,
)
from ff3d.geometry.triangles import components

if TYPE_CHECKING:
    from ff3d.labels.second_oracles import GridTensors

Winding = Callable[[Floats, float], Floats]  # points (n, 3) and an accuracy -> (n,)
PAIRS = 2_000_000  # of a triangle and a cell that it touches, and four more for each face; else cells are larger
TOP, LEVELS = 64, 3  # coarse cells along the longest side; how often they are halved where the surface is
MOST_QUERIED = 2**18  # cells of an open surface that are queried one by one
DIRECT = 0.25  # how much the winding number of caps may change within cells that are queried together
ACCURACY, DOUBT = 2.0, 0.06  # of the caps' winding number, and how far off it may then be
CLEAR = 2e-6  # units: how far from all triangles a point must lie for a sum in float32 to tell its side
ONE_CALL = threading.Lock()  # what a call finds out of crowded cells the next ones use, and it has threads of its own
CHUNK = 2**16  # points of a look-up: what passes through the caches together


@dataclass(frozen=True)
class Caps:
    """Triangles that close a surface with a rim.

    triangles: (c, 3, 3), unit coordinates.  rim: (r, 2, 3), the segments where the surface ends, each as often as its
    faces there are out of balance.  winding_number: that of the caps.
    """

    triangles: Floats
    rim: Floats
    winding_number: Winding


@dataclass(frozen=True)
class CellGrid:
    """The labels of the cells of a grid in two levels: a coarse table, and bricks of fine cells where the surface is.

    lower: the table's lowest corner (3,), unit coordinates.  cell: side of a fine cell, unit coordinates.
    table: (nx, ny, nz) int32, the brick of each coarse cell; its outermost layer stands for all space beyond.
    bricks: (k, b, b, b) uint8 of `OUTSIDE`, `INSIDE`, `UNKNOWN`; the first three are one of these throughout.

    A label holds for every point of its cell, and is the winding number's. No triangle touches the cell: tested by
    separating axes (Akenine-Moller 2001, "Fast 3D triangle-box overlap testing") on cells grown by `REACH`. The
    winding number of a surface without a rim is constant where one can walk without crossing it. One with a rim is
    closed by caps first, and the winding number of the caps is subtracted. Its gradient is at most the sum over the
    rim of |dl| / (4 pi d^2), as the magnetic field of a current along the rim (Biot and Savart); where that bound
    leaves room for a change of label, the cell is `UNKNOWN`.
    """

    lower: Floats
    cell: float
    table: NDArray[np.int32]
    bricks: NDArray[np.uint8]

    @classmethod
    def build(cls, triangles: Floats, caps: Caps | None = None) -> CellGrid:
        """The grid of a surface.

        triangles: (f, 3, 3), unit coordinates, a surface without a rim, with the caps, last, if it needed any.
        """
        low, high = triangles.min(axis=(0, 1)), triangles.max(axis=(0, 1))
        side = float((high - low).max()) / (TOP - 1)
        fine = side / 2**LEVELS
        low = low - 0.46 * side  # so that no flat side of the shape lies in a face of any cell
        face, touched, level = touched_cells((triangles - low) / fine, PAIRS + 4 * len(triangles))
        bits = max(0, LEVELS - level)
        fine *= 2**level
        cell = touched.T + 2**bits
        shape = (cell.max(axis=1) >> bits) + 2
        coarse = np.ravel_multi_index(tuple(cell >> bits), tuple(shape))
        table = np.full(shape.prod(), -1, dtype=np.int32)
        table[coarse] = 0
        surface = np.flatnonzero(table == 0)
        table[surface] = np.arange(3, len(surface) + 3)
        bricks = np.full((len(surface) + 3, *(2**bits,) * 3), UNKNOWN, dtype=np.uint8)
        bricks[3:] = OUTSIDE
        address = brick_address(table[coarse], cell, bits)
        bricks.reshape(-1)[address] = UNKNOWN
        grid = cls(low - fine * 2**bits, fine, table.reshape(shape), bricks)
        spaces = _spaces(grid)
        faces = CellFaces.of(triangles, face, address)
        cells = _coordinates(grid, surface, faces.address)
        stations = Stations(grid.lower, fine, spaces, faces, cells, 0 if caps is None else len(caps.triangles))
        _ = stations.known  # fills in the numbers of the spaces
        _label(grid, surface, spaces, caps)
        bricks[OUTSIDE], bricks[INSIDE], bricks[UNKNOWN] = OUTSIDE, INSIDE, UNKNOWN
        grid.__dict__["_stations"] = stations
        return grid

    @property
    def side(self) -> float:
        """The side of a coarse cell, unit coordinates."""
        return self.cell * self.bricks.shape[1]

    @cached_property
    def known_share(self) -> float:
        """The share of the grid's volume, without the outermost layer, whose cells have a label."""
        unknown = (self.bricks == UNKNOWN).mean(axis=(1, 2, 3))
        return float(1 - unknown[self.table[1:-1, 1:-1, 1:-1]].mean())

    def may_hold_surface(self, centers: Floats, side: float) -> NDArray[np.bool_]:
        """Whether cubes meet an `UNKNOWN` cell: centers (n, 3) and side, unit coordinates -> (n,) bool.

        Where it says no, all of the cube has one label. A guide for `extract_mesh`.
        """
        bits = self.bricks.shape[1].bit_length() - 1
        if side >= self.side:
            coarse = self._unknown[bits].reshape(-1)[self.table]
            return SurfaceCells(self.lower, self.side, np.where(coarse, TOUCHED, OUTSIDE).astype(np.uint8))(
                centers, side
            )
        level = int(np.clip(np.floor(np.log2(side / self.cell) + 1e-9), 0, bits))
        size, unknown = self.cell * 2**level, self._unknown[level].reshape(-1)
        bits -= level
        last_cell = (np.array(self.table.shape) << bits) - 1
        answer = np.zeros(len(centers), dtype=bool)
        for start in range(0, len(centers), CHUNK):
            middle = centers[start : start + CHUNK] - self.lower
            first = np.clip(floor_cells((middle - side / 2) / size - REACH), 0, last_cell)
            last = np.clip(floor_cells((middle + side / 2) / size + REACH), 0, last_cell)
            for step in product(range(int((last - first).max(initial=0)) + 1), repeat=3):
                x, y, z = np.minimum(first + step, last).T
                brick = self.table[x >> bits, y >> bits, z >> bits].astype(np.int64)
                mask = 2**bits - 1
                place = ((x & mask) << 2 * bits) | ((y & mask) << bits) | (z & mask)
                answer[start : start + CHUNK] |= unknown[(brick << 3 * bits) + place]
        return answer

    @cached_property
    def _unknown(self) -> list[NDArray[np.bool_]]:
        """Whether a cell of a brick is unknown, then whether one in a block of 2^3 is, of 4^3, and so on."""
        levels = [self.bricks == UNKNOWN]
        while (edge := levels[-1].shape[1] // 2) > 0:
            levels.append(levels[-1].reshape(-1, edge, 2, edge, 2, edge, 2).any(axis=(2, 4, 6)))
        return levels

    def surface_cells(self) -> SurfaceCells:
        """The coarse cells: which the surface touches, and where the others lie."""
        return SurfaceCells(self.lower, self.side, np.minimum(self.table, TOUCHED).astype(np.uint8))

    def look_up(
        self, points: NDArray[np.floating], *, origin: Floats | float = 0.0, unit: float = 1.0
    ) -> NDArray[np.uint8]:
        """points (n, 3), finite, at origin + unit * unit coordinates -> (n,): `OUTSIDE`, `INSIDE` or `UNKNOWN`."""
        label = np.empty(len(points), dtype=np.uint8)
        bits = self.bricks.shape[1].bit_length() - 1
        corner, scale = origin + unit * self.lower, 1 / (unit * self.cell)
        last = (np.array(self.table.shape) << bits) - 0.5
        table, bricks = self.table.reshape(-1), self.bricks.reshape(-1)
        for start in range(0, len(points), CHUNK):
            place = points[start : start + CHUNK].T.copy()  # a row for each axis: three times as fast
            for axis in range(3):
                place[axis] -= corner[axis]
                place[axis] *= scale
                np.clip(place[axis], 0, last[axis], out=place[axis])
            x, y, z = cell = place.astype(np.int32)
            coarse = cell >> bits
            address = table[(coarse[0] * self.table.shape[1] + coarse[1]) * self.table.shape[2] + coarse[2]]
            cell &= 2**bits - 1
            address <<= 3 * bits
            address |= (x << 2 * bits) | (y << bits) | z
            label[start : start + CHUNK] = bricks[address]
        return label

    def whole_number(self, points: Floats) -> tuple[Floats, Bools]:
        """The winding number of all triangles, caps among them, and whether a cap touches the point's cell.

        points (n, 3), unit coordinates -> (n,), (n,).
        In a cell that triangles touch it is that of a point in an untouched cell beside it, or of one in the cell if
        there is none, and one more or less for each triangle that the segment to there crosses, told in float64. NaN
        where rounding may change what is crossed. Safe to call from several threads; one call at a time.
        """
        stations: Stations = self.__dict__["_stations"]
        with ONE_CALL:
            return stations.whole_number(points)

    def on(self, device: str | Any) -> GridTensors:
        """The same grid as tensors on a torch device; the numbers are copied once for each device."""
        from ff3d.labels.second_oracles import GridTensors

        copies: dict[str, GridTensors] = self.__dict__.setdefault("_tensors", {})
        if str(device) not in copies:
            copies[str(device)] = GridTensors(self.lower, self.cell, self.table, self.bricks, device)
        return copies[str(device)]


# ---------------------------------------------------------------------------------------------- what the others are


def _slope(rim: Floats, grid: CellGrid) -> Floats:
    """An upper bound of the winding number's gradient in each coarse cell: the table's shape, per unit."""
    from scipy import fft

    side, shape = grid.side, grid.table.shape
    length = np.linalg.norm(rim[:, 1] - rim[:, 0], axis=1)
    pieces = np.ceil(length / side).astype(int)
    owner = np.repeat(np.arange(len(rim)), pieces)
    place = np.arange(len(owner)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    middle = rim[owner, 0] + (rim[owner, 1] - rim[owner, 0]) * ((place + 0.5) / pieces[owner])[:, None]
    lengths = np.zeros(shape)
    np.add.at(lengths, tuple(floor_cells((middle - grid.lower) / side).T), (length / np.maximum(pieces, 1))[owner])
    # a convolution; what reaches over the end comes in again at the front, past the table
    sizes = [fft.next_fast_len(2 * n - 1, real=True) for n in shape]
    offsets = np.ix_(*(np.minimum(np.arange(n), n - np.arange(n)).astype(float) for n in sizes))
    # from any point of the cell to any point of a piece whose middle lies in the other
    nearest = np.sqrt(sum(offset**2 for offset in offsets)) - np.sqrt(3) - 0.5
    kernel = 1 / (4 * np.pi * (side * np.maximum(nearest, REACH / 2**LEVELS)) ** 2)
    slope = fft.irfftn(fft.rfftn(lengths, sizes) * fft.rfftn(kernel), sizes)[tuple(map(slice, shape))]
    rounding = 1e-12 * kernel.max() * lengths.sum()
    return np.maximum(slope, 0) + rounding


def _parts(grid: CellGrid) -> tuple[Indices, int]:
    """The connected part within its brick of each untouched cell, from 1 on: (k, b, b, b); and how many there are."""
    from scipy import ndimage

    neighbours = np.zeros((3, 3, 3, 3), dtype=bool)
    neighbours[1] = ndimage.generate_binary_structure(3, 1)
    parts, count = np.zeros(grid.bricks.shape, dtype=np.int32), 0
    for start in range(0, len(parts), 2**14):
        found, more = ndimage.label(grid.bricks[start : start + 2**14] != UNKNOWN, structure=neighbours)
        found[found > 0] += count
        parts[start : start + 2**14], count = found, count + more
    return parts, count


def _spaces(grid: CellGrid) -> Spaces:
    """What hangs together of the untouched cells; of the winding numbers that around the shape alone is known."""
    from scipy import ndimage

    parts, count = _parts(grid)
    beyond, more = ndimage.label(grid.table < 0)
    beyond = np.where(beyond > 0, beyond + count, 0)
    links = [np.zeros((2, 0), dtype=np.int64)]
    for axis in range(3):
        brick, outer = np.moveaxis(grid.table, axis, 0), np.moveaxis(beyond, axis, 0)
        at = np.nonzero((brick[:-1] >= 0) | (brick[1:] >= 0))
        after = (at[0] + 1, *at[1:])
        left = np.take(parts, -1, axis=axis + 1)[brick[at]].reshape(len(at[0]), -1)
        right = np.take(parts, 0, axis=axis + 1)[brick[after]].reshape(len(at[0]), -1)
        both = np.stack(
            [
                np.where(brick[at][:, None] < 0, outer[at][:, None], left),
                np.where(brick[after][:, None] < 0, outer[after][:, None], right),
            ]
        ).reshape(2, -1)
        both = both[:, (both > 0).all(axis=0)]
        links.append(both[:, (np.diff(both, axis=1, prepend=0) != 0).any(axis=0)])
    left, right = np.concatenate(links, axis=1)
    space = 1 + components(left - 1, right - 1, count + more)
    space = np.concatenate([[0], space]).astype(np.min_scalar_type(int(space.max())))
    of_coarse = space[beyond]
    number = np.full(int(space.max()) + 1, np.nan)
    number[of_coarse[0, 0, 0]] = 0
    return Spaces(grid.table, space[parts], of_coarse, number)


def _label(grid: CellGrid, surface: Ints, spaces: Spaces, caps: Caps | None) -> None:
    """Give all cells their labels."""
    empty = grid.table < 0
    if caps is None:
        label = np.where(np.isnan(spaces.number), UNKNOWN, spaces.number > 0.5).astype(np.uint8)
        grid.bricks[...] = label[spaces.of_cell]
        grid.table[empty] = label[spaces.of_coarse[empty]]
        return
    slope = _slope(caps.rim, grid)
    number, doubt = _of_caps(grid, slope, caps)
    number, doubt = number.reshape(-1), doubt.reshape(-1)
    for start in range(0, len(surface), 2**12):
        chosen = surface[start : start + 2**12]
        over = spaces.number[spaces.of_cell[start + 3 : start + 2**12 + 3]] - 0.5 - number[chosen, None, None, None]
        sure = np.abs(over) > doubt[chosen, None, None, None]
        grid.bricks[start + 3 : start + 2**12 + 3] = np.where(sure, over > 0, UNKNOWN)
    over = spaces.number[spaces.of_coarse.reshape(-1)] - 0.5 - number
    labels = np.where(np.abs(over) > doubt, over > 0, UNKNOWN).reshape(grid.table.shape)
    outermost = np.ones(grid.table.shape, dtype=bool)
    outermost[1:-1, 1:-1, 1:-1] = False
    labels[outermost] = UNKNOWN
    grid.table[empty] = labels[empty]
    # cells that are left though no triangle touches them, if they are not too many
    alone = np.flatnonzero((grid.bricks.reshape(-1) == UNKNOWN) & (spaces.of_cell.reshape(-1) > 0))
    if 0 < len(alone) <= MOST_QUERIED:
        over = spaces.number[spaces.of_cell.reshape(-1)[alone]] - 0.5
        over -= caps.winding_number(_middles(grid, surface, alone), ACCURACY)
        steep = slope.reshape(-1)[surface[alone // grid.bricks[0].size - 3]]
        sure = np.abs(over) > steep * (np.sqrt(3) / 2 * grid.cell) + DOUBT
        grid.bricks.reshape(-1)[alone[sure]] = over[sure] > 0


def _of_caps(grid: CellGrid, slope: Floats, caps: Caps) -> tuple[Floats, Floats]:
    """The winding number of the caps in each coarse cell, and how far off it may be: infinitely where caps touch it.

    Evaluated for blocks of cells where it hardly changes, for single cells elsewhere.
    """
    _, touched, level = touched_cells((caps.triangles - grid.lower) / grid.side, PAIRS)
    shape = grid.table.shape
    number, doubt, open_ = np.zeros(shape), np.full(shape, np.inf), np.ones(shape, dtype=bool)
    touched = (touched[:, None] * 2**level + lattice(2**level)).reshape(-1, 3)
    touched = touched[((touched >= 0) & (touched < shape)).all(axis=1)]
    open_[tuple(touched.T)] = False
    for size in (8, 4, 2, 1):
        blocks = [-(-n // size) for n in shape]
        pad = [(0, block * size - n) for n, block in zip(shape, blocks, strict=True)]
        split = [n for block in blocks for n in (block, size)]
        free = np.pad(open_, pad).reshape(split).all(axis=(1, 3, 5))
        off = np.pad(slope, pad).reshape(split).max(axis=(1, 3, 5)) * (np.sqrt(3) / 2 * size * grid.side) + DOUBT
        at = np.argwhere(free & (off < (DIRECT if size > 1 else 0.5)))
        at_middle, off = caps.winding_number(grid.lower + (at + 0.5) * size * grid.side, ACCURACY), off[tuple(at.T)]
        cells = (at[:, None] * size + lattice(size)).reshape(-1, 3).T
        number[tuple(cells)], doubt[tuple(cells)] = np.repeat(at_middle, size**3), np.repeat(off, size**3)
        open_[tuple(cells)] = False
    return number, doubt


def _coordinates(grid: CellGrid, surface: Ints, cells: Ints) -> Ints:
    """Where cells of bricks, numbered as in `bricks`, stand in the grid: (3, n)."""
    brick, place = np.divmod(cells, grid.bricks[0].size)
    local = np.stack(np.unravel_index(place, grid.bricks.shape[1:]))
    return np.stack(np.unravel_index(surface[brick - 3], grid.table.shape)) * grid.bricks.shape[1] + local


def _middles(grid: CellGrid, surface: Ints, cells: Ints) -> Floats:
    """The centres of cells of bricks, numbered as in `bricks`."""
    return grid.lower + (_coordinates(grid, surface, cells).T + 0.5) * grid.cell
