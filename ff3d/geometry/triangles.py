"""Triangles and their edges: volumes, vertices that coincide, connected components; each once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ff3d.geometry.arrays import Floats, Ints

if TYPE_CHECKING:
    import trimesh


def merge_exactly(vertices: Floats) -> tuple[Ints, Ints]:
    """Join rows (v, 3) that are exactly equal: the first row of each kind (k,), and each row's kind (v,)."""
    order = np.lexsort(vertices.T)
    new = np.ones(len(vertices), dtype=bool)
    new[1:] = (np.diff(vertices[order], axis=0) != 0).any(axis=1)
    kind = np.empty(len(vertices), dtype=np.int64)
    kind[order] = np.cumsum(new) - 1
    return order[new], kind


def has_area(vertices: Floats, faces: Ints) -> NDArray[np.bool_]:
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
    """vectors (..., 3) made unit; zero stays zero."""
    scaled = vectors / np.maximum(np.abs(vectors).max(axis=-1, keepdims=True), np.finfo(np.float64).tiny)
    length = np.sqrt((scaled**2).sum(axis=-1, keepdims=True))
    unit: Floats = scaled / np.where(length > 0, length, 1.0)
    return unit


def signed_volume(mesh: trimesh.Trimesh) -> float:
    """The volume of a closed mesh, input units^3, > 0 if its faces look outwards; seen from its box's centre."""
    vertices, faces = np.asarray(mesh.vertices, dtype=np.float64), np.asarray(mesh.faces, dtype=np.int64)
    low, high = vertices.min(axis=0), vertices.max(axis=0)
    middle, total = low + (high - low) / 2, 0.0
    for start in range(0, len(faces), 2**16):  # what fits in the cache
        a, b, c = (vertices[faces[start : start + 2**16, k]] - middle for k in range(3))
        total += float(np.einsum("ij,ij->", a, np.cross(b, c)))
    return total / 6


def components(left: Ints, right: Ints, nodes: int) -> Ints:
    """The connected component (nodes,) of each of `nodes` nodes, where links join left[i] to right[i]."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    if not nodes:
        return np.zeros(0, dtype=np.int64)
    links = coo_array((np.ones(len(left), dtype=np.int8), (left, right)), shape=(nodes, nodes))
    labels: Ints = connected_components(links, directed=False)[1].astype(np.int64)
    return labels
