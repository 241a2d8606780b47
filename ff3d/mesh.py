"""Meshes: load, inspect, save; and UnitCube, the transform input coordinates <-> unit cube."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from ff3d.files import write_whole
from ff3d.formats import READERS, WRITERS, Floats, Ints, MeshError, clean_polygons, merge_exactly, reading

if TYPE_CHECKING:
    import trimesh


@dataclass(frozen=True)
class UnitCube:
    """The transform between input coordinates and the unit cube [0, 1]^3.

    center: the input point that lands at (0.5, 0.5, 0.5).  scale: the side of the cube in input units, > 0.
    Raises ValueError unless all four numbers are finite and scale > 0.
    """

    center: tuple[float, float, float]
    scale: float

    def __post_init__(self) -> None:
        center, scale = tuple(float(x) for x in self.center), float(self.scale)
        if len(center) != 3 or not all(math.isfinite(x) for x in center):
            raise ValueError(f"center must be 3 finite numbers, got {self.center}")
        if not (math.isfinite(scale) and scale > 0):
            raise ValueError(f"scale must be a finite number of input units above 0, got {self.scale}")
        object.__setattr__(self, "center", center)
        object.__setattr__(self, "scale", scale)

    @classmethod
    def paper(cls, vertices: ArrayLike) -> UnitCube:
        """The cube of Tancik et al. 2020 (arXiv:2006.10739), section E.2.

        vertices (v, 3) minus their mean, over their largest absolute coordinate: [-1, 1]^3, mapped to [0, 1]^3.
        Raises ValueError if there are none, if one is not finite, or if all lie in one point.
        """
        points = _box_points(vertices)
        # relative to one vertex: sums of coordinates far from the origin would lose digits
        mean = points[:1].sum(axis=0) + (points - points[:1]).sum(axis=0) / len(points)
        return cls(tuple(mean.tolist()), 2 * float(np.abs(points - mean).max()))

    @classmethod
    def padded(cls, vertices: ArrayLike, padding: float = 0.05) -> UnitCube:
        """The cube about the bounding box of vertices (v, 3), whose longest side takes 1 - 2 padding of it.

        Raises ValueError if there are no vertices, if one is not finite, if all lie in one point, or if padding
        is not in [0, 0.5).
        """
        points = _box_points(vertices)
        if not 0 <= padding < 0.5:
            raise ValueError(f"padding must be in [0, 0.5), a fraction of the cube's side, got {padding}")
        low, high = points.min(axis=0), points.max(axis=0)
        return cls(tuple((low + (high - low) / 2).tolist()), float((high - low).max()) / (1 - 2 * padding))

    def to_unit(self, points: ArrayLike) -> Floats:
        """points (n, 3), input coordinates -> (n, 3) float64, unit coordinates. Raises ValueError by shape."""
        unit: Floats = (_points(points) - self.center) / self.scale + 0.5
        return unit

    def from_unit(self, points: ArrayLike) -> Floats:
        """points (n, 3), unit coordinates -> (n, 3) float64, input coordinates. Raises ValueError by shape."""
        placed: Floats = (_points(points) - 0.5) * self.scale + self.center
        return placed

    def to_json(self) -> dict[str, Any]:
        """Plain JSON, exact: `from_json` gives the same cube back, bit for bit."""
        return {"center": list(self.center), "scale": self.scale}

    @classmethod
    def from_json(cls, data: object) -> UnitCube:
        """Read what `to_json` wrote; ValueError for missing or extra keys and for anything but finite numbers."""
        if not isinstance(data, dict) or set(data) != {"center", "scale"}:
            raise ValueError(f'a unit cube is {{"center": [x, y, z], "scale": s}}, got {str(data)[:200]}')
        center, scale = data["center"], data["scale"]
        if not isinstance(center, list | tuple) or any(type(x) not in (int, float) for x in (*center, scale)):
            raise ValueError(f"center must be 3 numbers and scale a number, got {str(data)[:200]}")
        return cls(tuple(center), scale)


def check_points(points: ArrayLike) -> Floats:
    """points as float64 (n, 3); ValueError if the shape is another or a coordinate is not finite."""
    array = np.asarray(points, dtype=np.float64)
    if array.ndim != 2 or array.shape[1] != 3:
        hint = "; transpose them?" if array.ndim == 2 and array.shape[0] == 3 else ""
        raise ValueError(f"points must have shape (n, 3), got {array.shape}{hint}")
    if not np.isfinite(array).all():
        raise ValueError(f"points must be finite, got {int((~np.isfinite(array)).any(axis=1).sum())} that are not")
    return array


def _box_points(vertices: ArrayLike) -> Floats:
    """vertices as float64 (v, 3), v > 0; ValueError if there are none or one is not finite."""
    points = _points(vertices)
    if not len(points) or not np.isfinite(points).all():
        raise ValueError(f"vertices must be finite and at least one, got {len(points)}")
    return points


def _points(points: ArrayLike) -> Floats:
    """points as float64 (n, 3); ValueError for any other shape."""
    array = np.asarray(points, dtype=np.float64)
    if array.ndim != 2 or array.shape[1] != 3:
        raise ValueError(f"points must have shape (n, 3), got {array.shape}")
    return array


# ---------------------------------------------------------------------------------------------- load


def find_mesh(name: str | Path) -> Path:
    """The mesh file meant by `name`: a path that exists, or a file of the meshes folder, its ending optional.

    The meshes folder is ./meshes, then the one beside this package. Raises MeshError if no such file exists.
    """
    path = Path(name).expanduser()
    if path.is_file():
        return path
    folders = [Path("meshes"), Path(__file__).resolve().parent.parent / "meshes"]
    for folder in folders:
        for candidate in [folder / path, *(folder / f"{path}{ending}" for ending in READERS)]:
            if candidate.is_file():
                return candidate
    samples = sorted({f.stem for folder in folders for f in folder.glob("*") if f.suffix.lower() in READERS})
    raise MeshError(
        f"{name}: {'is a folder' if path.is_dir() else 'no such file'}, and no mesh of this name in "
        f"{' or '.join(map(str, folders))}; give a file's path or a sample: {', '.join(samples) or '(there are none)'}"
    )


def load_mesh(path: str | Path) -> trimesh.Trimesh:
    """Load the mesh `find_mesh(path)`: OBJ, PLY, STL, OFF, GLB or glTF, by its ending.

    Returns a Trimesh with float64 vertices as the file holds them, in the file's order, and nothing but vertices
    and faces. Vertices that no face uses are dropped: a stray point would wreck the unit cube. The loose triangles
    of an STL are joined where their corners coincide exactly. Quads and polygons, concave too, are triangulated.
    A scene's parts are placed by their node transforms (in float64) and joined. Flat and open meshes are loaded;
    `inspect_mesh` reports them.
    Raises MeshError if the file is missing, of an unknown ending, damaged or cut short; if it has no faces, a face
    with under 3 corners or past its vertices, a non-finite vertex, or all vertices in one point.
    """
    import trimesh

    file = find_mesh(path)
    ending = file.suffix.lower()
    if ending not in READERS:
        raise MeshError(f"{file}: unknown ending {ending!r}; ff3d reads {', '.join(READERS)}")
    with reading(file):
        vertices, faces = clean_polygons(*READERS[ending](file))
    return trimesh.Trimesh(vertices, faces, process=False)


# ---------------------------------------------------------------------------------------------- save


def check_mesh_ending(path: str | Path) -> None:
    """Raise ValueError unless `save_mesh` can write to a path of this ending: ask before long work, not after."""
    ending = Path(path).suffix
    if ending.lower() not in WRITERS:
        raise ValueError(f"{path}: cannot write {ending!r}; known endings: {', '.join(WRITERS)}")


def save_mesh(mesh: trimesh.Trimesh, path: str | Path) -> None:
    """Write vertices, faces and (but for STL) vertex normals to `path`, by its ending .ply .obj .stl .glb.

    OBJ keeps float64 exactly. PLY keeps float32, or float64 where float32 would lose more than 1e-7 of the extent;
    there GLB holds float32 about the centre and a node transform, and STL, which has float32 only, loses digits:
    a logged warning says how many. Raises ValueError for another ending, no faces, a non-finite vertex, or an STL
    with coordinates past float32.
    """
    path = Path(path)
    check_mesh_ending(path)
    if not len(mesh.faces) or not np.isfinite(mesh.vertices).all():
        raise ValueError(f"{path}: not written, for the mesh has no faces or a vertex that is not finite")
    data = WRITERS[path.suffix.lower()](mesh, path)
    with write_whole(path) as temporary:
        temporary.write_bytes(data)


# ---------------------------------------------------------------------------------------------- inspect


def signed_volume(mesh: trimesh.Trimesh) -> float:
    """The volume of a closed mesh, input units^3, > 0 if its faces look outwards; seen from its box's centre."""
    vertices, faces = np.asarray(mesh.vertices, dtype=np.float64), np.asarray(mesh.faces, dtype=np.int64)
    low, high = vertices.min(axis=0), vertices.max(axis=0)
    middle, total = low + (high - low) / 2, 0.0
    for start in range(0, len(faces), 2**16):  # what fits in the cache
        a, b, c = (vertices[faces[start : start + 2**16, k]] - middle for k in range(3))
        total += float(np.einsum("ij,ij->", a, np.cross(b, c)))
    return total / 6


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


def components(left: Ints, right: Ints, nodes: int) -> Ints:
    """The connected component (nodes,) of each of `nodes` nodes, where links join left[i] to right[i]."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    if not nodes:
        return np.zeros(0, dtype=np.int64)
    links = coo_array((np.ones(len(left), dtype=np.int8), (left, right)), shape=(nodes, nodes))
    labels: Ints = connected_components(links, directed=False)[1].astype(np.int64)
    return labels
