"""Polygons, checked and triangulated; triangle strips."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np

from ff3d.formats.text import MeshError
from ff3d.geometry.arrays import Floats, Ints
from ff3d.geometry.triangles import used_vertices

Polygons = tuple[Floats, Ints, Ints]  # vertices (v, 3); the corners of all faces in a row; the corners of each face

MOST_CLIPPED = 500  # corners of a polygon that the cubic method takes in a second

logger = logging.getLogger(__name__)


def clean_polygons(vertices: Floats, corners: Ints, lengths: Ints, file: Path) -> tuple[Floats, Ints]:
    """Polygons -> used vertices (v, 3), triangles (f, 3).

    Faces of fewer than three corners are left out, and a logged line says how many.
    Raises MeshError for the faults that `load_mesh` lists.
    """
    if not len(vertices):
        raise MeshError("it holds no vertices; export or download it again")
    if not len(corners):
        raise MeshError(
            f"it is a point cloud of {len(vertices)} points without faces, and ff3d needs faces; "
            "reconstruct a surface from the points first"
        )
    if corners.min() < 0 or corners.max() >= len(vertices):
        bad = corners[(corners < 0) | (corners >= len(vertices))]
        raise MeshError(
            f"{len(bad)} face corners point past the vertices (the first to number {bad[0]}, counted from 0, of "
            f"{len(vertices)}): the file is cut short or damaged; export or download it again"
        )
    short = lengths < 3
    if short.any():
        first = f"face {short.argmax() + 1} has {lengths[short.argmax()]} corners"
        if short.all():
            raise MeshError(f"none of its {len(lengths)} faces has three corners ({first}); export it as a surface")
        logger.warning("%s: %d face(s) of fewer than three corners left out; %s", file, short.sum(), first)
        corners, lengths = corners[~np.repeat(short, lengths)], lengths[~short]
    used = used_vertices(corners, len(vertices))
    if not used.all():
        vertices, corners = vertices[used], (np.cumsum(used) - 1)[corners]
    broken = ~np.isfinite(vertices).all(axis=1)
    if broken.any():
        raise MeshError(
            f"{broken.sum()} of its vertices are not finite (NaN or infinity), the first is vertex "
            f"{np.flatnonzero(used)[broken.argmax()] + 1}; repair or export it again"
        )
    extents = vertices.max(axis=0) / 2 - vertices.min(axis=0) / 2
    if extents.max() == 0:
        raise MeshError("all its vertices lie in one point; export it again, or with more digits")
    if extents.max() > 1e100:
        raise MeshError(f"it spans {2 * extents.max():.3g} units, whose volume float64 cannot hold; scale it down")
    return vertices, _triangulate(vertices, corners, lengths)


def strip_triangles(strip: Ints, restart: int) -> Ints:
    """The triangles (t, 3) of a strip, every other one turned; `restart` starts a new strip.

    Triangles that name a vertex twice only stitch strips together, and are left out.
    """
    stops = strip == restart
    position = np.arange(len(strip))
    first = np.maximum.accumulate(np.where(stops, position + 1, 0))  # the place where each corner's strip starts
    windows = np.stack([strip[:-2], strip[1:-1], strip[2:]], axis=1) if len(strip) > 2 else np.zeros((0, 3), np.int64)
    odd = (position - first)[: len(windows)] % 2 == 1
    windows[odd] = windows[odd][:, [1, 0, 2]]
    a, b, c = windows.T
    return windows[(windows != restart).all(axis=1) & (a != b) & (b != c) & (c != a)]


def _triangulate(vertices: Floats, corners: Ints, lengths: Ints) -> Ints:
    """Polygons as triangles (f, 3), in the polygons' order: fans, or clipped ears where a fan would fold over."""
    if (lengths == 3).all():
        return corners.reshape(-1, 3)
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
            if n == 4:  # the other diagonal
                fan[folds] = rings[folds][:, [[1, 2, 3], [1, 3, 0]]]
            for i in np.flatnonzero(folds) if n > 4 else ():
                fan[i] = rings[i][triangulate_ring(vertices[rings[i]])]
        pieces.append(fan.reshape(-1, 3))
        owners.append(np.repeat(which, n - 2))
    order = np.argsort(np.concatenate(owners), kind="stable")
    return np.concatenate(pieces)[order]


def triangulate_ring(ring: Floats) -> Ints:
    """The n - 2 triangles of one nearly flat polygon (n, 3), as places in its ring; each of its edges bounds them once.

    By the earcut library, on the plane of the coordinates that the polygon is largest in. Earcut leaves out corners on
    straight lines and where the ring touches itself, which would tear the surface from its neighbours: they are put
    back. Where the ring crosses itself, and earcut gives up, by `clip_ears`, or past `MOST_CLIPPED` corners as a fan:
    with the same rim in the same plane, it too has the winding number of the polygon.
    """
    from mapbox_earcut import triangulate_float64

    n, flat = len(ring), _flatten(ring)
    found = triangulate_float64(flat, np.array([n], dtype=np.uint32)).reshape(-1, 3).astype(np.int64)
    x, y = flat.T
    area = (x * np.roll(y, -1) - np.roll(x, -1) * y).sum()
    if abs(_areas(flat, found).sum() - area) <= 1e-9 * abs(area):
        triangles = _sew(_split_sides(found, flat), flat)
        if len(triangles) == n - 2:
            return triangles
    if n <= MOST_CLIPPED:
        return np.array(clip_ears(ring), dtype=np.int64)
    return fan_triangles(np.arange(n))


def fan_triangles(ring: Ints) -> Ints:
    """The triangles (n - 2, 3) from the first corner to all others."""
    return np.stack([np.repeat(ring[:1], len(ring) - 2), ring[1:-1], ring[2:]], axis=1)


def _areas(flat: Floats, triangles: Ints) -> Floats:
    """Twice the signed area of each triangle."""
    a, b, c = flat[triangles.T]
    areas: Floats = (b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]
    return areas


def _rim(triangles: Ints, n: int) -> Ints:
    """The sides, of 3 t, along which no triangle lies on the other side."""
    edges = np.stack([triangles, np.roll(triangles, -1, axis=1)], axis=-1).reshape(-1, 2)
    return np.flatnonzero(~np.isin(edges[:, 0] * n + edges[:, 1], edges[:, 1] * n + edges[:, 0]))


def _split_sides(triangles: Ints, flat: Floats) -> Ints:
    """The triangles, those split whose side on the rim passes over corners of the ring that no triangle has."""
    n = len(flat)
    unused = np.ones(n, dtype=bool)
    unused[triangles] = False
    outlines: dict[int, dict[int, list[int]]] = {}
    for k, side in zip(*divmod(_rim(triangles, n), 3), strict=True):
        start, end = triangles[k, side], triangles[k, (side + 1) % 3]
        between = (start + np.arange(1, (end - start) % n)) % n
        if len(between) and unused[between].all():
            outlines.setdefault(int(k), {})[int(side)] = between.tolist()
    pieces = [triangles[np.isin(np.arange(len(triangles)), list(outlines), invert=True)]]
    for k, sides in outlines.items():
        apex = (min(sides) + 2) % 3  # across from a split side, so that no triangle of the fan is flat
        order = [(apex + step) % 3 for step in range(3)]
        fan = fan_triangles(np.array([corner for s in order for corner in (triangles[k, s], *sides.get(s, ()))]))
        folded = _areas(flat, fan).min() < 0  # where the ring runs out and back on itself: `_sew` sees to it
        pieces.append(triangles[k : k + 1] if folded else fan)
    return np.concatenate(pieces)


def _sew(triangles: Ints, flat: Floats) -> Ints:
    """The triangles, and flat ones where their rim is not the ring's: at corners that coincide, and on straight lines.

    The ring's edges that the rim lacks and those that it has too many of, turned, make closed loops without area.
    """
    n = len(flat)
    edges = np.stack([triangles, np.roll(triangles, -1, axis=1)], axis=-1).reshape(-1, 2)
    if len(np.unique(edges[:, 0] * n + edges[:, 1])) != len(edges):
        return triangles  # an edge twice in one direction: the ring crosses itself
    rim = set(map(tuple, edges[_rim(triangles, n)].tolist()))
    ring = {(i, (i + 1) % n) for i in range(n)}
    following: dict[int, list[int]] = {}
    for start, end in [*(ring - rim), *((b, a) for a, b in rim - ring)]:
        following.setdefault(start, []).append(end)
    pieces = [triangles]
    for start in list(following):
        while following[start]:
            path = [start]
            while True:
                path.append(following[path[-1]].pop())
                if path[-1] in path[:-1]:  # a loop is closed: fill it, and go on from where it began
                    first = path.index(path[-1])
                    loop, path = np.array(path[first:-1]), path[: first + 1]
                    fans = [fan_triangles(np.roll(loop, -k)) for k in range(min(len(loop), 64))]
                    pieces.append(min(fans, key=lambda fan: float(np.abs(_areas(flat, fan)).sum())))
                if len(path) == 1 and not following[start]:
                    break
    return np.concatenate(pieces)


def _flatten(ring: Floats) -> Floats:
    """A polygon (n, 3) in its plane's two largest directions (n, 2), counter-clockwise, of a size about 1."""
    shifted = ring - ring[0]
    shifted = shifted / (np.abs(shifted).max() or 1.0)  # so that no product under- or overflows
    normal = np.cross(shifted, np.roll(shifted, -1, axis=0)).sum(axis=0)
    axis = int(np.abs(normal).argmax())
    flat: Floats = np.ascontiguousarray(shifted[:, [(axis + 1) % 3, (axis + 2) % 3]] * [np.sign(normal[axis]), 1.0])
    return flat


def clip_ears(ring: Floats) -> list[tuple[int, int, int]]:
    """Triangles of one nearly flat polygon (n, 3), as places in its ring; n - 2 of them whatever the ring: cubic."""
    flat = _flatten(ring)

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
