"""Which cells of a grid triangles touch, and which triangles a segment within a cell crosses."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ff3d.geometry.arrays import Corners, Floats, Indices, Integers, Ints, Singles
from ff3d.geometry.cores import threads
from ff3d.geometry.triangles import cross_products, unit_vectors

# How far, in fine cells, a triangle reaches past itself: far more than the rounding of a float32 unit coordinate
# (3e-5 cells), so that no point is looked up in a cell on the other side of a triangle.
REACH = 1e-3
CHUNK = 2**12  # triangles that pass through the caches together
# A determinant of float64 unit coordinates counts as zero up to this share of the product of its vectors' lengths:
# some fifty times its largest rounding error
ROUNDING = 1e-14
RUN = 2**15  # pairs of a point and a triangle, likewise
CROWD = 12  # triangles of a cell from which on the slab that they lie in is looked at first


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


@dataclass(frozen=True)
class CellFaces:
    """The triangles that touch each cell, and how often segments within a cell cross them.

    triangles: (f, 3, 3).  address: (k,) ascending, a number for each touched cell.  start: (k + 1,), where the faces of
    each begin in `face` (m,).
    """

    triangles: Corners
    address: Ints
    start: Ints
    face: Indices

    @classmethod
    def of(cls, triangles: Floats, face: Ints, address: Ints) -> CellFaces:
        """From pairs of a face (m,) and the address (m,) of a cell that it touches."""
        order = np.argsort(address)
        address = address[order]
        begins = np.flatnonzero(np.diff(address, prepend=-1))
        return cls(triangles, address[begins], np.append(begins, len(address)), face[order].astype(np.int32))

    def find(self, address: Ints) -> Ints:
        """The place of each address (n,) among the touched cells, -1 for those that no triangle touches."""
        place = np.minimum(np.searchsorted(self.address, address), len(self.address) - 1)
        return np.where(self.address[place] == address, place, -1)

    @cached_property
    def counts(self) -> Ints:
        """How many triangles touch each cell."""
        return np.diff(self.start)

    @cached_property
    def _planes(self) -> Floats:
        """The normal of each triangle, twice its area long, and the normal's product with the first corner: (f, 4)."""
        normal = cross_products(self.triangles)
        return np.column_stack([normal, np.einsum("ij,ij->i", normal, self.triangles[:, 0])])

    @cached_property
    def _slabs(self) -> Floats:
        """For each crowded cell a direction and the least and the most that its triangles reach along it: (k, 5).

        Other cells have NaN.
        """
        slabs = np.full((len(self.address), 5), np.nan)
        crowded = np.flatnonzero(self.counts >= CROWD)
        for cells in runs(crowded, self.counts[crowded]):
            counts = self.counts[cells]
            face, begin = self._faces(cells), np.cumsum(counts) - counts
            normal = unit_vectors(self._planes[face, :3])
            # the two sides of a plate look opposite ways
            along = np.einsum("ij,ij->i", normal, np.repeat(normal[begin], counts, axis=0))
            mean = unit_vectors(np.add.reduceat(np.where(along[:, None] < 0, -normal, normal), begin))
            height = np.einsum("nkd,nd->nk", self.triangles[face], np.repeat(mean, counts, axis=0))
            slabs[cells, :3] = mean
            slabs[cells, 3] = np.minimum.reduceat(height.min(axis=1), begin) - ROUNDING
            slabs[cells, 4] = np.maximum.reduceat(height.max(axis=1), begin) + ROUNDING
        return slabs

    def sides(self, cell: Ints, points: Floats) -> NDArray[np.int8]:
        """The side of all triangles of a crowded cell that a point of it is on: 1 or -1; 0 if not known.

        No triangle parts points of the cell that are on the same side. cell: (n,) places, points: (n, 3) -> (n,).
        """
        side = np.zeros(len(cell), dtype=np.int8)
        crowded = np.flatnonzero(self.counts[cell] >= CROWD)
        if len(crowded):
            slab = self._slabs[cell[crowded]]
            height = np.einsum("ij,ij->i", slab[:, :3], points[crowded])
            side[crowded] = (height > slab[:, 4]).astype(np.int8) - (height < slab[:, 3])
        return side

    def clearance(self, cell: Ints, points: Floats) -> Floats:
        """At least how far points (n, 3) are from the planes of the triangles that touch their cells (n,)."""
        owner, plane = np.repeat(np.arange(len(cell)), self.counts[cell]), self._planes[self._faces(cell)]
        off = np.abs(np.einsum("ij,ij->i", plane[:, :3], points[owner]) - plane[:, 3])
        size = np.linalg.norm(plane[:, :3], axis=1)
        off = np.where(size > 0, off / np.where(size > 0, size, 1.0), np.inf)
        return np.minimum.reduceat(off, np.cumsum(self.counts[cell]) - self.counts[cell])

    def crossings(self, cell: Ints, points: Floats, ends: Floats) -> tuple[Ints, NDArray[np.bool_]]:
        """How much the winding number of points is more than that of ends in the same cells by the faces between them.

        cell: (n,) places.  points, ends: (n, 3) -> (n,) whole numbers, and whether they are sure: not so where a
        segment meets an edge or ends on a triangle but for rounding.
        """
        owner = np.repeat(np.arange(len(cell)), self.counts[cell])
        face = self._faces(cell)
        plane, way = self._planes[face], ends - points
        above = np.einsum("ij,ij->i", plane[:, :3], points[owner]) - plane[:, 3]
        rise = np.einsum("ij,ij->i", plane[:, :3], way[owner])
        fuzzy = ROUNDING * np.abs(plane).sum(axis=1)
        below = above + rise
        nearest = np.minimum(np.abs(above), np.abs(below))
        met = np.flatnonzero(((above < 0) != (below < 0)) | (nearest <= fuzzy))
        owner, face, rise, fuzzy = owner[met], face[met], rise[met], fuzzy[met]
        corners = self.triangles[face] - points[owner, None]
        way = way[owner]
        # the volumes between the segment and each edge: of one sign if it passes through the triangle
        volume = np.stack([_determinant(way, corners[:, k], corners[:, k - 2]) for k in range(3)])
        size = np.abs(corners).max(axis=(1, 2))
        slack = ROUNDING * size**2 * np.abs(way).max(axis=1)
        low, high = volume.min(axis=0), volume.max(axis=0)
        through = (low > slack) | (high < -slack)
        parted = nearest[met] > fuzzy
        hit = through & parted
        number = np.rint(np.bincount(owner[hit], np.sign(rise[hit]), minlength=len(cell))).astype(np.int64)
        sure = np.ones(len(cell), dtype=bool)
        sure[owner[~hit & ((low >= -slack) | (high <= slack))]] = False
        return number, sure

    def _faces(self, cell: Ints) -> Indices:
        """The faces of cells, one after the other."""
        counts = self.counts[cell]
        place = np.arange(counts.sum()) + np.repeat(self.start[cell] - (np.cumsum(counts) - counts), counts)
        return self.face[place]


def _determinant(a: Floats, b: Floats, c: Floats) -> Floats:
    """The triple product of vectors (n, 3)."""
    ax, ay, az = a.T
    bx, by, bz = b.T
    cx, cy, cz = c.T
    product: Floats = ax * (by * cz - bz * cy) + ay * (bz * cx - bx * cz) + az * (bx * cy - by * cx)
    return product


def runs(items: Ints, counts: Ints) -> list[Ints]:
    """Items in runs whose counts add up to about as much as passes through the caches together."""
    ends = np.cumsum(counts)
    return np.split(items, np.searchsorted(ends, np.arange(RUN, int(ends[-1]) if len(ends) else 0, RUN)))


def brick_address(brick: Integers, cell: Ints, bits: int) -> Ints:
    """Where a cell (3, n) that lies in a brick (n,) stands among those of all bricks."""
    x, y, z = cell & 2**bits - 1
    return (brick.astype(np.int64) << 3 * bits) | (x << 2 * bits) | (y << bits) | z


def lattice(side: int) -> Ints:
    """The cells (side^3, 3) of a cube."""
    return np.stack(np.unravel_index(np.arange(side**3), (side,) * 3), axis=1)
