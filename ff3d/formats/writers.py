"""Meshes to files: OBJ, PLY, STL and GLB."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ff3d.files import write_atomically
from ff3d.formats.stl import STL_FACE
from ff3d.geometry.arrays import Floats

if TYPE_CHECKING:
    import trimesh

logger = logging.getLogger(__name__)


def _float32_loss(vertices: Floats) -> float:
    """The largest change of a coordinate by rounding to float32 if it matters (> 1e-7 of the extent), else 0."""
    with np.errstate(over="ignore"):
        loss = float(np.abs(vertices.astype(np.float32) - vertices).max())
    return loss if loss > 1e-7 * np.ptp(vertices, axis=0).max() else 0.0


def _normals(mesh: trimesh.Trimesh) -> Floats:
    """The vertices' normals (v, 3): those that the mesh was given, else the mean of the faces around, by angle."""
    import igl

    if "vertex_normals" in mesh._cache:  # trimesh's own mean takes four times as long
        return np.asarray(mesh.vertex_normals)
    faces = np.ascontiguousarray(mesh.faces, dtype=np.int64)
    by_angle = igl.PER_VERTEX_NORMALS_WEIGHTING_TYPE_ANGLE
    normals: Floats = igl.per_vertex_normals(np.ascontiguousarray(mesh.vertices, dtype=np.float64), faces, by_angle)
    return np.nan_to_num(normals)


def _write_ply(mesh: trimesh.Trimesh, path: Path) -> bytes:
    kind, name = ("<f8", "double") if _float32_loss(mesh.vertices) else ("<f4", "float")
    vertices = np.zeros(len(mesh.vertices), [("position", kind, 3), ("normal", "<f4", 3)])
    vertices["position"], vertices["normal"] = mesh.vertices, _normals(mesh)
    faces = np.zeros(len(mesh.faces), [("corners", "u1"), ("index", "<i4", 3)])
    faces["corners"], faces["index"] = 3, mesh.faces
    head = [f"ply\nformat binary_little_endian 1.0\ncomment ff3d\nelement vertex {len(vertices)}"]
    head += [f"property {name} {axis}" for axis in "xyz"] + [f"property float n{axis}" for axis in "xyz"]
    head += [f"element face {len(faces)}\nproperty list uchar int vertex_indices\nend_header\n"]
    return "\n".join(head).encode() + vertices.tobytes() + faces.tobytes()


def _write_obj(mesh: trimesh.Trimesh, path: Path) -> bytes:
    lines = ["# ff3d", *(f"v {x!r} {y!r} {z!r}" for x, y, z in np.asarray(mesh.vertices, dtype=float).tolist())]
    lines += [f"vn {x:.6g} {y:.6g} {z:.6g}" for x, y, z in _normals(mesh).tolist()]
    lines += [f"f {a}//{a} {b}//{b} {c}//{c}" for a, b, c in (mesh.faces + 1).tolist()]
    return ("\n".join(lines) + "\n").encode()


def _write_stl(mesh: trimesh.Trimesh, path: Path) -> bytes:
    loss = _float32_loss(mesh.vertices)
    if loss == math.inf:
        raise ValueError(f"{path}: STL holds float32, which ends at 3.4e38; write .ply")
    if loss:
        logger.warning("%s: STL holds float32, which moves vertices by up to %.3g units; .ply keeps them", path, loss)
    faces = np.zeros(len(mesh.faces), STL_FACE)
    faces["normal"], faces["corners"] = mesh.face_normals, mesh.vertices[mesh.faces]
    return b"ff3d".ljust(80) + len(faces).to_bytes(4, "little") + faces.tobytes()


def _write_glb(mesh: trimesh.Trimesh, path: Path) -> bytes:
    import trimesh

    vertices, placement = np.asarray(mesh.vertices, dtype=np.float64), np.eye(4)
    if _float32_loss(vertices):
        sides = np.ptp(vertices, axis=0)
        size = sides.max() or 1.0
        placement[:3] = np.column_stack([size * np.eye(3), vertices.min(axis=0) + sides / 2])
        vertices = (vertices - placement[:3, 3]) / size
    scene = trimesh.Scene()
    part = trimesh.Trimesh(vertices, mesh.faces, vertex_normals=_normals(mesh), process=False)
    scene.add_geometry(part, transform=placement)

    def mark(tree: dict[str, Any]) -> None:
        tree["asset"]["generator"] = f"ff3d, {tree['asset'].get('generator', '')}"

    data = scene.export(file_type="glb", include_normals=True, tree_postprocessor=mark)
    assert isinstance(data, bytes)
    return data


WRITERS: dict[str, Callable[[trimesh.Trimesh, Path], bytes]] = {
    ".ply": _write_ply,
    ".obj": _write_obj,
    ".stl": _write_stl,
    ".glb": _write_glb,
}


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
    with write_atomically(path) as temporary:
        temporary.write_bytes(data)
