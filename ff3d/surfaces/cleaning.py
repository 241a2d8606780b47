"""Cleans a closed mesh and keeps it closed: floaters dropped, fewer faces, smooth normals."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ff3d.geometry.arrays import Floats, Ints
from ff3d.geometry.triangles import (
    HalfEdges,
    components,
    cross_products,
    have_three_corners,
    merge_exactly,
    signed_volumes,
    sums_by_index,
    unit_vectors,
)

if TYPE_CHECKING:
    import trimesh


CHUNK = 2**18  # points evaluated at a time
FLAT = 1e-12  # of the square of a face's longest side: twice its area, below which it is degenerate
AGGRESSIONS = (7, 6, 5)  # of fast-simplification, its usual one first: what one tears, another may leave closed

log = logging.getLogger("ff3d")


class CleaningError(ValueError):
    """A mesh that cannot be cleaned as requested; the message says why, and what to do."""


def drop_floaters(mesh: trimesh.Trimesh, share: float) -> trimesh.Trimesh:
    """The mesh without its parts of less than `share` of the volume; logs what was dropped.

    mesh: closed. Faces that share vertices are one part; a cavity is a part too, of negative volume.
    share: in [0, 1), of the mesh's volume; compared with the absolute volume of each part.
    The largest part is always kept. Vertices keep their order; those of dropped parts are removed.
    Returns the mesh itself if nothing is dropped. Raises ValueError for another share or a mesh without faces.
    """
    import trimesh

    if not 0 <= share < 1:
        raise ValueError(f"share must be in [0, 1), a share of the volume, got {share}; 0.001 is a thousandth")
    vertices, faces = _arrays(mesh)
    part, volumes = _parts(vertices, faces)
    total = abs(float(volumes.sum()))
    kept = np.abs(volumes) >= share * total
    kept[np.abs(volumes).argmax()] = True
    stays = kept[part]
    if stays.all():
        return mesh
    dropped = np.unique(part[~stays])
    percent = 100 * float(np.abs(volumes[dropped]).sum()) / total if total else 0
    log.info("dropped %d floaters of %d faces, %.2g%% of the volume", len(dropped), (~stays).sum(), percent)
    return trimesh.Trimesh(*_compact(vertices, faces[stays]), process=False)


def fill_cavities(mesh: trimesh.Trimesh) -> trimesh.Trimesh:
    """The mesh without its cavities, and without what floats in them; logs how many were filled.

    mesh: closed, outward, without self-intersections, as from `extract_mesh`. A cavity is a part of negative volume, a
    part as in `drop_floaters`. Returns the mesh itself if there are none.
    """
    import trimesh

    vertices, faces = _arrays(mesh)
    part, volumes = _parts(vertices, faces)
    hollow = volumes < 0
    if not hollow.any():
        return mesh
    low, high = (np.full((len(volumes), 3), fill) for fill in (np.inf, -np.inf))
    for k in range(3):
        np.minimum.at(low, part, vertices[faces[:, k]])
        np.maximum.at(high, part, vertices[faces[:, k]])
    gone = hollow.copy()
    for number in np.flatnonzero(~hollow):
        around = hollow & (low <= low[number]).all(axis=1) & (high >= high[number]).all(axis=1)
        if around.any():  # perhaps within that cavity: it winds about a place on the part once, the other way
            rows = faces[around[part]]
            gone[number] = _winding_number(vertices, rows, vertices[faces[part == number][0]].mean(axis=0)) < -0.5
    log.info("filled %d cavities, %.2g%% of the volume", hollow.sum(), 100 * abs(volumes[hollow].sum() / volumes.sum()))
    return trimesh.Trimesh(*_compact(vertices, faces[~gone[part]]), process=False)


def simplify(mesh: trimesh.Trimesh, *, faces: int | None = None, error: float | None = None) -> trimesh.Trimesh:
    """The mesh with fewer faces, still closed.

    mesh: closed, edge-manifold, outward.  Give one of
    faces: about how many to keep, at least 4; no more are returned, unless the topology needs them.
    error: how far the surface may move, in the mesh's units.
    To a count by fast-simplification (quadrics: Garland and Heckbert 1997). If none of its results, at several
    aggressions, is closed, edge-manifold, free of degenerate faces and of positive volume, then by manifold3d, whose
    collapses keep the surface a manifold; to an error always by manifold3d. Returns the mesh itself if it is
    small enough.

    Raises ValueError unless exactly one of the two is given and usable; CleaningError if the mesh is not closed to
    begin with or no valid result is found.
    """
    if (faces is None) == (error is None):
        raise ValueError(f"give either faces or error, got faces={faces}, error={error}")
    if faces is not None and faces < 4:
        raise ValueError(f"faces must be at least 4, those of a tetrahedron, got {faces}")
    if error is not None and not (np.isfinite(error) and error > 0):
        raise ValueError(f"error must be a finite length above 0, got {error}")
    vertices, triangles = _arrays(mesh)
    if fault := _fault(vertices, triangles, degenerate=False):
        raise CleaningError(f"the mesh is not a closed surface: {fault}; repair it first")
    if faces is not None and len(triangles) <= faces:
        return mesh
    # in the unit cube about the origin: both libraries compare lengths with constants
    low, high = vertices.min(axis=0), vertices.max(axis=0)
    middle, size = low + (high - low) / 2, float((high - low).max())
    unit = (vertices - middle) / size
    if error is not None:
        return _restored(*_within(unit, triangles, error / size), middle, size)
    assert faces is not None
    import fast_simplification

    for aggression in AGGRESSIONS:
        found = fast_simplification.simplify(unit, triangles.astype(np.int32), target_count=faces, agg=aggression)
        result = _compact(np.asarray(found[0], dtype=np.float64), np.asarray(found[1], dtype=np.int64))
        if not (fault := _fault(*result)):
            return _restored(*result, middle, size)
    log.info("fast-simplification left %s: manifold3d simplifies instead", fault)
    return _restored(*_to_count(unit, triangles, faces), middle, size)


def smooth_normals(
    mesh: trimesh.Trimesh, logits: Callable[[Floats], NDArray[np.floating]], step: float
) -> NDArray[np.float64]:
    """Unit normals (v, 3) of the mesh's vertices, outward: opposite to the gradient of the logits.

    logits: points (n, 3) -> (n,), > 0 inside.  step: of central differences, in the mesh's units; half a cell does.
    Where the gradient is 0 or not finite, the mean of the faces around, weighted by area; where that is 0 too, +z.
    Raises ValueError for a step that is not a positive length, or logits of another shape.
    """
    if not (np.isfinite(step) and step > 0):
        raise ValueError(f"step must be a finite length above 0, got {step}")
    vertices, faces = _arrays(mesh)
    gradient = np.empty_like(vertices)
    for start in range(0, len(vertices), CHUNK // 6 + 1):
        batch = vertices[start : start + CHUNK // 6 + 1]
        moved = np.concatenate([batch + step * sign * np.eye(3)[axis] for axis in range(3) for sign in (1, -1)])
        values = np.asarray(logits(moved), dtype=np.float64)
        if values.shape != (len(moved),):
            raise ValueError(
                f"logits must return shape ({len(moved)},) for points of shape {moved.shape}, got {values.shape}"
            )
        ahead, behind = values.reshape(3, 2, -1).transpose(1, 2, 0)
        with np.errstate(invalid="ignore", over="ignore"):  # infinite logits: the faces decide
            gradient[start : start + len(batch)] = behind - ahead
    by_area = sums_by_index(faces.reshape(-1), np.repeat(cross_products(vertices[faces]), 3, axis=0), len(vertices))
    normals = np.tile([0.0, 0.0, 1.0], (len(vertices), 1))
    for source in (by_area, gradient):
        usable = np.isfinite(source).all(axis=1) & source.any(axis=1)
        normals[usable] = unit_vectors(source[usable])
    return normals


def _arrays(mesh: trimesh.Trimesh) -> tuple[Floats, Ints]:
    """Vertices and faces; ValueError if there are none."""
    if not len(mesh.faces):
        raise ValueError("the mesh has no faces; extract or load one that has")
    return np.asarray(mesh.vertices, dtype=np.float64), np.asarray(mesh.faces, dtype=np.int64)


def _parts(vertices: Floats, faces: Ints) -> tuple[Ints, Floats]:
    """The part (f,) of each face, connected through vertices, and the signed volume of each part."""
    part = components(faces[:, :2].ravel(), faces[:, 1:].ravel(), len(vertices))[faces[:, 0]]
    part = np.unique(part, return_inverse=True)[1]
    volumes: Floats = np.bincount(part, weights=_volumes(vertices, faces)).astype(np.float64)
    return part, volumes


def _winding_number(vertices: Floats, faces: Ints, point: Floats) -> float:
    """The winding number of faces (f, 3) about one point (3,)."""
    import igl

    return float(igl.winding_number(vertices, faces, point[None])[0])


def _volumes(vertices: Floats, faces: Ints) -> Floats:
    """The signed volume between each face and the middle of the mesh."""
    return signed_volumes(vertices, faces, (vertices.min(axis=0) + vertices.max(axis=0)) / 2)


def _fault(vertices: Floats, faces: Ints, *, degenerate: bool = True) -> str:
    """The first fault of a mesh that should be closed, or "". degenerate: whether flat faces are a fault."""
    return next(_faults(vertices, faces, degenerate), "")


def _faults(vertices: Floats, faces: Ints, degenerate: bool) -> Iterator[str]:
    if not len(faces):
        yield "no faces"
        return
    if not np.isfinite(vertices).all():
        yield "vertices that are not finite"
    if not have_three_corners(faces).all():
        yield "faces with a corner twice"
    edges = HalfEdges.of(faces, len(vertices))
    if edges.balance.any():
        yield "edges that are open, or between faces of opposite winding"
    if (edges.count > 2).any():
        yield "edges of more than two faces"
    if len(merge_exactly(np.sort(faces, axis=1))[0]) < len(faces):
        yield "faces twice"
    if degenerate and len(_flat(vertices, faces)):
        yield "faces without area"
    if not _volumes(vertices, faces).sum() > 0:
        yield "a volume that is not positive"


def _solid(vertices: Floats, faces: Ints) -> Any:
    """The mesh as a manifold3d.Manifold; CleaningError if that library refuses it."""
    import manifold3d

    solid = manifold3d.Manifold(
        manifold3d.Mesh64(np.ascontiguousarray(vertices), np.ascontiguousarray(faces, dtype=np.uint64))
    )
    if solid.status() != manifold3d.Error.NoError or solid.is_empty():
        raise CleaningError(f"manifold3d refuses the mesh ({solid.status()}); simplify it less, or repair it first")
    return solid


def _within(vertices: Floats, faces: Ints, error: float) -> tuple[Floats, Ints]:
    """Simplified by manifold3d within an error; within a smaller one if the result is not valid."""
    solid = _solid(vertices, faces)
    for allowed in error * 0.6 ** np.arange(10):
        result = _simplified(solid, float(allowed))
        if not (fault := _fault(*result)):
            return result
    raise CleaningError(f"simplified within {error:.3g} of its size the mesh has {fault}; allow another error")


def _to_count(vertices: Floats, faces: Ints, count: int) -> tuple[Floats, Ints]:
    """Simplified by manifold3d within the least error that leaves at most `count` faces, to a tenth."""
    solid = _solid(vertices, faces)
    low, high = -7.0, 0.0  # powers of ten of the mesh's size
    best = None
    while high - low > 0.04:
        middle = (low + high) / 2
        result = _simplified(solid, 10**middle)
        if len(result[1]) > count:
            low = middle
        else:
            high = middle
            best = result if not _fault(*result) else best
    if best is None:
        parts = len(_parts(vertices, faces)[1])
        raise CleaningError(
            f"no valid mesh of at most {count} faces is found, of {parts} parts; allow more, or drop floaters first"
        )
    return best


def _simplified(solid: Any, error: float) -> tuple[Floats, Ints]:
    mesh = solid.simplify(error).to_mesh64()
    vertices = np.asarray(mesh.vert_properties, dtype=np.float64)[:, :3]
    return _compact(vertices, _flipped(vertices, np.asarray(mesh.tri_verts).astype(np.int64)))


def _flat(vertices: Floats, faces: Ints) -> Ints:
    """Indices of the faces whose corners lie on one line."""
    sides = vertices[np.roll(faces, -1, axis=1)] - vertices[faces]
    longest = (sides**2).sum(axis=2).max(axis=1)
    return np.flatnonzero(np.linalg.norm(np.cross(sides[:, 0], sides[:, 1]), axis=1) <= FLAT * longest)


def _flipped(vertices: Floats, faces: Ints) -> Ints:
    """Remove flat faces, which manifold3d leaves on planes, by flipping their longest edges; no vertex moves."""
    if not len(flat := _flat(vertices, faces)):
        return faces
    faces = faces.copy()
    owner = {(int(f[k]), int(f[k - 2])): row for row, f in enumerate(faces) for k in range(3)}
    for _ in range(8):  # one flip may leave the next face flat, in a row of them
        for row in flat:
            corners = vertices[faces[row]]
            longest = int(((np.roll(corners, -1, axis=0) - corners) ** 2).sum(axis=1).argmax())
            u, v, w = (int(vertex) for vertex in np.roll(faces[row], -longest))
            other = owner[v, u]
            x = int(faces[other].sum()) - u - v
            if x == w or (w, x) in owner or (x, w) in owner:
                continue
            faces[row], faces[other] = (w, u, x), (w, x, v)
            del owner[u, v], owner[v, u]
            owner |= {(w, u): row, (u, x): row, (x, w): row, (w, x): other, (x, v): other, (v, w): other}
        if not len(flat := _flat(vertices, faces)):
            break
    return faces


def _compact(vertices: Floats, faces: Ints) -> tuple[Floats, Ints]:
    """The mesh without the vertices that no face uses."""
    used, numbers = np.unique(faces, return_inverse=True)
    return vertices[used], numbers.reshape(-1, 3).astype(np.int64)


def _restored(vertices: Floats, faces: Ints, middle: Floats, size: float) -> trimesh.Trimesh:
    """The mesh of the unit cube, moved back to its input coordinates."""
    import trimesh

    return trimesh.Trimesh(vertices * size + middle, faces, process=False)
