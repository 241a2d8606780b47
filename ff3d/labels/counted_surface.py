"""What of a mesh, or of a point cloud, counts as surface: not faces without area, nor what encloses nothing far away.

Boxes, unit cubes and samples are taken from this, so that one stray facet does not decide how large a shape is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ff3d.geometry.arrays import Bools, Floats, Ints
from ff3d.geometry.coordinates import centered, groups_apart
from ff3d.geometry.triangles import (
    HalfEdges,
    areas,
    by_batches,
    components,
    cross_products,
    has_area,
    loose,
    merge_in_order,
    signed_volumes,
    unit_vectors,
    used_vertices,
)
from ff3d.labels.repair import SETTLED, Winding
from ff3d.labels.winding_number import REFUSED, WindingNumberOracle
from ff3d.shapes.mesh import parts_apart
from ff3d.shapes.point_cloud import FEWEST, PointCloud

if TYPE_CHECKING:
    import trimesh

SAMPLES = 32  # faces of a part that are queried
NAMED = 5  # of what is left out: how many are named one by one
ROUNDS = 64  # of sheets at the edge of the box
LIFT = 2e-5  # sides of the unit cube: how far from a face its two sides are queried
CLOSEST = 1e-6  # the same for the exact sum: closer to a face as long as the cube it lacks digits of the solid angle
FEW = 0.125  # the share of the points about a sheet that may lie next to something else
SLIVER = 0.01  # the area of faces, over the square of their box's longest side, under which they are thin
STRAY, MAIN = 0.5, 0.9  # of a cloud: sizes of its main part; the share of the points that are in that


def without_strays(mesh: trimesh.Trimesh) -> tuple[trimesh.Trimesh, tuple[str, ...]]:
    """The mesh without what lies far from the rest and encloses nothing, and a line for each part left out.

    Each part that is further from every other than it is large is judged alone, as a whole mesh is: an open sheet, a
    face without area or a single triangle encloses nothing. A far part that is closed stays.
    Where nothing would be left, or nothing is to be left out, the mesh is returned as it came.
    """
    notes: list[str] = []
    for _ in range(ROUNDS):  # within the rest there may be another one, too near to be seen at first
        kept, lines = np.ones(len(mesh.faces), dtype=bool), []
        for part in parts_apart(mesh):
            if not _encloses(mesh, part.faces):
                kept[part.faces] = False
                lines.append(f"{part}, which enclose nothing: left out of labels and box")
        if not lines or not kept.any():
            break
        mesh, notes = submesh(mesh, kept), notes + lines
    return mesh, abridged(notes)


def abridged(notes: Sequence[str]) -> tuple[str, ...]:
    """The first lines about what was left out, and one for all the others."""
    more = f"{len(notes) - NAMED} more parts that enclose nothing: left out of labels and box"
    return (*notes[:NAMED], *([more] if len(notes) > NAMED else []))


def cloud_without_strays(cloud: PointCloud) -> tuple[PointCloud, tuple[str, ...]]:
    """The cloud without points far from all others, and a line that says which.

    A few points (fewer than make a surface) are left out where nearly all the others lie together, half a size of
    those or more away.
    """
    points = cloud.points
    group = groups_apart(points, np.arange(len(points))[:, None])
    sizes = np.bincount(group)
    main = group == sizes.argmax()
    low, high = points[main].min(axis=0), points[main].max(axis=0)
    away = np.linalg.norm(np.maximum(np.maximum(low - points, points - high), 0), axis=1)
    stray = (sizes[group] < FEWEST) & (away >= STRAY * (high - low).max())
    if not stray.any() or main.sum() < MAIN * len(points):
        return cloud, ()
    place = ", ".join(f"{x:.5g}" for x in points[away.argmax()])
    reach = f"up to {away.max():.4g} from the others, at ({place})"
    note = f"{stray.sum()} point(s), {reach}: left out of labels and box"
    normals = None if cloud.normals is None else cloud.normals[~stray]
    kept, others = cloud_without_strays(PointCloud(points[~stray], normals))
    return kept, (note, *others)


def without_sheets(mesh: trimesh.Trimesh, oracle: WindingNumberOracle) -> tuple[trimesh.Trimesh, tuple[str, ...]]:
    """The mesh without the sheets that set its box, and a line for each.

    oracle: the mesh's, by winding numbers.  A sheet is a patch that encloses no volume by itself and has the same on
    both sides of all its area, outside, or inside where it runs through a solid: a ground plane under a ball, a sliver
    that reaches far out of one. Only those that lie further out than all the rest along some axis are looked for. If
    nothing would be left, the mesh is returned as it came.
    """
    vertices, faces = np.asarray(mesh.vertices, dtype=np.float64), np.asarray(mesh.faces, dtype=np.int64)
    if oracle.solid:  # as most meshes are: each patch encloses a volume by itself
        return mesh, ()
    area = has_area(vertices, faces)
    if not area.any():
        return mesh, ()
    sheets, notes = _sheets(vertices, faces if area.all() else faces[area], oracle)
    kept = np.ones(len(faces), dtype=bool)
    kept[np.flatnonzero(area)[sheets]] = False
    return submesh(mesh, kept), notes


def with_area(mesh: trimesh.Trimesh) -> trimesh.Trimesh:
    """The faces of a mesh that have area, and the vertices that they use: what points are drawn on, and the box is of.

    A mesh of which that is all, or that has no area, is returned as it came.
    """
    kept = has_area(np.asarray(mesh.vertices, dtype=np.float64), np.asarray(mesh.faces, dtype=np.int64))
    return submesh(mesh, kept) if kept.any() else mesh


def submesh(mesh: trimesh.Trimesh, kept: NDArray[np.bool_]) -> trimesh.Trimesh:
    """Some faces of a mesh, and the vertices that they use; the mesh itself if that is all of it."""
    import trimesh

    faces = np.asarray(mesh.faces, dtype=np.int64)
    faces = faces if kept.all() else faces[kept]
    used = used_vertices(faces, len(mesh.vertices))
    if used.all() and len(faces) == len(mesh.faces):
        return mesh
    number = np.cumsum(used) - 1
    return trimesh.Trimesh(np.asarray(mesh.vertices)[used], number[faces], process=False)


def _encloses(mesh: trimesh.Trimesh, faces: Ints) -> bool:
    """Whether some faces of a mesh enclose a volume by themselves."""
    chosen = np.zeros(len(mesh.faces), dtype=bool)
    chosen[faces] = True
    part = submesh(mesh, chosen)
    vertices, corners = np.asarray(part.vertices, dtype=np.float64), np.asarray(part.faces, dtype=np.int64)
    if np.count_nonzero(has_area(vertices, corners)) <= 2:
        return False
    return _closed(vertices, corners) or WindingNumberOracle(part).unsettled <= REFUSED


def _sheets(vertices: Floats, faces: Ints, oracle: WindingNumberOracle) -> tuple[Ints, tuple[str, ...]]:
    """Which faces of (f, 3) belong to sheets that set the box, and a line for each round in which some were found."""
    kept, patches, paired, notes = np.ones(len(faces), dtype=bool), np.zeros(0, dtype=np.int64), False, []
    counts: dict[int, bool] = {}  # of the patches looked at: whether they are surface

    def is_surface(patch: int) -> bool:
        if patch not in counts:
            rows = np.flatnonzero(patches == patch)
            sample = faces[_spread(rows)]
            whole = faces if len(rows) == len(faces) else faces[rows]
            counts[patch] = _closed(vertices, whole, paired=paired) or not _no_side_differs(
                vertices, sample, oracle, thin=_thin(vertices, whole)
            )
        return counts[patch]

    for _ in range(ROUNDS):
        found: set[int] = set()
        for at in _outermost(vertices, faces, kept):
            if not (_thin(vertices, faces[at]) or _no_side_differs(vertices, faces[_spread(at)], oracle)):
                continue  # the usual case: the rest is looked at in sheets alone
            patches, paired = (patches, paired) if len(patches) else _patches(vertices, faces)
            touching = set(patches[at].tolist())
            if not any(map(is_surface, touching)):
                found |= touching
        gone = kept & np.isin(patches, list(found)) if found else ~kept
        if not found or not (kept & ~gone).any():
            break
        place = ", ".join(f"{x:.5g}" for x in vertices[faces[gone]].mean(axis=(0, 1)))
        notes.append(
            f"{gone.sum()} face(s) of sheets about ({place}), which enclose nothing: left out of labels and box"
        )
        kept &= ~gone
    return np.flatnonzero(~kept), tuple(notes)


def _outermost(vertices: Floats, faces: Ints, kept: NDArray[np.bool_]) -> Iterator[Ints]:
    """For each of the six sides of the box about the faces (f, 3) that are kept, those of them that touch it."""
    used = used_vertices(faces if kept.all() else faces[kept], len(vertices))
    for axis in range(3):
        for edge in (vertices[used, axis].min(), vertices[used, axis].max()):
            yield np.flatnonzero(kept & (used & (vertices[:, axis] == edge))[faces].any(axis=1))


def _spread(rows: Ints) -> Ints:
    """At most `SAMPLES` of the rows, spread evenly over their order."""
    return rows[np.unique(np.linspace(0, len(rows) - 1, min(SAMPLES, len(rows))).astype(np.int64))]


def _no_side_differs(vertices: Floats, faces: Ints, oracle: WindingNumberOracle, *, thin: bool = False) -> bool:
    """Whether faces (f, 3), which have area, have outside on both sides, or inside, wherever that is evaluated.

    That is in the middle of each face, and where there are few of them at other points too: one that reaches out of a
    solid may have its middle inside.  thin: whether the patch of the faces is.
    """
    corners = vertices[faces]
    offsets = corners - corners[:, :1]
    size = np.abs(offsets).max(axis=(1, 2), keepdims=True)
    others = np.random.default_rng(0).dirichlet((1.0, 1.0, 1.0), SAMPLES // len(faces))
    places = np.concatenate([np.full((1, 3), 1 / 3), others])
    points = (corners[:, :1] + np.einsum("pk,fkd->fpd", places, offsets)).reshape(-1, 3)
    normals = np.repeat(unit_vectors(cross_products(offsets / size)), len(places), axis=0)

    def differ(rows: Bools, number: Winding, lift: float) -> Bools:
        step = normals[rows] * (lift * oracle.cube.scale)
        sides = number(np.concatenate([points[rows] + step, points[rows] - step])).reshape(2, -1)
        middle = sides.mean(axis=0)
        # about a sheet in a solid the mean is a whole number; between two sheets a side would be outside
        within = (np.abs(middle - np.rint(middle)) < SETTLED) & (sides.min(axis=0) > SETTLED)
        return ~within & (middle >= SETTLED)

    found = differ(np.ones(len(points), dtype=bool), oracle.winding_number, LIFT)
    # a few may lie next to the surface of what the sheet runs through; and the tree of libigl, which has the digits of
    # float32, may be wrong about all of a sliver
    if found.any() and (thin or found.mean() <= FEW):
        found[found] = differ(found.copy(), oracle.exact_winding_number, CLOSEST)
    return not found.any()


def _thin(vertices: Floats, faces: Ints) -> bool:
    """Whether faces (f, 3) together have hardly any area for how long they are."""
    corners = centered(vertices[faces].reshape(-1, 3)).reshape(-1, 3, 3)
    return float(areas(corners).sum()) < SLIVER


def _patches(vertices: Floats, faces: Ints) -> tuple[Ints, bool]:
    """The patch (f,) of each face: faces joined by edges that two of them share; and whether all edges are such."""
    edges = _half_edges(vertices, faces)
    paired = edges.count == 2
    left, right = edges.neighbours
    if not paired.all():
        two = paired[edges.edge[1:][edges.edge[1:] == edges.edge[:-1]]]
        left, right = left[two], right[two]
    return components(left, right, len(faces)), bool(paired.all())


def _closed(vertices: Floats, faces: Ints, *, paired: bool = False) -> bool:
    """Whether faces close a volume by themselves: two at each edge, and not all in one plane or twice the same.

    paired: whether two at each edge is known.
    """
    if not paired and not (_half_edges(vertices, faces).count == 2).all():
        return False
    first = vertices[faces[0, 0]]
    size = np.abs(vertices[used_vertices(faces, len(vertices))] - first).max()
    volumes = by_batches(lambda corners: signed_volumes(*loose((corners - first) / size)), vertices, faces)
    return bool(6 * abs(volumes.sum()) > 1e-12)


def _half_edges(vertices: Floats, faces: Ints) -> HalfEdges:
    """The half-edges of faces (f, 3); corners that coincide exactly are one vertex."""
    used = used_vertices(faces, len(vertices))
    joined = np.zeros(len(vertices), dtype=np.int32)
    joined[used] = merge_in_order(vertices[used])[1]
    return HalfEdges.of(joined[faces], int(np.count_nonzero(used)))
