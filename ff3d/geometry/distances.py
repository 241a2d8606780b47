"""Truncated distances to a mesh: exact up to a reach, as targets for networks."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from ff3d.geometry.arrays import Floats, Indices, Inside, Ints, Singles
from ff3d.geometry.coordinates import MANY, check_points, order_in_space
from ff3d.geometry.cores import threads
from ff3d.geometry.triangles import areas, cross_products, loose, unit_vectors

if TYPE_CHECKING:
    import trimesh

# The side of a cell: smaller cells have shorter lists, and take longer to build
CELL = 1 / 130  # boxes
CELL_EDGES = 5.0  # of the triangles, if those are smaller: square roots of twice their mean area
COARSEST = 0.45  # reaches: cells that are much smaller than the reach gain nothing
# Entries of all lists, 8 bytes each: cells are halved, which about doubles the entries, only while there are at most
# `MOST_ENTRIES` and at most `ENTRIES` or `ENTRIES_PER_FACE` a triangle, whichever is more
ENTRIES, ENTRIES_PER_FACE, MOST_ENTRIES = 2**23, 32, 2**26

CHUNK = 2**18  # points sorted together
BATCH = 2**15  # distances computed together: what stays in the cache
EPS = np.float32(1e-6)  # boxes: past any rounding of the float32 distances


class TruncatedDistance:
    """The distance from a point to the nearest triangle, clipped at `reach`; its error is 1e-6 of the mesh's longest
    side at most.

    vertices (v, 3), faces (f, 3): any triangles; a face without area is its longest edge, or its one point.
    unit: of the reach and of the distances, in input units.

    Every triangle counts, also one with inside or outside on both of its sides (an inner wall, a sheet, the overlap of
    two parts): there the distance has a minimum without a change of sign, unless `separating_surface` left it out.
    And where the oracle closes a hole, the sign changes at up to `reach`.

    Each cell of a grid has a list of the triangles that may be the nearest one of a point in it. The lists come from
    one cell about everything, halved again and again: the distance is 1-Lipschitz, so if the nearest triangle is d
    away from a cell's centre, only triangles up to d plus the cell's diagonal away are kept. Lists are sorted by the
    distance from the centre, and a query reads one only as far as the same bound allows.
    Meant for a reach of a few triangles: where hundreds of them lie within it (some million faces), lists are long and
    slow. `benchmarks/distances.py` compares it with libigl's and Open3D's trees.
    Raises ValueError for a reach or unit that is not positive, or vertices that are not finite.
    """

    def __init__(self, vertices: ArrayLike, faces: ArrayLike, reach: float, *, unit: float = 1.0):
        if not (0 < reach < math.inf and 0 < unit < math.inf):
            raise ValueError(f"reach and unit must be positive and finite, got {reach} and {unit}")
        faces = np.asarray(faces, dtype=np.int64).reshape(-1, 3)
        corners = np.asarray(vertices, dtype=np.float64).reshape(-1, 3)[faces]
        if not np.isfinite(corners).all():
            raise ValueError("vertices must be finite, got NaN or Inf; remove those faces")
        self.reach, self.unit = float(reach), float(unit)
        self._empty = not len(corners)
        if self._empty:
            return
        # from here on lengths are in boxes: the longest side of the mesh's box, or the reach if that is more
        low, high = corners.min(axis=(0, 1)), corners.max(axis=(0, 1))
        self._box = max(float((high - low).max()), reach * unit)
        self._reach = np.float32(reach * unit / self._box)
        margin = float(self._reach + 8 * EPS)  # the sides of the grid are past the reach, as all space beyond them
        self._lower, self._upper = low - margin * self._box, (high - low) / self._box + 2 * margin
        corners = (corners - self._lower) / self._box
        edge = math.sqrt(2 * areas(corners).mean())
        self._cell = max(float(self._reach) * COARSEST, min(CELL, CELL_EDGES * edge))
        # neighbours in space side by side in memory
        middle = (126 * corners.mean(axis=1) / self._upper.max()).astype(np.int8)
        order = np.lexsort(middle.T)
        self._frames = np.empty((15, len(order)), dtype=np.float32)

        def fill_frames(start: int) -> None:
            self._frames[:, start : start + BATCH] = _frames(corners[order[start : start + BATCH]])

        with ThreadPoolExecutor(threads()) as pool:
            list(pool.map(fill_frames, range(0, len(order), BATCH)))
        self._build_lists()

    def __call__(self, points: ArrayLike) -> Singles:
        """points (n, 3), input coordinates -> (n,) float32 in [0, reach], units."""
        array = check_points(points)
        distance = np.full(len(array), self.reach, dtype=np.float32)

        def fill(start: int) -> None:
            near, nearest = self._near(array[start : start + CHUNK])
            distance[start + near] = np.minimum(nearest * np.float32(self._box / self.unit), distance[start + near])

        with ThreadPoolExecutor(threads()) as pool:
            list(pool.map(fill, range(0, 0 if self._empty else len(array), CHUNK)))
        return distance

    def signed(self, points: ArrayLike, inside: Inside) -> Singles:
        """points (n, 3), input coordinates -> (n,) float32 in [-reach, reach], units: positive inside.

        inside: the oracle, points (n, 3) to bool (n,), which alone decides the sign.
        """
        array = check_points(points)
        distance = self(array)
        np.negative(distance, out=distance, where=~inside(array))
        return distance

    def _build_lists(self) -> None:
        """Halve the cell about everything until the cells are small or the lists have too many entries."""
        level = max(1, math.ceil(math.log2(float(self._upper.max()) / self._cell)))
        count = self._frames.shape[1]
        place, start = np.zeros((1, 3), dtype=np.int64), np.array([0, count])
        face = np.arange(count, dtype=np.int32)
        away = np.zeros(len(face), dtype=np.float32)
        with ThreadPoolExecutor(threads()) as pool:
            most = min(max(ENTRIES, ENTRIES_PER_FACE * count), MOST_ENTRIES)
            while level and len(face) <= most:
                level -= 1
                side = self._cell * 2**level
                jobs = [(place[i:j], start[i : j + 1], face, side) for i, j in _runs(start)]
                places, counts, faces, aways = zip(*pool.map(self._halve, *zip(*jobs, strict=True)), strict=True)
                place, face, away = np.concatenate(places), np.concatenate(faces), np.concatenate(aways)
                start = np.concatenate([[0], np.cumsum(np.concatenate(counts))])
        self._cell *= 2**level
        self._face, self._away = face, away
        self._start = np.concatenate([[0], start]).astype(np.int32)  # list 0, of all other cells, is empty
        self._longest = int(np.diff(start).max(initial=0))
        self._table = np.zeros((self._upper / self._cell).astype(int) + 2, dtype=np.int32)
        self._table[tuple(place.T)] = np.arange(1, len(place) + 1)

    def _halve(self, place: Ints, start: Ints, face: Indices, side: float) -> tuple[Ints, Ints, Indices, Singles]:
        """The eighths, of this side, of cells: their places and lengths of list, and the lists: faces, distances.

        place (c, 3): of the cells, in their sides; the list of cell i is face[start[i]:start[i + 1]].
        """
        face, first = face[start[0] : start[-1]], start[:-1] - start[0]
        frames, sizes, half = self._frames.take(face, axis=1, mode="clip"), np.diff(start), side * math.sqrt(3) / 2
        steps = np.array(list(product((0, 1), repeat=3)))
        cell = np.repeat(np.arange(len(place)), sizes)
        middles = np.repeat(((place + 0.5) * (2 * side)).T.astype(np.float32), sizes, axis=1)
        lists = []
        for octant, shift in enumerate(((steps - 0.5) * side).astype(np.float32)):
            away = np.sqrt(_squared_distances(frames, middles + shift[:, None]))
            most = np.minimum(np.minimum.reduceat(away, first) + np.float32(2 * half), self._reach + np.float32(half))
            kept = np.flatnonzero(away <= np.repeat(most + EPS, sizes))
            lists.append((8 * cell[kept] + octant, face[kept], away[kept]))
        owner, faces, away = (np.concatenate(parts) for parts in zip(*lists, strict=True))
        order = np.argsort(owner << 32 | away.view(np.int32))  # floats that are not negative are in order as integers
        counts = np.bincount(owner, minlength=8 * len(place))
        filled = np.flatnonzero(counts)
        return 2 * place[filled // 8] + steps[filled % 8], counts[filled], faces[order], away[order]

    def _near(self, points: Floats) -> tuple[Ints, Singles]:
        """The rows (m,) of those points (n, 3) that lie in cells with a list, and their distances to the list, boxes.

        A distance past the reach is not exact: the mesh too is further away than the reach.
        """
        place = points.T.copy()  # a row for each axis
        place -= self._lower[:, None]
        place *= 1 / self._box
        unit = np.clip(place, 0, self._upper[:, None], out=place).astype(np.float32)
        place *= 1 / self._cell
        x, y, z = cell = place.astype(np.int32)
        number = self._table.reshape(-1)[(x * self._table.shape[1] + y) * self._table.shape[2] + z]
        near = np.flatnonzero(number)
        near = near[np.argsort(number[near])]
        number, unit = number[near], unit[:, near]
        x, y, z = (place[:, near] - cell[:, near] - 0.5).astype(np.float32)
        offset = np.sqrt(x * x + y * y + z * z) * np.float32(self._cell) + EPS  # from the cell's centre
        squared = np.empty(len(near), dtype=np.float32)
        for begin in range(0, len(near), BATCH):
            batch = slice(begin, begin + BATCH)
            squared[batch] = self._nearest(unit[:, batch], number[batch], offset[batch])
        return near, np.sqrt(squared)

    def _nearest(self, unit: Singles, number: Indices, offset: Singles) -> Singles:
        """The squared distances (n,) of points (3, n) to the nearest face of the lists of these numbers (n,).

        offset (n,): of the points from the centres of their cells.
        """
        first, last = self._start[number], self._start[number + 1]
        best = _squared_distances(self._gather(first), unit)
        bound = np.sqrt(np.minimum(best, self._reach**2)) + offset
        end = first + np.int32(1)  # of the faces that may be nearer, by binary search
        for bit in reversed(range(self._longest.bit_length())):
            further = end + np.int32(2**bit)
            within = self._away.take(np.minimum(further, last) - 1, mode="clip") <= bound
            end += (within & (further <= last)) * np.int32(2**bit)
        more = np.flatnonzero(end - first > 1)
        first, counts = first[more] + np.int32(1), (end - first)[more] - np.int32(1)
        start = np.concatenate([[0], np.cumsum(counts)])
        for i, j in _runs(start):
            begin = (start[i:j] - start[i]).astype(np.int32)
            entry = np.repeat(first[i:j] - begin, counts[i:j])
            entry += np.arange(len(entry), dtype=np.int32)
            points = np.repeat(unit[:, more[i:j]], counts[i:j], axis=1)
            least = np.minimum.reduceat(_squared_distances(self._gather(entry), points), begin)
            best[more[i:j]] = np.minimum(best[more[i:j]], least)
        return best

    def _gather(self, entries: Indices) -> Singles:
        """The frames (15, n) of the faces at these entries of the lists."""
        return self._frames.take(self._face.take(entries, mode="clip"), axis=1, mode="clip")


class NearestFaces:
    """Exact nearest points on triangles, by libigl's tree.  mesh: any triangles, input coordinates."""

    def __init__(self, mesh: trimesh.Trimesh):
        import igl

        corners = np.asarray(mesh.vertices, dtype=np.float64)[np.asarray(mesh.faces, dtype=np.int64)]
        low, high = corners.min(axis=(0, 1)), corners.max(axis=(0, 1))
        # about the origin, one unit large: squares of coordinates neither under- nor overflow, nor lose digits
        self._middle, self._size = low + (high - low) / 2, float((high - low).max()) or 1.0
        self._vertices, self._faces = loose((corners - self._middle) / self._size)
        self._normals = unit_vectors(cross_products(self._vertices.reshape(-1, 3, 3)))
        self._tree: Any = igl.AABB()
        self._tree.init(self._vertices, self._faces)

    def __call__(self, points: Floats) -> tuple[Floats, Ints, Floats]:
        """points (n, 3) -> distances (n,), faces (n,), and the nearest points (n, 3)."""
        if not len(points):
            return np.zeros(0), np.zeros(0, dtype=np.int64), np.zeros((0, 3))
        local = np.ascontiguousarray((points - self._middle) / self._size)
        if len(points) < MANY:
            squared, face, place = self._tree.squared_distance(self._vertices, self._faces, local)
        else:
            order = order_in_space(local, cells=16)
            found = self._tree.squared_distance(self._vertices, self._faces, local[order])
            squared, face, place = (np.empty_like(part) for part in found)
            for part, sorted_part in zip((squared, face, place), found, strict=True):
                part[order] = sorted_part
        return np.sqrt(squared) * self._size, np.asarray(face, dtype=np.int64), place * self._size + self._middle

    def with_normals(self, points: Floats) -> tuple[Floats, Floats, Floats]:
        """points (n, 3) -> distances (n,), the nearest points (n, 3), and the unit normals (n, 3) of their faces."""
        distance, face, place = self(points)
        return distance, place, self._normals[face]


def _runs(start: Ints) -> list[tuple[int, int]]:
    """Runs [i, j) of lists with about `BATCH` entries together; list i is the entries start[i] to start[i + 1]."""
    cuts = np.unique(np.searchsorted(start, [*range(0, int(start[-1]), BATCH), start[-1]]))
    cuts[-1:] = len(start) - 1
    return list(zip(cuts[:-1].tolist(), cuts[1:].tolist(), strict=True))


def _frames(corners: Floats) -> Singles:
    """Triangles (f, 3, 3) as (15, f): the foot of the height on the longest edge (3); x, y and z of unit vectors along
    that edge, along the height and normal to both (9); the edge's length on one side of the foot, how much longer it is
    on the other, and the height (3).
    """
    edges = np.linalg.norm(np.roll(corners, -1, axis=1) - corners, axis=2)
    longest, row = edges.argmax(axis=1), np.arange(len(corners))
    a, b, c = (corners[row, (longest + k) % 3] for k in range(3))
    base = edges[row, longest]
    along = np.where(base[:, None] > 0, b - a, [1.0, 0.0, 0.0]) / np.where(base > 0, base, 1)[:, None]
    part = np.clip(np.einsum("ij,ij->i", c - a, along), 0, base)
    foot = a + part[:, None] * along
    height = np.linalg.norm(c - foot, axis=1)
    flat = height <= 1e-9 * base  # then any direction normal to the edge
    up = np.where(flat[:, None], np.cross(along, np.eye(3)[np.abs(along).argmin(axis=1)]), c - foot)
    up /= np.linalg.norm(up, axis=1, keepdims=True)
    axes = np.stack([along, up, np.cross(along, up)]).transpose(2, 0, 1).reshape(9, -1)
    sizes = np.stack([part, base - 2 * part, np.maximum(height, 1e-10)])  # not 0: it is a divisor
    return np.concatenate([foot.T, axes, sizes]).astype(np.float32)


def _squared_distances(frames: Singles, points: Singles) -> Singles:
    """frames (15, n) and points (3, n) -> squared distances (n,).

    In its plane the height cuts the triangle into two right triangles. The nearest point lies in the one on the
    point's side; the distance is that to its part of the base or to its slope, or 0 inside.
    """
    offset = points - frames[:3]
    x, y, z = axes = offset[0] * frames[3:6]
    axes += offset[1] * frames[6:9]
    axes += offset[2] * frames[9:12]
    part, more, height = frames[12:]
    width = more * (x > 0)
    width += part
    x = width - np.abs(x)  # from the end of the base, towards the foot
    square = width * width  # of the slope's length
    square += height * height
    beyond = width * y  # the slope's line, times its length
    beyond -= height * x
    along = width * x  # the slope, times its length
    along += height * y
    squared = np.maximum(np.maximum(along - square, -along), 0)
    squared *= squared
    squared += beyond * beyond
    squared /= square
    x = np.minimum(x, 0)
    x *= x
    x += y * y
    squared = np.minimum(squared, x)
    squared *= np.maximum(-y, beyond) >= 0
    z *= z
    squared += z
    return squared
