"""Polygons, checked and triangulated."""

from __future__ import annotations

from typing import Any

import numpy as np

from ff3d.formats.text import MeshError
from ff3d.geometry.arrays import Floats, Ints

Polygons = tuple[Floats, Ints, Ints]  # vertices (v, 3); the corners of all faces in a row; the corners of each face


def clean_polygons(vertices: Floats, corners: Ints, lengths: Ints) -> tuple[Floats, Ints]:
    """Polygons -> used vertices (v, 3), triangles (f, 3); MeshError for the faults that `load_mesh` lists."""
    if not len(vertices):
        raise MeshError("it holds no vertices; export or download it again")
    if not len(corners):
        raise MeshError(
            f"it is a point cloud of {len(vertices)} points without faces, and ff3d needs faces; "
            "reconstruct a surface from the points first"
        )
    bad = corners[(corners < 0) | (corners >= len(vertices))]
    if len(bad):
        raise MeshError(
            f"{len(bad)} face corners point past the vertices (the first to number {bad[0]}, counted from 0, of "
            f"{len(vertices)}): the file is cut short or damaged; export or download it again"
        )
    if lengths.min() < 3:
        raise MeshError(f"face {lengths.argmin() + 1} has {lengths.min()} corners; remove it or export again")
    used = np.zeros(len(vertices), dtype=bool)
    used[corners] = True
    vertices, corners = vertices[used], (np.cumsum(used) - 1)[corners]
    broken = int((~np.isfinite(vertices)).any(axis=1).sum())
    if broken:
        raise MeshError(f"{broken} of its vertices are not finite (NaN or infinity); repair or export it again")
    extents = vertices.max(axis=0) / 2 - vertices.min(axis=0) / 2
    if extents.max() == 0:
        raise MeshError("all its vertices lie in one point; export it again, or with more digits")
    if extents.max() > 1e100:
        raise MeshError(f"it spans {2 * extents.max():.3g} units, whose volume float64 cannot hold; scale it down")
    return vertices, _triangulate(vertices, corners, lengths)


def _triangulate(vertices: Floats, corners: Ints, lengths: Ints) -> Ints:
    """Polygons as triangles (f, 3), in the polygons' order: fans, or clipped ears where a fan would fold over."""
    starts = np.cumsum(lengths) - lengths
    pieces, owners = [], []
    for n in np.unique(lengths).tolist():
        which = np.flatnonzero(lengths == n)
        rings = corners[starts[which, None] + np.arange(n)]
        fan = np.stack([np.repeat(rings[:, :1], n - 2, axis=1), rings[:, 1:-1], rings[:, 2:]], axis=-1)
        if n > 3:
            a, b, c = np.moveaxis(vertices[fan], 2, 0)
            normals = np.cross(b - a, c - a)
            folds = (np.einsum("pki,pi->pk", normals, normals.sum(axis=1)) < 0).any(axis=1)
            for i in np.flatnonzero(folds):
                fan[i] = rings[i][_clip_ears(vertices[rings[i]])]
        pieces.append(fan.reshape(-1, 3))
        owners.append(np.repeat(which, n - 2))
    order = np.argsort(np.concatenate(owners), kind="stable")
    return np.concatenate(pieces)[order]


def _clip_ears(ring: Floats) -> list[tuple[int, int, int]]:
    """Triangles of one simple, nearly flat polygon (n, 3), as places in its ring."""
    shifted = ring - ring[0]
    normal = np.cross(shifted, np.roll(shifted, -1, axis=0)).sum(axis=0)
    axis = int(np.abs(normal).argmax())
    flat = shifted[:, [(axis + 1) % 3, (axis + 2) % 3]] * [np.sign(normal[axis]), 1.0]

    def turn(a: int, b: int, others: Any) -> Any:  # > 0 where the others lie left of a -> b
        (u, v), to = flat[b] - flat[a], flat[others] - flat[a]
        return u * to[..., 1] - v * to[..., 0]

    left, triangles = list(range(len(ring))), []
    while len(left) > 3:
        for k in range(len(left)):
            ear = a, b, c = left[k - 1], left[k], left[(k + 1) % len(left)]
            rest = np.array(left)  # a corner may come twice, where a bridge leads to a hole
            rest = rest[~(flat[rest, None] == flat[[a, b, c]]).all(axis=2).any(axis=1)]
            within = (turn(a, b, rest) >= 0) & (turn(b, c, rest) >= 0) & (turn(c, a, rest) >= 0)
            if turn(a, b, c) > 0 and not within.any():
                break
        triangles.append(ear)  # no ear is left only in rings that cross themselves: then any corner does
        left.remove(ear[1])
    return [*triangles, (left[0], left[1], left[2])]
