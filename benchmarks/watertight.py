#!/usr/bin/env python3
"""Closing broken meshes of which the solid is known, by ff3d and by others, and the time that scans take.

    benchmarks/watertight.py [--cases 20] [--first 0] [--resolution 256] [--methods ff3d sharp pcu alphawrap tetwild]
                             [--seconds 120] [--meshes armadillo ...] [--out results.jsonl]

Cases are `ff3d.shapes.broken.broken_mesh(seed)` that enclose something. A method runs in a process of its own: seconds
without imports, peak memory above that of the imports, and a time-out. Its result is closed if every edge has two
faces that run along it in opposite directions and it has a positive volume. IoU: of the result's labels (its exact
winding number) with the true solid, over 20,000 points in the box grown by 2%; those nearer to the input than its own
error against the solid are left out. Distance: the largest from 20,000 points on the result to the input's surface and
back, in per cent of the longest side; walls hidden in the input count.
Methods: ff3d; sharp (ff3d --sharp); pcu (point-cloud-utils, Manifold of Huang et al. 2018, 50,000 leaves); alphawrap
(PyMeshLab, alpha .5%, offset .05%); tetwild (pytetwild, fTetWild). Those that are not installed are left out and named.
With --meshes, those files are closed in place of the cases; they have no known solid, and so no IoU.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import multiprocessing
import resource
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from ff3d.closing.files import is_closed
from ff3d.geometry.coordinates import grown_box
from ff3d.geometry.distances import NearestFaces
from ff3d.geometry.sampling import sample_surface, sample_uniform
from ff3d.geometry.triangles import signed_volume

Arrays = tuple[Any, Any]
POINTS, MARGIN = 20_000, 0.02


def ff3d(vertices: Any, faces: Any, resolution: int, *, sharp: bool = False) -> Arrays:
    """ff3d.watertight."""
    import trimesh

    from ff3d.closing.watertight import watertight

    closed = watertight(trimesh.Trimesh(vertices, faces, process=False), resolution=resolution, sharp=sharp)
    return closed.vertices, closed.faces


def pcu(vertices: Any, faces: Any, resolution: int) -> Arrays:
    """Manifold, by point-cloud-utils."""
    import point_cloud_utils

    made: Arrays = point_cloud_utils.make_mesh_watertight(vertices, faces.astype(np.int32), 50_000)
    return made


def alphawrap(vertices: Any, faces: Any, resolution: int) -> Arrays:
    """CGAL's alpha wrap, by PyMeshLab."""
    import pymeshlab

    meshes = pymeshlab.MeshSet()
    meshes.add_mesh(pymeshlab.Mesh(vertices, faces))
    meshes.generate_alpha_wrap(alpha=pymeshlab.PercentageValue(0.5), offset=pymeshlab.PercentageValue(0.05))
    made = meshes.current_mesh()
    return made.vertex_matrix(), made.face_matrix()


def tetwild(vertices: Any, faces: Any, resolution: int) -> Arrays:
    """The boundary of fTetWild's tetrahedra."""
    import igl
    import pytetwild

    corners, cells = pytetwild.tetrahedralize(vertices, faces.astype(np.int32))
    made = igl.boundary_facets(np.asarray(cells, dtype=np.int64))
    return corners, made[0] if isinstance(made, tuple) else made


METHODS: dict[str, tuple[str, Callable[..., Arrays]]] = {
    "ff3d": ("ff3d", ff3d),
    "sharp": ("ff3d", lambda *mesh: ff3d(*mesh, sharp=True)),
    "pcu": ("point_cloud_utils", pcu),
    "alphawrap": ("pymeshlab", alphawrap),
    "tetwild": ("pytetwild", tetwild),
}


def child(connection: Connection, method: str, vertices: Any, faces: Any, resolution: int) -> None:
    """Close one mesh and send the result, the seconds, and the memory in bytes."""
    for name in ("igl", "scipy.ndimage", "skimage.measure", "trimesh", METHODS[method][0]):
        importlib.import_module(name)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begun = time.perf_counter()
    try:
        made = METHODS[method][1](vertices, faces, resolution)
    except Exception as error:
        connection.send(f"{type(error).__name__}: {error}".splitlines()[0])
        return
    took = time.perf_counter() - begun
    connection.send((*made, took, 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)))


def run(method: str, mesh: Any, resolution: int, seconds: float) -> Any:
    """What `child` sends, or why there is nothing."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe(duplex=False)
    faces = np.asarray(mesh.faces, dtype=np.int64)
    process = context.Process(target=child, args=(there, method, np.asarray(mesh.vertices), faces, resolution))
    process.start()
    there.close()
    try:
        return here.recv() if here.poll(seconds) else f"over {seconds:g} s"
    except EOFError:
        return f"the process ended with code {process.exitcode}"
    finally:
        process.kill()
        process.join()


def measure(made: Any, mesh: Any, solid: Any, error: float) -> dict[str, Any]:
    """The row of one result."""
    if isinstance(made, str):
        return {"failure": made}
    import trimesh

    from ff3d.labels.winding_number import WindingNumberOracle

    vertices, faces, took, memory = made
    closed = trimesh.Trimesh(np.asarray(vertices, dtype=np.float64), np.asarray(faces), process=False)
    row = {"seconds": took, "bytes": memory, "faces": len(closed.faces), "closed": is_closed(closed)}
    row["volume"] = signed_volume(closed)
    size, rng = float(np.ptp(mesh.vertices, axis=0).max()), np.random.default_rng(0)
    for name, one, other in (("to_result", mesh, closed), ("to_input", closed, mesh)):
        points = sample_surface(one, POINTS, rng, weight="even")[0]
        row[name] = 100 * float(NearestFaces(other)(points)[0].max()) / size
    if solid is not None:
        points = sample_uniform(grown_box(mesh, MARGIN * size), POINTS, rng)
        points = points[NearestFaces(mesh)(points)[0] > error]
        inside, true = WindingNumberOracle(closed)(points), solid(points)
        row["iou"] = float((inside & true).sum() / max((inside | true).sum(), 1))
    return row


def main() -> None:
    """Close them all, print a line each and a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=20)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--resolution", type=int, default=256)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--meshes", nargs="*", default=[])
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    missing = [name for name in options.methods if importlib.util.find_spec(METHODS[name][0]) is None]
    print(f"not installed: {', '.join(missing) or 'none'}")
    methods = [name for name in options.methods if name not in missing]
    rows: list[dict[str, Any]] = []
    for name, mesh, solid, error in cases(options):
        for method in methods:
            made = run(method, mesh, options.resolution, options.seconds)
            row = {"case": name, "method": method} | measure(made, mesh, solid, error)
            rows.append(row)
            print(json.dumps(row), flush=True)
            if options.out:
                with options.out.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row) + "\n")
    print("\n| method | closed | IoU >= .995 | mean IoU | seconds, median | longest | memory, most | failed |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|")
    for method in methods:
        own = [row for row in rows if row["method"] == method]
        good = [row for row in own if "failure" not in row]
        ious = [row.get("iou", np.nan) for row in good] or [np.nan]
        seconds = [row["seconds"] for row in good] or [np.nan]
        mean = np.nan if np.isnan(ious).all() else np.nanmean(ious)
        memory = max((row["bytes"] for row in good), default=0) / 1e6
        print(
            f"| {method} | {sum(row['closed'] for row in good)} of {len(own)} | {np.sum(np.array(ious) >= 0.995)} | "
            f"{mean:.4f} | {np.median(seconds):.1f} | {max(seconds):.1f} | {memory:.0f} MB | {len(own) - len(good)} |"
        )


def cases(options: argparse.Namespace) -> Any:
    """name, mesh, the solid's labels or None, and how far the mesh may lie from the solid."""
    if options.meshes:
        from ff3d.shapes.mesh import load_mesh

        for name in options.meshes:
            yield Path(name).stem, load_mesh(name), None, 0.0
        return
    from ff3d.shapes.broken import broken_mesh

    for seed in range(options.first, options.first + options.cases):
        case = broken_mesh(seed)
        if case.enclosing:
            yield case.name, case.mesh, case.contains, case.surface_error


if __name__ == "__main__":
    main()
