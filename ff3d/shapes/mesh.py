"""Meshes: load, inspect, save; and UnitCube, the transform input coordinates <-> unit cube."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ff3d.formats import READERS
from ff3d.formats.polygons import Polygons, clean_polygons
from ff3d.formats.text import MeshError, reading
from ff3d.geometry.arrays import Ints
from ff3d.geometry.triangles import components, merge_exactly
from ff3d.shapes.sources import find_mesh

if TYPE_CHECKING:
    import trimesh


def load_mesh(path: str | Path) -> trimesh.Trimesh:
    """Load the mesh `find_mesh(path)`: OBJ, PLY, STL, OFF, GLB or glTF, by its ending.

    docs/formats.md has the dialects of each. Returns a Trimesh with float64 vertices as the file holds them, in the
    file's order, and nothing but vertices and faces. Vertices that no face uses are dropped: a stray point would wreck
    the unit cube. Faces of fewer than three corners are dropped too, with a logged line. The loose triangles of an STL
    are joined where their corners coincide exactly. Quads and polygons, concave too, are triangulated. A scene's parts
    are placed by their node transforms (in float64) and joined. Flat and open meshes are loaded; `inspect_mesh`
    reports them.
    Raises MeshError if the file is missing, of an unknown ending, damaged or cut short; if it has no faces, a face
    past its vertices, a non-finite vertex, or all vertices in one point.
    """
    file = find_mesh(path)
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
    bounds: tuple[tuple[float, ...], tuple[float, ...]]  # lowest and highest corner of the box, input units
    extents: tuple[float, ...]  # sides of the box, input units

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
            (self.degenerate_faces, f"{self.degenerate_faces} face(s) without area: harmless"),
            (
                self.duplicate_faces,
                f"{self.duplicate_faces} duplicate face(s): for labels each counts once",
            ),
            (
                self.volume < 0 and not self.flat,
                "inside out (negative volume): every label would come out outside, so ff3d turns it right side out",
            ),
        ]
        return [line for fault, line in faults if fault]

    def __str__(self) -> str:
        box = " x ".join(f"{side:.6g}" for side in self.extents)
        low, high = ("(" + ", ".join(f"{x:.6g}" for x in corner) + ")" for corner in self.bounds)
        lines = [
            f"{self.faces:,} faces, {self.vertices:,} vertices, {self.parts:,} part{'s' * (self.parts != 1)}",
            f"box     {box}, from {low} to {high}",
            f"volume  {self.volume:.6g}{'' if self.closed else ' (not closed: a guess)'}",
            f"closed  {'yes' if self.closed else 'no'}",
            *(f"- {line}" for line in self.advice() or ["no faults found"]),
        ]
        return "\n".join(lines)


def inspect_mesh(mesh: trimesh.Trimesh) -> MeshReport:
    """Count a mesh's faults; the mesh is left as it is.

    Vertices are joined only where they coincide exactly (trimesh joins within 1e-8 units, which ruins tiny meshes).
    Faces that then have under three distinct vertices are degenerate and take no part in edges, parts and closure.
    Raises MeshError if the mesh has no faces.
    """
    vertices, faces = np.asarray(mesh.vertices, dtype=np.float64), np.asarray(mesh.faces, dtype=np.int64)
    if not len(faces):
        raise MeshError(f"a mesh without faces cannot be inspected: {len(vertices)} points; ff3d needs faces")
    low, high = vertices.min(axis=0), vertices.max(axis=0)
    size = float((high - low).max()) or 1.0
    local = (vertices - (low + (high - low) / 2)) / size  # so that no square under- or overflows
    a, b, c = np.moveaxis(local[faces], 1, 0)
    normals = np.cross(b - a, c - a)  # twice the area long
    longest = np.sqrt(np.max([((p - q) ** 2).sum(axis=1) for p, q in ((a, b), (b, c), (c, a))], axis=0))
    # the height over the longest side, against the rounding of the coordinates themselves
    rounding = 8 * np.finfo(np.float64).eps * np.abs(vertices / size).max(axis=1)[faces].max(axis=1)
    degenerate = np.linalg.norm(normals, axis=1) <= rounding * longest
    spread = np.linalg.eigvalsh(np.cov(local.T))

    joined = merge_exactly(vertices)[1][faces]
    solid = joined[(joined != np.roll(joined, 1, axis=1)).all(axis=1)]
    corners = np.sort(solid, axis=1)
    pairs = corners[:, 0] * len(vertices) + corners[:, 1]
    order = np.lexsort((corners[:, 2], pairs))
    duplicates = (np.diff(pairs[order]) == 0) & (np.diff(corners[order, 2]) == 0)
    edges = _count_edges(solid, len(vertices))
    return MeshReport(
        vertices=len(vertices),
        faces=len(faces),
        **edges,
        closed=bool(len(solid)) and not edges["boundary_edges"] and not edges["nonmanifold_edges"],
        degenerate_faces=int(degenerate.sum()),
        duplicate_faces=int(duplicates.sum()),
        volume=float(np.einsum("ij,ij->", a, np.cross(b, c)) / 6) * size**3,
        flat=bool(spread[0] <= 1e-14 * spread[2]),
        bounds=(tuple(low.tolist()), tuple(high.tolist())),
        extents=tuple((high - low).tolist()),
    )


def _count_edges(faces: Ints, num_vertices: int) -> dict[str, int]:
    """The counts of a MeshReport that come from edges; faces (f, 3) have three distinct vertices each."""
    start, end = faces.reshape(-1), np.roll(faces, -1, axis=1).reshape(-1)
    keys = np.minimum(start, end) * num_vertices + np.maximum(start, end)
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    same = np.diff(keys) == 0
    edge = np.concatenate([[0], np.cumsum(~same)])[: len(keys)]
    count = np.bincount(edge)
    balance = np.bincount(edge, weights=np.where(start < end, 1, -1)[order])
    boundary = keys[count[edge] == 1]
    owner = order // 3
    rim, ends = np.unique([boundary // num_vertices, boundary % num_vertices], return_inverse=True)
    loop = ends.reshape(2, -1)
    return {
        "parts": int(components(owner[:-1][same], owner[1:][same], len(faces)).max(initial=-1)) + 1,
        "holes": int(components(loop[0], loop[1], len(rim)).max(initial=-1)) + 1,
        "boundary_edges": len(boundary),
        "flipped_edges": int(((count == 2) & (balance != 0)).sum()),
        "nonmanifold_edges": int((count > 2).sum()),
    }
