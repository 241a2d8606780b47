"""Triangles and their edges: volumes, vertices that coincide, connected components; each once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

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
