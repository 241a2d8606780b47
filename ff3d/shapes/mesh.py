"""Meshes: load, inspect, save; and UnitCube, the transform input coordinates <-> unit cube."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ff3d.formats import READERS
from ff3d.formats.polygons import Polygons, clean_polygons
from ff3d.formats.text import MeshError, reading
from ff3d.geometry.arrays import Bools, Floats, Indices, Ints
from ff3d.geometry.coordinates import box_in_words, groups_apart
from ff3d.geometry.triangles import (
    HalfEdges,
    areas,
    by_batches,
    components,
    has_area,
    have_three_corners,
    loose,
    merge_exactly,
    merge_in_order,
    repeats,
    signed_volumes,
    used_vertices,
)
from ff3d.shapes.sources import find_shape

if TYPE_CHECKING:
    import trimesh


def load_mesh(path: str | Path) -> trimesh.Trimesh:
    """Load the mesh that `find_shape(path)` finds, by a path or by a name ("bunny", "dragon", "thingi10k:32770").

    Formats: OBJ, PLY, STL, OFF, GLB or glTF, by the file's ending.

    docs/formats.md has the dialects of each. Returns a Trimesh with float64 vertices as the file holds them, in the
    file's order, and nothing but vertices and faces. Vertices that no face uses are dropped: a stray point would wreck
    the unit cube. Faces of fewer than three corners are dropped too, with a logged line. The loose triangles of an STL
    are joined where their corners coincide exactly. Quads and polygons, concave too, are triangulated. A scene's parts
    are placed by their node transforms (in float64) and joined. Flat and open meshes are loaded; `inspect_mesh`
    reports them.
    Raises MeshError if the file is missing, of an unknown ending, damaged or cut short; if it has no faces, a face
    past its vertices, a non-finite vertex, or all vertices in one point.
    """
    file = find_shape(path)
    ending = file.suffix.lower()
    if ending not in READERS:
        raise MeshError(f"{file}: unknown ending {ending!r}; ff3d reads {', '.join(READERS)}")
    with reading(file):
        return build_mesh(READERS[ending](file), file)


def build_mesh(polygons: Polygons, file: Path) -> trimesh.Trimesh:
    """The mesh of what a reader found in `file`. Raises MeshError for the faults that `load_mesh` lists."""
    import trimesh

    vertices, faces = clean_polygons(*polygons, file)
    return trimesh.Trimesh(vertices, faces, process=False)


MOST_APART = 1000  # groups of faces, beyond which distances between them are not looked at
NAMED = 5  # far parts that are named one by one


@dataclass(frozen=True)
class FarPart:
    """Faces that are further from all others than they are large."""

    count: int  # faces
    center: tuple[float, ...]  # of their box, input coordinates
    distance: float  # to the others, input units
    share: float  # of the area of the mesh
    faces: Ints = field(compare=False, repr=False)  # which (count,)

    def __str__(self) -> str:
        place = ", ".join(f"{x:.5g}" for x in self.center)
        return f"{self.count} face(s) at ({place}), {self.distance:.4g} from the rest, {self.share:.2g} of the area"


@dataclass(frozen=True)
class MeshReport:
    """What `inspect_mesh` found. Vertices that coincide exactly count as one in all but `vertices`."""

    vertices: int  # as they are in the mesh
    faces: int
    parts: int  # sets of faces connected through shared edges
    closed: bool  # every edge is shared by exactly two faces
    holes: int  # connected loops of boundary edges; holes that touch in a vertex count once
    boundary_edges: int  # of one face
    flipped_edges: int  # of two faces that run along it in the same direction: one of the two is flipped
    nonmanifold_edges: int  # of more than two faces
    degenerate_faces: int  # without area, to the precision of their coordinates
    duplicate_faces: int  # faces beyond the first on the same three vertices, in any order
    volume: float  # input units^3, signed, seen from the centre of the box; a true volume if the mesh is closed
    flat: bool  # in one plane, or on one line, to 1e-7 of its size
    bounds: tuple[tuple[float, ...], tuple[float, ...]]  # lowest and highest corner of the faces with area
    extents: tuple[float, ...]  # sides of that box, input units
    far: tuple[FarPart, ...] = ()  # strays: under 1% of the area, or without volume, that make the box twice as large

    @property
    def inside_out(self) -> bool:
        """Closed, with its faces turned inwards."""
        return self.closed and self.volume < 0

    def advice(self) -> list[str]:
        """One line for each fault: what ff3d makes of it. Empty if the mesh has none."""
        faults = [
            (self.flat, "flat: it encloses no volume, and labels are refused"),
            (
                self.holes,
                f"{self.holes} hole(s), {self.boundary_edges} boundary edges: closed by the winding number that labels "
                "come from; the membrane across a hole may be off by a fraction of the hole's size",
            ),
            (
                self.flipped_edges,
                f"{self.flipped_edges} edge(s) between faces of opposite winding: for labels they are wound alike, as "
                "most of their patch is",
            ),
            (
                self.nonmanifold_edges,
                f"{self.nonmanifold_edges} edge(s) of more than two faces: parts that touch stay solid, and for labels "
                "inner walls are left out where the surface is closed without them",
            ),
            (self.degenerate_faces, f"{self.degenerate_faces} face(s) without area: they count for nothing"),
            (
                self.duplicate_faces,
                f"{self.duplicate_faces} duplicate face(s): for labels each counts once",
            ),
            (
                self.volume < 0 and not self.flat,
                "inside out (negative volume): every label would come out outside, so ff3d turns it right side out",
            ),
        ]
        lines = [line for fault, line in faults if fault] + [f"far away: {part}" for part in self.far[:NAMED]]
        return lines + [f"far away: {len(self.far) - NAMED} more parts"] * (len(self.far) > NAMED)

    def __str__(self) -> str:
        lines = [
            f"{self.faces:,} faces, {self.vertices:,} vertices, {self.parts:,} part{'s' * (self.parts != 1)}",
            f"box     {box_in_words(*self.bounds)}",
            f"volume  {self.volume:.6g}{'' if self.closed else ' (not closed: a guess)'}",
            f"closed  {'yes' if self.closed else 'no'}",
            *(f"- {line}" for line in self.advice() or ["no faults found"]),
        ]
        return "\n".join(lines)


def inspect_mesh(mesh: trimesh.Trimesh) -> MeshReport:
    """Count a mesh's faults; the mesh is left as it is.

    Vertices are joined only where they coincide exactly (trimesh joins within 1e-8 units, which ruins tiny meshes).
    Faces that then have under three distinct vertices are degenerate and take no part in edges, parts and closure; nor
    do other faces without area that are joined to none with area.
    Raises MeshError if the mesh has no faces.
    """
    vertices, faces = np.asarray(mesh.vertices, dtype=np.float64), np.asarray(mesh.faces, dtype=np.int64)
    if not len(faces):
        raise MeshError(f"a mesh without faces cannot be inspected: {len(vertices)} points; ff3d needs faces")
    area = has_area(vertices, faces)
    sized = faces[area] if area.any() and not area.all() else faces
    used = vertices[used_vertices(sized, len(vertices))]
    low, high = used.min(axis=0), used.max(axis=0)
    size = float((high - low).max()) or 1.0
    middle = low + (high - low) / 2
    spread = np.linalg.eigvalsh(np.cov(((used - middle) / size).T))

    def volumes(corners: Floats) -> Floats:  # in units of the size, so that no cube under- or overflows
        return signed_volumes(*loose((corners - middle) / size))

    volume = float(by_batches(volumes, vertices, sized).sum()) * size**3 if area.any() else 0.0
    joined = merge_in_order(vertices)[1].astype(np.int32)[faces]
    proper = have_three_corners(joined)
    return MeshReport(
        vertices=len(vertices),
        faces=len(faces),
        **_count_edges(joined[proper], area[proper], len(vertices)),
        degenerate_faces=int(np.count_nonzero(~area)),
        volume=volume,
        flat=bool(spread[0] <= 1e-14 * spread[2]),
        bounds=(tuple(low.tolist()), tuple(high.tolist())),
        extents=tuple((high - low).tolist()),
        far=_strays(mesh, area),
    )


def parts_apart(mesh: trimesh.Trimesh) -> list[FarPart]:
    """The groups of a mesh's faces each of which is further from every other than it is large itself, nearest first.

    Groups are those of `groups_apart`; distances are between their boxes. With faces of which none is apart, or with
    over `MOST_APART` groups, there are none.
    """
    vertices, faces = np.asarray(mesh.vertices, dtype=np.float64), np.asarray(mesh.faces, dtype=np.int64)
    group = groups_apart(vertices, faces) if len(faces) else np.zeros(0, dtype=np.int64)
    count = int(group.max(initial=-1)) + 1
    if not 1 < count <= MOST_APART:
        return []
    corners = vertices[faces]
    low, high = corners.min(axis=1), corners.max(axis=1)
    order = np.argsort(group, kind="stable")
    begin = np.searchsorted(group[order], np.arange(count))
    low, high = np.minimum.reduceat(low[order], begin), np.maximum.reduceat(high[order], begin)
    gaps = np.maximum(np.maximum(low[:, None] - high, low - high[:, None]), 0)
    between = np.linalg.norm(gaps, axis=2)
    np.fill_diagonal(between, np.inf)
    nearest, size = between.min(axis=1), (high - low).max(axis=1)
    largest = float((high.max(axis=0) - low.min(axis=0)).max())
    area = np.bincount(group, areas((corners - corners[:, :1]) / largest))
    return [
        FarPart(
            count=int(np.count_nonzero(group == number)),
            center=tuple(((low[number] + high[number]) / 2).tolist()),
            distance=float(nearest[number]),
            share=float(area[number] / (area.sum() or 1.0)),
            faces=np.flatnonzero(group == number),
        )
        for number in np.argsort(nearest, kind="stable")
        if nearest[number] > size[number]
    ]


def _strays(mesh: trimesh.Trimesh, area: NDArray[np.bool_]) -> tuple[FarPart, ...]:
    """The parts apart that are a hundredth of the area or less, or one or two faces, if the box doubles by them."""
    parts = [part for part in parts_apart(mesh) if part.share <= 0.01 or np.count_nonzero(area[part.faces]) <= 2]
    rest = np.ones(len(mesh.faces), dtype=bool)
    for part in parts:
        rest[part.faces] = False
    if not parts or not rest.any():
        return ()
    inner = np.asarray(mesh.vertices)[np.unique(np.asarray(mesh.faces)[rest])]
    return tuple(parts) if np.ptp(mesh.vertices, axis=0).max() > 2 * np.ptp(inner, axis=0).max() else ()


def _count_edges(faces: Indices, area: Bools, num_vertices: int) -> dict[str, Any]:
    """What a MeshReport has from edges; faces (f, 3) have three distinct vertices each.  area (f,): whether any."""
    edges = HalfEdges.of(faces, num_vertices)
    part = components(*edges.neighbours, len(faces))
    sound = np.bincount(part, area) > 0
    if sound.any() and not sound.all():  # those without area that are joined to none with area
        return _count_edges(faces[sound[part]], area[sound[part]], num_vertices)
    alone, crowded = edges.count == 1, edges.count > 2
    rim, ends = np.unique(edges.ends[alone], return_inverse=True)
    start, end = ends.reshape(-1, 2).T
    return {
        "parts": len(sound),
        "closed": len(faces) > 0 and not alone.any() and not crowded.any(),
        "holes": int(components(start, end, len(rim)).max(initial=-1)) + 1,
        "boundary_edges": int(np.count_nonzero(alone)),
        "flipped_edges": int(((edges.count == 2) & (edges.balance != 0)).sum()),
        "nonmanifold_edges": int(np.count_nonzero(crowded)),
        "duplicate_faces": len(faces) - len(merge_exactly(np.sort(faces, axis=1))[0]) if repeats(faces) else 0,
    }
