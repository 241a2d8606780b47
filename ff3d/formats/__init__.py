"""Files of meshes and point clouds: one module for each format, from bytes to arrays.

`ff3d.shapes` says what callers may rely on.

OBJ, PLY, STL and OFF are read here and not by trimesh (5.2 as tried), which says nothing when it drops the missing
faces of a cut file, counts negative OBJ indices from the end of the file and reorders faces by their material.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ff3d.formats.clouds import read_npy, read_npz, read_pcd, read_text
from ff3d.formats.gltf import read_gltf
from ff3d.formats.obj import read_obj, read_obj_points
from ff3d.formats.off import read_off, read_off_points
from ff3d.formats.ply import read_ply, read_ply_points
from ff3d.formats.polygons import Polygons
from ff3d.formats.stl import read_stl
from ff3d.geometry.arrays import Floats

READERS: dict[str, Callable[[Path], Polygons]] = {
    ".obj": read_obj,
    ".ply": read_ply,
    ".stl": read_stl,
    ".off": read_off,
    ".glb": read_gltf,
    ".gltf": read_gltf,
}

POINT_READERS: dict[str, Callable[[Path], tuple[Floats, Floats | None]]] = {
    ".ply": read_ply_points,
    ".obj": read_obj_points,
    ".off": read_off_points,
    ".pcd": read_pcd,
    ".xyz": read_text,
    ".txt": read_text,
    ".pts": read_text,
    ".asc": read_text,
    ".csv": read_text,
    ".npy": read_npy,
    ".npz": read_npz,
}
