"""Triangles and their edges: areas, volumes, unit vectors, coincident vertices, half-edges, components; each once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ff3d.geometry.arrays import (
    Bools,
    Corners,
    FaceBools,
    FaceFloats,
    Faces,
    FaceVectors,
    Floats,
    Indices,
    Integers,
    Ints,
    Singles,
    Vertices,
)

if TYPE_CHECKING:
    import trimesh

BATCH, FEW = 2**16, 2**12  # faces whose corners stay in the cache, the second one
SPARSE = 4  # of whole numbers below that many times their count, counting is the faster sort


def loose(corners: Corners) -> tuple[Vertices, Faces]:
    """The vertices (3 f, 3) and faces (f, 3) of triangles (f, 3, 3) that share no vertex."""
    return corners.reshape(-1, 3), np.arange(3 * len(corners)).reshape(-1, 3)


def cross_products(corners: Corners) -> FaceVectors:
    """Normals (f, 3) of triangles (f, 3, 3) by the right-hand rule, as long as twice the areas.

    >>> cross_products(np.array([[[0.0, 0, 0], [2, 0, 0], [0, 3, 0]]])).tolist()
    [[0.0, 0.0, 6.0]]
    """
    return np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])


def areas(corners: Corners) -> FaceFloats:
    """The areas (f,) of triangles (f, 3, 3).

    >>> areas(np.array([[[0.0, 0, 0], [2, 0, 0], [0, 3, 0]]])).tolist()
    [3.0]
    """
    area: Floats = np.linalg.norm(cross_products(corners), axis=1) / 2
    return area


def by_batches(measure: Callable[[Corners], FaceFloats], vertices: Vertices, faces: Faces) -> FaceFloats:
    """A measure of triangles (f, 3, 3) -> (f,), of vertices (v, 3) and faces (f, 3), a batch of faces at a time."""
    found = np.empty(len(faces))
    for start in range(0, len(faces), FEW):
        found[start : start + FEW] = measure(vertices[faces[start : start + FEW]])
    return found


def used_vertices(faces: Integers, count: int) -> Bools:
    """Which of `count` vertices some face names, (count,)."""
    used = np.zeros(count, dtype=bool)
    used[faces] = True
    return used


def edge_lengths(corners: Corners) -> FaceVectors:
    """The lengths (f, 3) of the edges of triangles (f, 3, 3); edge k starts at corner k.

    >>> edge_lengths(np.array([[[0.0, 0, 0], [3, 0, 0], [0, 4, 0]]])).tolist()
    [[3.0, 5.0, 4.0]]
    """
    lengths: Floats = np.linalg.norm(np.roll(corners, -1, axis=1) - corners, axis=2)
    return lengths


def longest_edges(corners: Corners) -> FaceFloats:
    """The length (f,) of the longest edge of each triangle (f, 3, 3)."""
    longest: Floats = edge_lengths(corners).max(axis=1, initial=0)
    return longest


def signed_volumes(vertices: Vertices, faces: Faces, apex: Floats | float = 0.0) -> FaceFloats:
    """The volumes (f,) of the tetrahedra between faces (f, 3) and an apex (3,), > 0 where a face looks away from it.

    Over a closed surface they add up to its volume, wherever the apex is (divergence theorem); an apex near the
    middle loses the fewest digits.
    """
    a, b, c = (vertices[faces[:, k]] - apex for k in range(3))
    volumes: Floats = np.einsum("ij,ij->i", a, np.cross(b, c)) / 6
    return volumes


def signed_volume(mesh: trimesh.Trimesh) -> float:
    """The volume of a closed mesh, input units^3: positive if its faces look outwards. 0 without faces."""
    vertices, faces = np.asarray(mesh.vertices, dtype=np.float64), np.asarray(mesh.faces, dtype=np.int64)
    if not len(faces):
        return 0.0
    low, high = vertices.min(axis=0), vertices.max(axis=0)
    middle = low + (high - low) / 2
    batches = (faces[start : start + BATCH] for start in range(0, len(faces), BATCH))
    return sum(float(signed_volumes(vertices, batch, middle).sum()) for batch in batches)


def has_area(vertices: Vertices, faces: Faces) -> FaceBools:
    """Whether each of the faces (f, 3) is more than a line or a point, (f,).

    vertices (v, 3), finite, input coordinates. A face has no area if its height is within the rounding of its own
    coordinates.
    """
    largest = np.abs(vertices).max(axis=1, initial=0)
    found = np.empty(len(faces), dtype=bool)
    for start in range(0, len(faces), FEW):
        corners = faces[start : start + FEW].T
        a, b, c = (np.ascontiguousarray(vertices[corner].T) for corner in corners)
        ab, ac, bc = b - a, c - a, c - b
        size = np.maximum(np.abs(ab).max(axis=0), np.abs(ac).max(axis=0))
        unit = np.where(size > 0, size, 1.0)  # so that no square under- or overflows
        ab, ac, bc = ab / unit, ac / unit, bc / unit
        doubled = (ab[1] * ac[2] - ab[2] * ac[1]) ** 2
        doubled += (ab[2] * ac[0] - ab[0] * ac[2]) ** 2 + (ab[0] * ac[1] - ab[1] * ac[0]) ** 2
        longest = np.maximum(np.maximum((ab**2).sum(axis=0), (ac**2).sum(axis=0)), (bc**2).sum(axis=0))
        rounding = 8 * np.finfo(np.float64).eps * largest[corners].max(axis=0)
        found[start : start + FEW] = np.sqrt(doubled) * size > rounding * np.sqrt(longest)
    return found


def unit_vectors(vectors: Floats) -> Floats:
    """vectors (..., 3) scaled to length 1, without over- or underflow; zero stays zero.

    >>> unit_vectors(np.array([[0.0, 3e200, 4e200], [0, 0, 0]])).tolist()
    [[0.0, 0.6, 0.8], [0.0, 0.0, 0.0]]
    """
    scaled = vectors / np.maximum(np.abs(vectors).max(axis=-1, keepdims=True), np.finfo(np.float64).tiny)
    length = np.sqrt((scaled**2).sum(axis=-1, keepdims=True))
    unit: Floats = scaled / np.where(length > 0, length, 1.0)
    return unit


def sums_by_index(index: Ints, values: Floats, count: int) -> Floats:
    """For each of `count` numbers the sum (count, k) of those rows of values (n, k) whose index (n,) it is.

    >>> sums_by_index(np.array([2, 0, 2]), np.array([[1.0, 2], [3, 4], [5, 6]]), 3).tolist()
    [[3.0, 4.0], [0.0, 0.0], [6.0, 8.0]]
    """
    return np.stack([np.bincount(index, column, count) for column in values.T], axis=1)


def have_three_corners(faces: Integers) -> FaceBools:
    """Which faces (f, 3) have three different vertices.

    >>> have_three_corners(np.array([[0, 1, 2], [0, 1, 0], [3, 3, 1]])).tolist()
    [True, False, False]
    """
    a, b, c = faces.T
    distinct: Bools = (a != b) & (b != c) & (c != a)
    return distinct


def repeats(faces: Integers) -> bool:
    """Whether some faces (f, 3) are on the same three vertices; by a hash: seldom, it says so of faces that are not.

    >>> repeats(np.array([[0, 1, 2], [0, 2, 3]])), repeats(np.array([[0, 1, 2], [2, 1, 0]]))
    (False, True)
    """
    mixed = np.zeros(len(faces), dtype=np.uint64)
    for column in faces.T:
        mixed += _mixed(np.zeros(len(faces), dtype=np.uint64), column.astype(np.uint64))
    mixed.sort()
    return bool((mixed[1:] == mixed[:-1]).any())


def _mixed(into: NDArray[np.uint64], bits: NDArray[Any]) -> NDArray[np.uint64]:
    """A hash `into` (n,), with the bits (n,) mixed in."""
    into ^= bits
    into *= np.uint64(0x9E3779B97F4A7C15)
    into ^= into >> np.uint64(29)
    into *= np.uint64(0xBF58476D1CE4E5B9)
    into ^= into >> np.uint64(32)
    return into


def merge_exactly(rows: Floats | Singles | Integers) -> tuple[Ints, Ints]:
    """Join rows (n, k) that are exactly equal: the first row of each kind (m,), and each row's kind (n,).

    >>> first, kind = merge_exactly(np.array([[2.0, 0, 0], [1, 0, 0], [2, 0, 0]]))
    >>> first.tolist(), kind.tolist()
    ([1, 0], [1, 0, 1])
    """
    if np.issubdtype(rows.dtype, np.integer) and rows.min(initial=0) >= 0:
        order = order_of_numbers(rows.T, int(rows.max(initial=-1)) + 1)
    else:
        order = np.lexsort(rows.T)
    new = _new_rows(column[order] for column in rows.T)
    kind = np.empty(len(rows), dtype=np.int64)
    kind[order] = np.cumsum(new) - 1
    return order[new].astype(np.int64), kind


def merge_in_order(rows: Floats | Singles) -> tuple[Ints, Ints]:
    """`merge_exactly`, with the kinds in the order of their first rows: one sort, of a hash of each row.

    >>> first, kind = merge_in_order(np.array([[2.0, 0, 0], [1, 0, 0], [2, 0, 0]]))
    >>> first.tolist(), kind.tolist()
    ([0, 1], [0, 1, 0])
    """
    bits = np.dtype(f"u{rows.dtype.itemsize}")
    mixed = np.zeros(len(rows), dtype=np.uint64)
    for column in rows.T:
        mixed = _mixed(mixed, (column + 0.0).view(bits))  # -0.0 is 0.0
    order = np.argsort(mixed)
    new = _new_rows([mixed[order]])
    first, kind = np.minimum.reduceat(order, np.flatnonzero(new)), np.empty(len(rows), dtype=np.int64)
    kind[order] = np.cumsum(new) - 1
    if not all((column[first][kind] == column).all() for column in rows.T):  # two rows of one hash, or a NaN
        first, kind = merge_exactly(rows)
    by_first = np.argsort(first)
    return first[by_first], np.argsort(by_first)[kind]


def _new_rows(columns: Iterable[NDArray[Any]]) -> Bools:
    """Which rows, of columns (k, n), differ from the row before; the first does."""
    new = np.zeros(0, dtype=bool)
    for column in columns:
        new = new if len(new) else np.arange(len(column)) == 0
        new[1:] |= column[1:] != column[:-1]
    return new


def order_of_numbers(columns: Sequence[NDArray[Any]] | NDArray[Any], below: int) -> Integers:
    """`np.lexsort` of whole numbers from 0 to `below` - 1: the last of the columns (k, n) counts most.

    By counting, column by column, which takes time as n and `below` grow, and no more.
    """
    from scipy.sparse import csr_array

    rows = len(columns[0])
    if below > SPARSE * rows:
        return np.lexsort(columns)
    order = np.arange(rows, dtype=np.int32)
    for column in columns:
        # a matrix with an entry in each row: by its columns, the rows come in the order that is wanted
        entries = csr_array(
            (np.ones(rows, dtype=bool), column[order], np.arange(rows + 1, dtype=np.int32)), shape=(rows, below)
        )
        order = order[entries.tocsc().indices]
    return order


@dataclass(frozen=True)
class HalfEdges:
    """The three half-edges of each face, those of one edge side by side, in ascending order of their edges.

    In 32 bits: products of these numbers need more.
    """

    face: Indices  # (h,) the face of each half-edge
    edge: Indices  # (h,) its edge
    direction: NDArray[np.int8]  # (h,) 1 from the edge's lower vertex to its higher one, else -1
    ends: Indices  # (e, 2) the lower and the higher vertex of each edge
    count: Indices  # (e,) the faces at each edge

    @classmethod
    def of(cls, faces: Integers, num_vertices: int) -> HalfEdges:
        """Those of faces (f, 3) into `num_vertices` vertices."""
        start = faces.astype(np.int32).reshape(-1)
        end = np.roll(start.reshape(-1, 3), -1, axis=1).reshape(-1)
        forward = start < end
        low, high = np.minimum(start, end), np.maximum(start, end)
        del start, end
        order = order_of_numbers([high, low], num_vertices)
        low, high = low[order], high[order]
        new = _new_rows([low, high])
        begin = np.flatnonzero(new)
        return cls(
            face=(order // 3).astype(np.int32),
            edge=np.cumsum(new, dtype=np.int32) - 1,
            direction=np.where(forward[order], np.int8(1), np.int8(-1)),
            ends=np.stack([low[begin], high[begin]], axis=1),
            count=np.diff(begin, append=len(new)).astype(np.int32),
        )

    def sums(self, values: Integers) -> Ints:
        """The sum (e,) over each edge of whole numbers (h,), one for each half-edge."""
        return np.add.reduceat(values, np.cumsum(self.count) - self.count, dtype=np.int64)

    @property
    def balance(self) -> Ints:
        """How many more faces run along each edge from its lower vertex than from its higher one (e,).

        0 wherever a closed surface is wound alike on both sides.
        """
        return self.sums(self.direction)

    @property
    def neighbours(self) -> tuple[Indices, Indices]:
        """Pairs of faces with a common edge, (p,) and (p,): those around an edge one after the other."""
        same = self.edge[1:] == self.edge[:-1]
        return self.face[:-1][same], self.face[1:][same]


def closing_triangles(vertices: Vertices, faces: Faces) -> Floats:
    """Triangles (c, 3, 3) that close a surface: with them as many faces run along every edge one way as the other.

    vertices (v, 3), faces (f, 3). Every loop of the rim is cut down by half again and again, a triangle for each two
    edges that become one: triangles about as long as they are wide, small ones at the rim and large ones in the middle.
    """
    edges = HalfEdges.of(faces, len(vertices))
    low, high = np.repeat(edges.ends, np.abs(edges.balance), axis=0).T
    turned = np.repeat(edges.balance < 0, np.abs(edges.balance))
    start, end = np.where(turned, low, high), np.where(turned, high, low)  # against the faces
    # as many edges end in a vertex as start there: the first goes on as the first, and so on
    after = np.empty(len(start), dtype=np.int64)
    after[np.argsort(end, kind="stable")] = np.argsort(start, kind="stable")
    following: list[int] = after.tolist()
    order: list[int] = []
    begins: list[int] = []
    seen = [False] * len(following)
    for first in range(len(following)):
        edge = first
        if not seen[edge]:
            begins.append(len(order))
        while not seen[edge]:
            seen[edge] = True
            order.append(edge)
            edge = following[edge]
    corner, loops = start[order], len(begins)
    loop = np.repeat(np.arange(loops), np.diff([*begins, len(order)]))
    triangles = [np.zeros((0, 3), dtype=np.int64)]
    while len(corner):
        count = np.bincount(loop, minlength=loops)
        begin = np.cumsum(count) - count
        place, last = np.arange(len(loop)) - begin[loop], count[loop] - 1
        second, third = (corner[begin[loop] + (place + k) % count[loop]] for k in (1, 2))
        cut = (place % 2 == 0) & (place < last) & (last >= 2)
        triangles.append(np.stack([corner[cut], second[cut], third[cut]], axis=1))
        kept = (place % 2 == 0) & (last >= 3)
        corner, loop = corner[kept], loop[kept]
    return vertices[np.concatenate(triangles)]


def creases(corners: Corners, least: float) -> tuple[Floats, Floats]:
    """Edges between triangles (f, 3, 3) whose planes meet at an angle: their ends (e, 2, 3) and unit normals (e, 3).

    least: degrees between the normals of two neighbours, from which on their edge counts; 0 is flat. However they are
    wound; vertices that are exactly equal are one. The normal is the mean of the two, as the first one is wound, or
    that of the first one where they cancel.
    """
    first, vertex = merge_exactly(corners.reshape(-1, 3))
    faces = vertex.reshape(-1, 3)
    proper = np.asarray(have_three_corners(faces))
    faces, normals = faces[proper], unit_vectors(cross_products(corners[proper]))
    edges = HalfEdges.of(faces, len(first))
    pair = np.flatnonzero(edges.edge[1:] == edges.edge[:-1])
    one, other = normals[edges.face[pair]], normals[edges.face[pair + 1]]
    other = np.where((edges.direction[pair] == edges.direction[pair + 1])[:, None], -other, other)
    cosine: Floats = np.einsum("ij,ij->i", one, other)
    sharp = (cosine <= np.cos(np.radians(least))) & one.any(axis=1) & other.any(axis=1)
    # of an edge of more than two faces, each pair of neighbours around it may be one: it counts once
    edge, chosen = np.unique(edges.edge[pair[sharp]], return_index=True)
    mean = unit_vectors(one[sharp][chosen] + other[sharp][chosen])
    mean = np.where(mean.any(axis=1, keepdims=True), mean, one[sharp][chosen])
    return corners.reshape(-1, 3)[first][edges.ends[edge]], mean


def components(left: Integers, right: Integers, nodes: int) -> Ints:
    """The connected component (nodes,) of each of `nodes` nodes, where links join left[i] to right[i].

    >>> components(np.array([0, 3]), np.array([2, 3]), 4).tolist()
    [0, 1, 0, 2]
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    if not nodes:
        return np.zeros(0, dtype=np.int64)
    links = coo_array((np.ones(len(left), dtype=np.int8), (left, right)), shape=(nodes, nodes))
    labels: Ints = connected_components(links, directed=False)[1].astype(np.int64)
    return labels
