#!/usr/bin/env python3
"""Close one mesh by one method, in a process of its own: what watertight.py starts, also in a Python without ff3d.

    benchmarks/closers.py METHOD IN.npz OUT.npz RESOLUTION SECONDS

IN has `vertices` and `faces`; OUT too, `seconds` of the clock and `processors`, those of all threads, imports left out,
and `bytes`, the peak of the whole process. After so many seconds of the processors, imports included, it is ended.
"""

from __future__ import annotations

import importlib
import re
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Arrays = tuple[Any, Any]
LEAVES, SAMPLES = 50_000, 200_000


def ff3d(vertices: Any, faces: Any, resolution: int, *, sharp: bool = False) -> Arrays:
    """ff3d.watertight."""
    import trimesh

    from ff3d.closing.watertight import watertight

    closed = watertight(trimesh.Trimesh(vertices, faces, process=False), resolution=resolution, sharp=sharp)
    return closed.vertices, closed.faces


def pcu(vertices: Any, faces: Any, _: int) -> Arrays:
    """Manifold of Huang et al. 2018, by point-cloud-utils."""
    import point_cloud_utils

    made: Arrays = point_cloud_utils.make_mesh_watertight(vertices, faces.astype(np.int32), LEAVES)
    return made


def alphawrap(vertices: Any, faces: Any, _: int) -> Arrays:
    """CGAL's alpha wrap, by PyMeshLab."""
    import pymeshlab

    meshes = pymeshlab.MeshSet()
    meshes.add_mesh(pymeshlab.Mesh(vertices, faces))
    meshes.generate_alpha_wrap(alpha=pymeshlab.PercentageValue(0.5), offset=pymeshlab.PercentageValue(0.05))
    made = meshes.current_mesh()
    return made.vertex_matrix(), made.face_matrix()


def tetwild(vertices: Any, faces: Any, _: int) -> Arrays:
    """The boundary of fTetWild's tetrahedra, outward."""
    import igl
    import pytetwild

    corners, cells = pytetwild.tetrahedralize(vertices, faces.astype(np.int32))
    made = igl.boundary_facets(np.asarray(cells, dtype=np.int64))
    boundary = made[0] if isinstance(made, tuple) else made
    tetrahedra = np.asarray(corners)[cells]
    volumes = np.einsum("nd,nd->n", np.cross(*np.moveaxis(tetrahedra[:, 1:3] - tetrahedra[:, :1], 1, 0)),
                        tetrahedra[:, 3] - tetrahedra[:, 0])  # fmt: skip
    return corners, boundary if volumes.sum() > 0 else boundary[:, ::-1]


def open3d(vertices: Any, faces: Any, resolution: int) -> Arrays:
    """Screened Poisson reconstruction of points with normals, in Open3D's octree of about as many cells."""
    o3d: Any = importlib.import_module("open3d")  # by name: it is no dependency
    mesh = o3d.geometry.TriangleMesh(o3d.utility.Vector3dVector(vertices), o3d.utility.Vector3iVector(faces))
    cloud = mesh.sample_points_uniformly(SAMPLES, use_triangle_normal=True)
    depth = round(np.log2(resolution))
    made = o3d.geometry.TriangleMesh.create_from_point_cloud_poisson(cloud, depth=depth)[0]
    return made.vertices, made.triangles


METHODS: dict[str, tuple[str, Callable[..., Arrays]]] = {
    "ff3d": ("ff3d.closing.watertight", ff3d),
    "sharp": ("ff3d.closing.watertight", lambda *mesh: ff3d(*mesh, sharp=True)),
    "pcu": ("point_cloud_utils", pcu),
    "alphawrap": ("pymeshlab", alphawrap),
    "tetwild": ("pytetwild", tetwild),
    "open3d": ("open3d", open3d),
}


def peak_memory() -> int:
    """The most bytes that this process has had resident; getrusage would count the parent's at the fork."""
    return 1024 * int(re.findall(r"VmHWM:\s*(\d+)", Path("/proc/self/status").read_text(encoding="utf-8"))[0])


def main() -> None:
    """Read, import what the method needs, close, write."""
    method, source, out, resolution, limit = sys.argv[1:]
    resource.setrlimit(resource.RLIMIT_CPU, (int(limit), int(limit)))
    module, close = METHODS[method]
    extra = ["scipy.ndimage", "skimage.measure"] if module.startswith("ff3d") else []
    for name in (module, "igl", "trimesh", *extra):
        importlib.import_module(name)
    with np.load(source) as given:
        vertices, faces = given["vertices"], given["faces"]
    begun, used = time.perf_counter(), time.process_time()
    made = close(vertices, faces, int(resolution))
    seconds, processors = time.perf_counter() - begun, time.process_time() - used
    np.savez(out, vertices=np.asarray(made[0], dtype=np.float64), faces=np.asarray(made[1], dtype=np.int64),
             seconds=seconds, processors=processors, bytes=peak_memory())  # fmt: skip


if __name__ == "__main__":
    main()
