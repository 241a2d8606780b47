"""The cells of a grid that triangles touch, and SurfaceCells, by which a surface is found again and a field guarded."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product

import numpy as np
from numpy.typing import NDArray

from ff3d.geometry.arrays import Box, Corners, Floats, Integers, Ints, Labels, PointFloats, Points, Singles
from ff3d.geometry.cores import threads
from ff3d.geometry.sampling import rows_by_weight

OUTSIDE, INSIDE, UNKNOWN, TOUCHED = 0, 1, 2, 3
# How far, in fine cells, a triangle reaches past itself: far more than the rounding of a float32 unit coordinate
# (3e-5 cells), so that no point is looked up in a cell on the other side of a triangle.
REACH = 1e-3
TRIANGLES = 2**12  # triangles that pass through the caches together


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
        side = np.choose(np.minimum(self.labels, UNKNOWN), (-2, 2, 0)).astype(np.int8)
        near = side == 0  # grown by a cell along each axis in turn; not by scipy, which a bare machine lacks
        for axis in range(3):
            along, grown = np.moveaxis(near, axis, 0), near.copy()
            target = np.moveaxis(grown, axis, 0)
            target[1:] |= along[:-1]
            target[:-1] |= along[1:]
            near = grown
        side[near] //= 2
        return side

    def sides(self, points: NDArray[np.floating]) -> NDArray[np.int8]:
        """points (n, 3), finite, unit coordinates -> (n,): negative outside, positive inside, 0 not known.

        1 where the surface may be as near as the next cell, 2 where it is further.
        """
        last = np.array(self.labels.shape) - 1
        x, y, z = np.clip(floor_cells((points - self.lower) / self.side), 0, last).T
        return self._sides[x, y, z]

    def _edges(self, bounds: Box) -> list[Floats]:
        """Where cells end along each axis of a box (2, 3), to which the outermost reach."""
        edges = []
        for axis, cells in enumerate(self.labels.shape):
            low, high = bounds[:, axis]
            inner = self.lower[axis] + np.arange(1, cells) * self.side
            edges.append(np.concatenate([[low], np.clip(inner, low, high), [high]]))
        return edges

    def settled(self, bounds: Box, winding_number: Callable[[Points], PointFloats]) -> SurfaceCells:
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

    def draw(self, count: int, rng: np.random.Generator, bounds: Box) -> Points:
        """Points (count, 3), uniform where a box has no label. bounds: the box (2, 3). All in unit coordinates.

        Raises ValueError if all of the box has labels.
        """
        edges = self._edges(bounds)
        widths = [np.diff(planes) for planes in edges]
        cells = self._open
        volumes = np.prod([width[cell] for width, cell in zip(widths, cells, strict=True)], axis=0)
        cumulative = np.cumsum(volumes)
        if not (len(cumulative) and cumulative[-1] > 0):
            raise ValueError("all of the box has labels")
        chosen = rows_by_weight(cumulative, rng.random(count))
        each = zip(edges, widths, cells[:, chosen], rng.random((3, count)), strict=True)
        return np.stack([edge[cell] + width[cell] * place for edge, width, cell, place in each], axis=1)

    def __call__(self, centers: Points, side: float) -> Labels:
        """Whether cubes meet a touched cell: centers (n, 3) and side, unit coordinates -> (n,) bool.

        False for cubes of less than 3/4 of this grid's side: finer cells are for the function itself to tell.
        """
        if side < 0.75 * self.side:
            return np.zeros(len(centers), dtype=bool)
        shape = np.array(self.labels.shape)
        # the outermost cells stand for all beyond
        first = np.clip(floor_cells((centers - side / 2 - self.lower) / self.side - REACH), 0, shape - 1).T
        last = np.clip(floor_cells((centers + side / 2 - self.lower) / self.side + REACH), 0, shape - 1).T + 1
        total = np.zeros(len(centers), dtype=np.int64)
        for i, j, k in product((0, 1), repeat=3):
            sign = 1 if (i + j + k) % 2 else -1
            total += sign * self._counted[(first, last)[i][0], (first, last)[j][1], (first, last)[k][2]]
        return total > 0


def touched_cells(triangles: Corners, most: int) -> tuple[Ints, Ints, int]:
    """The cells that triangles touch, or come nearer to than `REACH`: (face (m,), cell (m, 3), level).

    triangles: (f, 3, 3), in fine cells of a grid of at most 1,000^3. A cell, of side 2^level, comes once for each face
    that touches it. The level is 0 unless more than `most` of these pairs are expected.
    """
    low, high = triangles.min(axis=1) - REACH, triangles.max(axis=1) + REACH
    extent = (high - low).max(axis=1)
    shapes = _Shapes.of(triangles)
    # wherever it lies, a convex body touches as many unit cells on average as its volume, its shadows' areas, its
    # extents and 1 add up to
    area, extents, level = float(np.abs(shapes.normal).sum(dtype=np.float64)) / 2, float((high - low).sum()), 0
    while level < 9 and area / 4**level + extents / 2**level > most:
        level += 1
    # a triangle starts at cells about as large as it is, and is followed into the eighths of those that it touches
    starts = np.maximum(level, np.floor(np.log2(extent))).astype(int)
    face, cell = np.zeros(0, dtype=np.int32), np.zeros((3, 0), dtype=np.int32)
    with ThreadPoolExecutor(threads()) as pool:
        for step in range(int(starts.max(initial=level)), level - 1, -1):
            old, size = len(face), 2.0**step
            face = np.concatenate([face, np.flatnonzero(starts == step).astype(np.int32)])
            first, last = (np.floor(corner[face] / size).astype(np.int32).T for corner in (low, high))
            first[:, :old] = np.maximum(first[:, :old], 2 * cell)
            last[:, :old] = np.minimum(last[:, :old], 2 * cell + 1)
            parts = [slice(start, start + TRIANGLES) for start in range(0, len(face), TRIANGLES)]
            jobs = [(face[part], first[:, part], last[:, part], size) for part in parts]
            found = list(pool.map(shapes.touching, *zip(*jobs, strict=True)))
            face = np.concatenate([faces for faces, _ in found])
            cell = np.concatenate([cells for _, cells in found], axis=1)
    return face.astype(np.int64), cell.T.astype(np.int64), level


def floor_cells(values: Floats) -> Ints:
    """The cells (whole numbers) that values lie in."""
    return np.floor(values).astype(np.int64)


def _cells_of_boxes(first: Integers, last: Integers) -> tuple[Integers, Integers]:
    """All cells of boxes of cells, from `first` to `last` (3, n), both included: the box of each, and the cell."""
    sides = np.maximum(last - first + 1, 0)
    counts = sides.prod(axis=0, dtype=np.int32)
    owner = np.repeat(np.arange(first.shape[1], dtype=np.int32), counts)
    place = np.arange(len(owner), dtype=np.int32) - np.repeat(np.cumsum(counts, dtype=np.int32) - counts, counts)
    cell = np.take(first, owner, axis=1)
    for axis in (2, 1):
        place, along = np.divmod(place, np.take(sides[axis], owner))
        cell[axis] += along
    cell[0] += place
    return owner, cell


@dataclass(frozen=True)
class _Shapes:
    """Triangles as `touching` reads them, each coordinate in a row of its own.

    Corners are taken from the middle of a cell in float64, all else in float32: relative to a triangle's own size and
    to its distance from the cell, both of which are under 1,000 cells, that is 200 times finer than `REACH`.
    """

    corner: Floats  # (3, f), the first
    edges: Singles  # (3, 3, f): from each corner to the next
    normal: Singles  # (3, f)

    @classmethod
    def of(cls, triangles: Floats) -> _Shapes:
        edges = np.roll(triangles, -1, axis=1) - triangles
        normal = np.cross(edges[:, 0], edges[:, 1])
        return cls(
            np.ascontiguousarray(triangles[:, 0].T),
            np.ascontiguousarray(edges.transpose(1, 2, 0), dtype=np.float32),
            np.ascontiguousarray(normal.T, dtype=np.float32),
        )

    def touching(self, face: Integers, first: Integers, last: Integers, size: float) -> tuple[Integers, Integers]:
        """The cells of side `size` that faces touch, of those from `first` to `last`, which their boxes meet.

        face (n,), first and last (3, n) -> face (m,), cell (3, m); no cell is missed.
        """
        owner, cell = _cells_of_boxes(first, last)
        face = face[owner]
        half = np.float32(size / 2 + REACH)
        normal = np.take(self.normal, face, axis=1)  # by far faster than self.normal[:, face]
        corner = (np.take(self.corner, face, axis=1) - (cell + 0.5) * size).astype(np.float32)
        touch = np.flatnonzero(np.abs((normal * corner).sum(axis=0)) <= half * np.abs(normal).sum(axis=0))
        face, cell, one = face[touch], np.take(cell, touch, axis=1), np.take(corner, touch, axis=1)
        edges = np.take(self.edges, face, axis=2)
        touch = np.ones(len(face), dtype=bool)
        for k in range(3):
            edge, opposite = edges[k], edges[k - 2]  # the third corner falls on one of the edge's own two
            reach = half * np.abs(edge)
            for i, j in ((1, 2), (2, 0), (0, 1)):
                first = one[j] * edge[i] - one[i] * edge[j]
                second = first + (edge[i] * opposite[j] - edge[j] * opposite[i])
                far = reach[i] + reach[j]
                touch &= (np.minimum(first, second) <= far) & (np.maximum(first, second) >= -far)
            one = one + edge
        chosen = np.flatnonzero(touch)
        return face[chosen], np.take(cell, chosen, axis=1)


def brick_address(brick: Integers, cell: Ints, bits: int) -> Ints:
    """Where a cell (3, n) that lies in a brick (n,) stands among those of all bricks."""
    x, y, z = cell & 2**bits - 1
    return (brick.astype(np.int64) << 3 * bits) | (x << 2 * bits) | (y << bits) | z


def lattice(side: int) -> Ints:
    """The cells (side^3, 3) of a cube."""
    return np.stack(np.unravel_index(np.arange(side**3), (side,) * 3), axis=1)
