"""Which parts of a mesh enclose something, and which are sheets: decided part by part."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ff3d.geometry.arrays import Bools, Floats, Ints
from ff3d.geometry.coordinates import UnitCube
from ff3d.geometry.triangles import HalfEdges, components, cross_products, have_three_corners, merge_exactly
from ff3d.labels.repair import SETTLED, fast_winding_number, mid_numbers
from ff3d.labels.winding_number import REFUSED, WindingNumberOracle

if TYPE_CHECKING:
    import trimesh

SAMPLES = 32  # faces of a part whose two sides are queried
FEWEST = 3  # faces that can enclose something
EXACT = 2000  # faces of a part up to which winding numbers are summed face by face
ROUNDS = 4  # of parts that enclose something only with others
SLIM = 1e-9  # units: the thickness of the box about a closed part that is flat


def split_sheets(mesh: trimesh.Trimesh) -> tuple[trimesh.Trimesh | None, trimesh.Trimesh | None]:
    """The parts that enclose something, and the sheets: two meshes, None where there is nothing.

    A part is what edges of two faces connect. Faces on the same three vertices count once: a sheet with two sides is
    one. A part encloses something if it is closed; or if by its own winding number its sides are distinguished on most
    of its area (a scan with holes); or if that is so together with the other open parts (a surface in pieces).
    """
    vertices, faces = np.asarray(mesh.vertices, dtype=np.float64), np.asarray(mesh.faces, dtype=np.int64)
    first, kind = merge_exactly(vertices)
    faces = kind[faces]
    faces = faces[have_three_corners(faces)]
    faces = faces[np.sort(np.unique(np.sort(faces, axis=1), axis=0, return_index=True)[1])]
    vertices = vertices[first]
    if not len(faces):
        return None, None
    unit = UnitCube.padded(vertices[np.unique(faces)]).to_unit(vertices)
    part, closed = _parts(unit, faces)
    solid = closed.copy()
    order = np.argsort(part, kind="stable")
    for number, rows in enumerate(np.split(order, np.cumsum(np.bincount(part))[:-1])):
        if not closed[number] and len(rows) >= FEWEST:
            solid[number] = _encloses(unit, faces[rows])
    rest = ~solid
    for _ in range(ROUNDS):
        found = _enclose_together(unit, faces, part, rest)
        if (found == rest).all():
            break
        rest = found
    inside = (solid | rest)[part]
    return _submesh(vertices, faces[inside]), _submesh(vertices, faces[~inside])


def _parts(vertices: Floats, faces: Ints) -> tuple[Ints, Bools]:
    """The part (f,) of each face, connected through edges of two faces, and whether each part is closed.

    Closed: with an even number of its faces at each edge, and not flat.
    """
    edges = HalfEdges.of(faces, len(vertices))
    left, right = edges.neighbours
    two = (edges.count == 2)[edges.edge[:-1][edges.edge[1:] == edges.edge[:-1]]]
    part = components(left[two], right[two], len(faces))
    count = int(part.max()) + 1
    pairs, times = np.unique(edges.edge.astype(np.int64) * count + part[edges.face], return_counts=True)
    odd = np.bincount(pairs % count, times % 2, count)
    low, high = (np.full((count, 3), fill) for fill in (np.inf, -np.inf))
    for k in range(3):
        np.minimum.at(low, part, vertices[faces[:, k]])
        np.maximum.at(high, part, vertices[faces[:, k]])
    return part, (odd == 0) & ((high - low).min(axis=1) > SLIM)


def _spread(vertices: Floats, faces: Ints, count: int) -> Ints:
    """About so many faces, spread evenly over the area in their order."""
    area = np.cumsum(np.linalg.norm(cross_products(vertices[faces]), axis=1))
    if not area[-1] > 0:
        return np.zeros(0, dtype=np.int64)
    return np.minimum(np.searchsorted(area, area[-1] * (np.arange(count) + 0.5) / count), len(faces) - 1)


def _encloses(vertices: Floats, faces: Ints) -> bool:
    """Whether its own winding number distinguishes the sides of a part, unit coordinates, on most of its area."""
    import igl

    chosen = _spread(vertices, faces, SAMPLES)
    if not len(chosen):
        return False
    used, local = np.unique(faces, return_inverse=True)
    points, corners = vertices[used], local.reshape(-1, 3).astype(np.int64)
    turned = np.ascontiguousarray(igl.bfs_orient(corners)[0], dtype=np.int64)
    if len(faces) <= EXACT:

        def winding_number(places: Floats) -> Floats:
            numbers: Floats = igl.winding_number(points, turned, places)
            return numbers

    else:
        tree = fast_winding_number(points, turned)

        def winding_number(places: Floats) -> Floats:
            return tree(places, 2.0)

    middle = np.abs(mid_numbers(winding_number, points, turned[chosen]))
    return bool((middle < SETTLED).mean() <= REFUSED)


def _enclose_together(vertices: Floats, faces: Ints, part: Ints, chosen: Bools) -> Bools:
    """Which of the chosen parts have their sides distinguished by the winding number of all of them together."""
    import trimesh

    found = np.zeros_like(chosen)
    rows = np.flatnonzero(chosen[part])
    if not len(rows):
        return found
    oracle = WindingNumberOracle(trimesh.Trimesh(vertices, faces[rows], process=False))
    # evenly over all of the area, and a face of each part
    picked = rows[_spread(vertices, faces[rows], SAMPLES * 64)]
    picked = np.concatenate([picked, rows[np.unique(part[rows], return_index=True)[1]]])
    told = np.abs(mid_numbers(oracle.winding_number, vertices, faces[picked])) >= SETTLED
    share = np.bincount(part[picked], told, len(chosen)) / np.maximum(
        np.bincount(part[picked], minlength=len(chosen)), 1
    )
    found[chosen] = share[chosen] >= 1 - REFUSED
    return found


def _submesh(vertices: Floats, faces: Ints) -> trimesh.Trimesh | None:
    """The mesh of these faces alone."""
    import trimesh

    used, numbers = np.unique(faces, return_inverse=True)
    return trimesh.Trimesh(vertices[used], numbers.reshape(-1, 3), process=False) if len(faces) else None
