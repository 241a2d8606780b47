"""Which cells of a grid triangles touch, and which triangles a segment within a cell crosses."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from ff3d.geometry.arrays import Corners, Floats, Integers, Ints, Singles
from ff3d.geometry.cores import threads

# How far, in fine cells, a triangle reaches past itself: far more than the rounding of a float32 unit coordinate
# (3e-5 cells), so that no point is looked up in a cell on the other side of a triangle.
REACH = 1e-3
CHUNK = 2**12  # triangles that pass through the caches together


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
            parts = [slice(start, start + CHUNK) for start in range(0, len(face), CHUNK)]
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
