"""The cell grid: cells that no triangle touches have one label each, so a point in them needs a look-up, no oracle."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Winding = Callable[[Floats], Floats]

OUTSIDE, INSIDE, UNKNOWN, TOUCHED = 0, 1, 2, 3
TOP, LEVELS = 64, 3  # coarse cells along the longest side; how often they are halved where the surface is
# How far, in fine cells, a triangle reaches past itself: far more than the rounding of a float32 unit coordinate
# (3e-5 cells), so that no point is looked up in a cell on the other side of a triangle.
REACH = 1e-3
PAIRS = 8_000_000  # of a triangle and a cell that it may touch; where more are expected the cells stay larger
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
            first = np.clip(_floor((middle - side / 2) / size - REACH), 0, last_cell)
            last = np.clip(_floor((middle + side / 2) / size + REACH), 0, last_cell)
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


@dataclass(frozen=True)
class SurfaceCells:
    """The cells of a coarse grid: what is kept of a cell grid to find the surface by, and to guard a field.

    lower: the grid's lowest corner (3,), unit coordinates.  side: of a cell.
    labels: (nx, ny, nz) uint8, `OUTSIDE` or `INSIDE` throughout, `TOUCHED` by the surface, or `UNKNOWN`; the outermost
    layer stands for all space beyond.
    """

    lower: Floats
    side: float
    labels: NDArray[np.uint8]

    @cached_property
    def _counted(self) -> Ints:
        """How many cells are touched below each corner of the grid (nx + 1, ny + 1, nz + 1)."""
        return np.pad(self.labels == TOUCHED, ((1, 0),) * 3).astype(np.int64).cumsum(0).cumsum(1).cumsum(2)

    @cached_property
    def _open(self) -> Ints:
        """The cells (3, m) that have no label."""
        return np.argwhere(self.labels >= UNKNOWN).T

    @cached_property
    def _sides(self) -> NDArray[np.int8]:
        """Of each cell: -2 and 2 outside and inside, -1 and 1 the same beside a cell that has no label, which is 0."""
        from scipy.ndimage import maximum_filter

        side = np.choose(np.minimum(self.labels, UNKNOWN), (-2, 2, 0)).astype(np.int8)
        side[maximum_filter(side == 0, 3)] //= 2
        return side

    def sides(self, points: NDArray[np.floating]) -> NDArray[np.int8]:
        """points (n, 3), finite, unit coordinates -> (n,): negative outside, positive inside, 0 not known.

        1 where the surface may be as near as the next cell, 2 where it is further.
        """
        last = np.array(self.labels.shape) - 1
        x, y, z = np.clip(_floor((points - self.lower) / self.side), 0, last).T
        return self._sides[x, y, z]

    def _edges(self, bounds: Floats) -> list[Floats]:
        """Where cells end along each axis of a box (2, 3), to which the outermost reach."""
        edges = []
        for axis, cells in enumerate(self.labels.shape):
            low, high = bounds[:, axis]
            inner = self.lower[axis] + np.arange(1, cells) * self.side
            edges.append(np.concatenate([[low], np.clip(inner, low, high), [high]]))
        return edges

    def settled(self, bounds: Floats, winding_number: Winding) -> SurfaceCells:
        """The same with labels for the outermost cells, if no more of the space beyond counts than a box.

        Of a surface with holes nothing is known of all space, and a field that must learn it has less for the rest. A
        cell is taken as outside or inside if the winding number is under 1/4 or over 3/4 at all of its corners: no
        triangle touches the cell, so between them it is smooth. Not a proof, as the other labels have.
        bounds: the box (2, 3), and what `winding_number` takes: unit coordinates.
        """
        outermost = np.ones(self.labels.shape, dtype=bool)
        outermost[1:-1, 1:-1, 1:-1] = False
        cells, edges = np.argwhere(outermost & (self.labels == UNKNOWN)).T, self._edges(bounds)
        corners = [
            np.stack([edge[cell + i] for edge, cell, i in zip(edges, cells, corner, strict=True)], axis=1)
            for corner in product((0, 1), repeat=3)
        ]
        numbers = winding_number(np.concatenate(corners)).reshape(8, -1)
        labels = self.labels.copy()
        labels[tuple(cells)] = np.select(
            [numbers.max(axis=0) < 0.25, numbers.min(axis=0) > 0.75], [OUTSIDE, INSIDE], UNKNOWN
        )
        return replace(self, labels=labels)

    def draw(self, count: int, rng: np.random.Generator, bounds: Floats) -> Floats:
        """Points (count, 3), uniform where a box has no label. bounds: the box (2, 3). All in unit coordinates.

        Raises ValueError if all of the box has labels.
        """
        edges = self._edges(bounds)
        widths = [np.diff(it) for it in edges]
        cells = self._open
        volumes = np.prod([width[cell] for width, cell in zip(widths, cells, strict=True)], axis=0)
        cumulative = np.cumsum(volumes)
        if not (len(cumulative) and cumulative[-1] > 0):
            raise ValueError("all of the box has labels")
        chosen = np.searchsorted(cumulative, rng.random(count) * cumulative[-1], side="right")
        chosen = np.minimum(chosen, np.flatnonzero(volumes)[-1])
        each = zip(edges, widths, cells[:, chosen], rng.random((3, count)), strict=True)
        return np.stack([edge[cell] + width[cell] * place for edge, width, cell, place in each], axis=1)

    def __call__(self, centers: Floats, side: float) -> NDArray[np.bool_]:
        """Whether cubes meet a touched cell: centers (n, 3) and side, unit coordinates -> (n,) bool.

        False for cubes of less than 3/4 of this grid's side: finer cells are for the function itself to tell.
        """
        if side < 0.75 * self.side:
            return np.zeros(len(centers), dtype=bool)
        shape = np.array(self.labels.shape)
        # the outermost cells stand for all beyond
        first = np.clip(_floor((centers - side / 2 - self.lower) / self.side - REACH), 0, shape - 1).T
        last = np.clip(_floor((centers + side / 2 - self.lower) / self.side + REACH), 0, shape - 1).T + 1
        total = np.zeros(len(centers), dtype=np.int64)
        for i, j, k in product((0, 1), repeat=3):
            sign = 1 if (i + j + k) % 2 else -1
            total += sign * self._counted[(first, last)[i][0], (first, last)[j][1], (first, last)[k][2]]
        return total > 0


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


# ---------------------------------------------------------------------------------------------- which cells are touched


def touched_cells(triangles: Floats) -> tuple[Ints, int]:
    """The cells that triangles touch, or come nearer to than `REACH`: ((m, 3), level), cells of side 2^level.

    triangles: (f, 3, 3), in fine cells. A cell comes once for each triangle that touches it. The level is 0 unless
    more than `PAIRS` of these are expected.
    """
    low, high = triangles.min(axis=1) - REACH, triangles.max(axis=1) + REACH
    extent = (high - low).max(axis=1)
    normals = np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0])
    area, level = float(np.abs(normals).sum()), 0
    while area / 4**level + 3 * float(extent.sum()) / 2**level > PAIRS + 8 * len(triangles) and level < 9:
        level += 1
    # a triangle starts at cells about as large as it is, and goes on into the eighths of those that it touches
    starts = np.maximum(level, np.floor(np.log2(extent))).astype(int)
    face, cell = np.zeros(0, dtype=np.int64), np.zeros((0, 3), dtype=np.int64)
    with ThreadPoolExecutor(threads()) as pool:
        for here in range(int(starts.max(initial=level)), level - 1, -1):
            old, size = len(cell), 2.0**here
            face = np.concatenate([face, np.flatnonzero(starts == here)])
            first, last = _floor(low[face] / size), _floor(high[face] / size)
            first[:old], last[:old] = np.maximum(first[:old], 2 * cell), np.minimum(last[:old], 2 * cell + 1)
            parts = [slice(start, start + CHUNK // 16) for start in range(0, len(face), CHUNK // 16)]
            jobs = [(triangles, normals, (face[part], first[part], last[part]), size) for part in parts]
            found = pool.map(_touching, *zip(*jobs, strict=True))
            face, cell = (np.concatenate(them) for them in zip(*found, strict=True))
    return cell, level


def threads() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _touching(triangles: Floats, normals: Floats, boxes: tuple[Ints, Ints, Ints], size: float) -> tuple[Ints, Ints]:
    """The cells of side `size` that faces touch: face, cell.  boxes: faces, and the first and last cell to look at."""
    face, first, last = boxes
    owner, cell = _cells_of_boxes(first, last)
    face = face[owner]
    touch = _overlap(triangles[face], normals[face], cell, size)
    return face[touch], cell[touch]


def _floor(values: Floats) -> Ints:
    return np.floor(values).astype(np.int64)


def _cells_of_boxes(first: Ints, last: Ints) -> tuple[Ints, Ints]:
    """All cells of boxes of cells, from `first` to `last` (n, 3), both included: the box of each, and the cell."""
    sides = np.maximum(last - first + 1, 0)
    counts = sides.prod(axis=1)
    owner = np.repeat(np.arange(len(first)), counts)
    place = np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)
    sides, cell = sides[owner], first[owner]
    place, z = np.divmod(place, sides[:, 2])
    x, y = np.divmod(place, sides[:, 1])
    cell += np.stack([x, y, z], axis=1)
    return owner, cell


def _overlap(triangles: Floats, normals: Floats, cell: Ints, size: float) -> NDArray[np.bool_]:
    """Whether triangles (n, 3, 3) touch cells (n, 3) of side `size`, given that their boxes do: no false no."""
    half = size / 2 + REACH
    corners = triangles - ((cell + 0.5) * size)[:, None]
    corner = np.ascontiguousarray(corners.transpose(1, 2, 0))  # one row for each coordinate of each corner
    normal = np.ascontiguousarray(normals.T)
    touch = np.abs((normal * corner[0]).sum(axis=0)) <= half * np.abs(normal).sum(axis=0)
    for k in range(3):
        one, other = corner[k], corner[(k + 2) % 3]  # the third corner falls on one of these
        edge = corner[(k + 1) % 3] - one
        reach = half * np.abs(edge)
        for i, j in ((1, 2), (2, 0), (0, 1)):
            first, second = one[j] * edge[i] - one[i] * edge[j], other[j] * edge[i] - other[i] * edge[j]
            far = reach[i] + reach[j]
            touch &= (np.minimum(first, second) <= far) & (np.maximum(first, second) >= -far)
    return touch


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
    np.add.at(lengths, tuple(_floor((middle - grid.lower) / side).T), (length / np.maximum(pieces, 1))[owner])
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
