"""The cell grid: cells that no triangle touches have one label each, so a point in them needs a look-up, no oracle."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ff3d.geometry.arrays import Floats, Ints
from ff3d.geometry.surface_cells import INSIDE, OUTSIDE, TOUCHED, UNKNOWN, SurfaceCells
from ff3d.geometry.touching import REACH, floor_cells, touched_cells

if TYPE_CHECKING:
    from torch import Tensor


Winding = Callable[[Floats], Floats]
TOP, LEVELS = 64, 3  # coarse cells along the longest side; how often they are halved where the surface is

MOST_ASKED = 2**18  # cells of an open surface that are asked about one by one
DOUBT = 0.06  # how far off the winding numbers given may be
CHUNK = 2**16  # points of a look-up: what passes through the caches together


@dataclass(frozen=True)
class CellGrid:
    """The labels of the cells of a grid in two levels: a coarse table, and bricks of fine cells where the surface is.

    lower: the table's lowest corner (3,), unit coordinates.  cell: side of a fine cell, unit coordinates.
    table: (nx, ny, nz) int32, the brick of each coarse cell; its outermost layer stands for all space beyond.
    bricks: (k, b, b, b) uint8 of `OUTSIDE`, `INSIDE`, `UNKNOWN`; the first three are one of these throughout.

    A label holds for every point of its cell, and is the winding number's. No triangle touches the cell: tested by
    separating axes (Akenine-Moller 2001, "Fast 3D triangle-box overlap testing") on cells grown by `REACH`. The
    winding number of a surface without a rim is constant where one can walk without crossing it. Where it has a rim,
    its gradient is at most the sum over the rim of |dl| / (4 pi d^2), as the magnetic field of a current along the rim
    (Biot and Savart); where that bound leaves room for a change of label, the cell is `UNKNOWN`.
    """

    lower: Floats
    cell: float
    table: NDArray[np.int32]
    bricks: NDArray[np.uint8]

    @classmethod
    def build(cls, triangles: Floats, rim: Floats, winding_number: Winding) -> CellGrid:
        """The grid of a surface.

        triangles: (f, 3, 3), unit coordinates.  rim: (r, 2, 3), the segments where the surface ends, each as often
        as its faces there are out of balance.  winding_number: points (n, 3), unit coordinates -> (n,), right to
        `DOUBT`, and decided rightly at 1/2.
        """
        low, high = triangles.min(axis=(0, 1)), triangles.max(axis=(0, 1))
        side = float((high - low).max()) / (TOP - 1)
        fine = side / 2**LEVELS
        low = low - side / 2  # so that no flat side of the shape lies in a face of the grid
        touched, level = touched_cells((triangles - low) / fine)
        brick = 2 ** max(0, LEVELS - level)
        fine *= 2**level
        shape = touched.max(axis=0) // brick + 3
        coarse = np.ravel_multi_index(tuple((touched // brick + 1).T), tuple(shape))
        table = np.full(shape.prod(), -1, dtype=np.int32)
        table[coarse] = 0
        surface = np.flatnonzero(table == 0)
        table[surface] = np.arange(3, len(surface) + 3)
        bricks = np.zeros((len(surface) + 3, brick, brick, brick), dtype=np.uint8)
        bricks[(table[coarse], *(touched % brick).T)] = UNKNOWN
        grid = cls(low - brick * fine, fine, table.reshape(shape), bricks)
        slope = _slope(rim, grid) if len(rim) else None
        _label_bricks(grid, surface, slope, winding_number)
        _label_table(grid, slope, winding_number)
        bricks[OUTSIDE], bricks[INSIDE], bricks[UNKNOWN] = OUTSIDE, INSIDE, UNKNOWN
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

    def on(self, device: str | Any) -> GridTensors:
        """The same grid as tensors on a torch device; the numbers are copied once for each device."""
        made: dict[str, GridTensors] = self.__dict__.setdefault("_tensors", {})
        if str(device) not in made:
            made[str(device)] = GridTensors(self, device)
        return made[str(device)]


class GridTensors:
    """A cell grid on a torch device: batches of points are labelled where they are drawn."""

    def __init__(self, grid: CellGrid, device: str | Any):
        import torch

        _, ny, nz = grid.table.shape
        self._shift = grid.bricks.shape[1].bit_length() - 1
        self._strides = ny * nz, nz
        self._lower = torch.tensor(grid.lower)
        self._scale = 1 / grid.cell
        # the last cell begins one below the last index, so that a clamped point stays in it
        self._last = torch.tensor([n * grid.bricks.shape[1] - 0.5 for n in grid.table.shape])
        self._table = torch.tensor(grid.table.reshape(-1), device=device)
        self._bricks = torch.tensor(grid.bricks.reshape(-1), device=device)

    def look_up(self, points: Tensor) -> Tensor:
        """points (n, 3), unit coordinates, on this grid's device -> (n,) uint8."""
        import torch

        answer = torch.empty(len(points), dtype=torch.uint8, device=points.device)
        step = CHUNK if points.device.type == "cpu" else max(1, len(points))
        # not every device has float64
        lower, last = (it.to(points.dtype).to(points.device) for it in (self._lower, self._last))
        shift, mask = self._shift, 2**self._shift - 1
        for start in range(0, len(points), step):
            index = points[start : start + step] - lower
            index = torch.minimum(index.mul_(self._scale).clamp_(min=0), last).int()
            x, y, z = index.unbind(1)
            stride_x, stride_y = self._strides
            brick = self._table[(x >> shift) * stride_x + (y >> shift) * stride_y + (z >> shift)]
            local = (((x & mask) << shift | (y & mask)) << shift) | (z & mask)
            answer[start : start + step] = self._bricks[(brick.long() << 3 * shift) + local]
        return answer


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
    nearest = np.sqrt(sum(it**2 for it in offsets)) - np.sqrt(3) - 0.5
    kernel = 1 / (4 * np.pi * (side * np.maximum(nearest, REACH / 2**LEVELS)) ** 2)
    slope = fft.irfftn(fft.rfftn(lengths, sizes) * fft.rfftn(kernel), sizes)[tuple(map(slice, shape))]
    rounding = 1e-12 * kernel.max() * lengths.sum()
    return np.maximum(slope, 0) + rounding


def _label_bricks(grid: CellGrid, surface: Ints, slope: Floats | None, winding_number: Winding) -> None:
    """Give each connected part of a brick's untouched cells its label."""
    from scipy import ndimage

    edge = grid.bricks.shape[1]
    neighbours = np.zeros((3, 3, 3, 3), dtype=bool)
    neighbours[1] = ndimage.generate_binary_structure(3, 1)
    corner = grid.lower + np.stack(np.unravel_index(surface, grid.table.shape), axis=1) * grid.side
    for start in range(0, len(surface), 2**14):
        chosen = slice(start, start + 2**14)
        bricks = grid.bricks[3:][chosen]
        parts, count = ndimage.label(bricks != UNKNOWN, structure=neighbours)
        parts = parts.reshape(-1)
        cells = np.arange(len(parts))
        sample = np.zeros(count + 1, dtype=np.int64)
        sample[parts] = cells
        brick, place = np.divmod(sample[1:], edge**3)
        local = np.stack(np.unravel_index(place, (edge, edge, edge)), axis=1)
        number = winding_number(corner[chosen][brick] + (local + 0.5) * grid.cell)
        label = (number > 0.5).astype(np.uint8)
        if slope is not None:
            # from the cell asked one walks to any other of its part through at most all its cells
            way = (np.bincount(parts, minlength=count + 1)[1:] - 1 + np.sqrt(3) / 2) * grid.cell
            steep = slope.reshape(-1)[surface[chosen]]
            label[np.abs(number - 0.5) <= steep[brick] * way + DOUBT] = UNKNOWN
            filled = np.concatenate([[UNKNOWN], label]).astype(np.uint8)[parts]
            alone = np.flatnonzero((filled == UNKNOWN) & (parts > 0))
            if len(alone) * (len(surface) / len(bricks)) <= MOST_ASKED:
                brick, place = np.divmod(alone, edge**3)
                local = np.stack(np.unravel_index(place, (edge, edge, edge)), axis=1)
                number = winding_number(corner[chosen][brick] + (local + 0.5) * grid.cell)
                sure = np.abs(number - 0.5) > steep[brick] * (np.sqrt(3) / 2 * grid.cell) + DOUBT
                filled[alone[sure]] = number[sure] > 0.5
        else:
            filled = np.concatenate([[UNKNOWN], label]).astype(np.uint8)[parts]
        bricks[...] = filled.reshape(bricks.shape)


def _label_table(grid: CellGrid, slope: Floats | None, winding_number: Winding) -> None:
    """Give the coarse cells that the surface does not touch their label; the outermost layer is the space beyond."""
    from scipy import ndimage

    empty = grid.table < 0
    if slope is None:
        parts, _ = ndimage.label(empty)
        _, first, owner = np.unique(parts, return_index=True, return_inverse=True)
        number = _at_centers(grid, first, winding_number)[owner.reshape(parts.shape)]
        grid.table[empty] = (number > 0.5)[empty]
        return
    cells = np.flatnonzero(empty)
    number = _at_centers(grid, cells, winding_number)
    sure = np.abs(number - 0.5) > slope.reshape(-1)[cells] * (np.sqrt(3) / 2 * grid.side) + DOUBT
    grid.table[empty] = np.where(sure, number > 0.5, UNKNOWN)
    beyond = np.ones(grid.table.shape, dtype=bool)
    beyond[1:-1, 1:-1, 1:-1] = False
    grid.table[beyond] = UNKNOWN


def _at_centers(grid: CellGrid, cells: Ints, winding_number: Winding) -> Floats:
    """The winding number at the centres of coarse cells."""
    return winding_number(grid.lower + (np.stack(np.unravel_index(cells, grid.table.shape), axis=1) + 0.5) * grid.side)
