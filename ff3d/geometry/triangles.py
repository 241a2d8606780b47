"""Triangles and their edges: areas, volumes, unit vectors, coincident vertices, half-edges, components; each once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ff3d.geometry.arrays import Bools, Corners, FaceBools, FaceFloats, Faces, FaceVectors, Floats, Ints, Vertices

if TYPE_CHECKING:
    import trimesh

BATCH = 2**16  # faces whose corners stay in the cache


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
    for start in range(0, len(faces), 2**12):  # what fits in the cache
        corners = faces[start : start + 2**12].T
        a, b, c = (np.ascontiguousarray(vertices[corner].T) for corner in corners)
        ab, ac, bc = b - a, c - a, c - b
        size = np.maximum(np.abs(ab).max(axis=0), np.abs(ac).max(axis=0))
        unit = np.where(size > 0, size, 1.0)  # so that no square under- or overflows
        ab, ac, bc = ab / unit, ac / unit, bc / unit
        doubled = (ab[1] * ac[2] - ab[2] * ac[1]) ** 2
        doubled += (ab[2] * ac[0] - ab[0] * ac[2]) ** 2 + (ab[0] * ac[1] - ab[1] * ac[0]) ** 2
        longest = np.maximum(np.maximum((ab**2).sum(axis=0), (ac**2).sum(axis=0)), (bc**2).sum(axis=0))
        rounding = 8 * np.finfo(np.float64).eps * largest[corners].max(axis=0)
        found[start : start + 2**12] = np.sqrt(doubled) * size > rounding * np.sqrt(longest)
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


def have_three_corners(faces: Faces) -> FaceBools:
    """Which faces (f, 3) have three different vertices.

    >>> have_three_corners(np.array([[0, 1, 2], [0, 1, 0], [3, 3, 1]])).tolist()
    [True, False, False]
    """
    distinct: Bools = (faces != np.roll(faces, 1, axis=1)).all(axis=1)
    return distinct


def merge_exactly(rows: Floats | Ints) -> tuple[Ints, Ints]:
    """Join rows (n, k) that are exactly equal: the first row of each kind (m,), and each row's kind (n,).

    >>> first, kind = merge_exactly(np.array([[2.0, 0, 0], [1, 0, 0], [2, 0, 0]]))
    >>> first.tolist(), kind.tolist()
    ([1, 0], [1, 0, 1])
    """
    order = np.lexsort(rows.T)
    new = np.ones(len(rows), dtype=bool)
    new[1:] = (np.diff(rows[order], axis=0) != 0).any(axis=1)
    kind = np.empty(len(rows), dtype=np.int64)
    kind[order] = np.cumsum(new) - 1
    return order[new], kind


@dataclass(frozen=True)
class HalfEdges:
    """The three half-edges of each face, those of one edge side by side, in ascending order of their edges."""

    face: Ints  # (h,) the face of each half-edge
    edge: Ints  # (h,) its edge
    direction: Ints  # (h,) 1 from the edge's lower vertex to its higher one, else -1
    ends: Ints  # (e, 2) the lower and the higher vertex of each edge
    count: Ints  # (e,) the faces at each edge

    @classmethod
    def of(cls, faces: Faces, num_vertices: int) -> HalfEdges:
        """Those of faces (f, 3) into `num_vertices` vertices."""
        start, end = faces.reshape(-1), np.roll(faces, -1, axis=1).reshape(-1)
        keys = np.minimum(start, end) * num_vertices + np.maximum(start, end)
        order = np.argsort(keys, kind="stable")
        keys = keys[order]
        new = np.ones(len(keys), dtype=bool)
        new[1:] = np.diff(keys) != 0
        ends = np.stack(np.divmod(keys[new], max(num_vertices, 1)), axis=1)
        edge = np.cumsum(new) - 1
        direction = np.where(start < end, 1, -1)[order]
        return cls(order // 3, edge, direction, ends, np.bincount(edge, minlength=len(ends)))

    @property
    def balance(self) -> Ints:
        """How many more faces run along each edge from its lower vertex than from its higher one (e,).

        0 wherever a closed surface is wound alike on both sides.
        """
        return np.rint(np.bincount(self.edge, self.direction, len(self.ends))).astype(np.int64)

    @property
    def neighbours(self) -> tuple[Ints, Ints]:
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


def components(left: Ints, right: Ints, nodes: int) -> Ints:
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
