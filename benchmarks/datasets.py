#!/usr/bin/env python3
"""Training sets an hour, by `ff3d prepare` and by the usual recipes of libigl, point-cloud-utils and mesh_to_sdf; and
the same bytes from two workers and from a cluster of which a node is killed.

    benchmarks/datasets.py MESHES... [--peers PYTHON] [--methods ff3d libigl pcu mesh_to_sdf] [--seconds 300]
    benchmarks/datasets.py --same 200 [--points 2000]

For each mesh 200,000 points uniform in a cube and 200,000 near the surface with their signed distances, and 100,000
surface points with normals. Each mesh and method runs in a process of its own, one after the other; the times are from
reading the file to the written .npz, imports left out: of the clock, and of the processors (all threads), which other
work on the machine changes less. An hour's meshes are 3,600 seconds times two processors, by the latter.
wrong: points of 2,000 whose sign is not that of the exact winding number; off: the largest error of their distances,
units (half the longest side), both of those further than 1e-5 from the surface. libigl and point-cloud-utils multiply
distances by 1 - 2 w, w being the approximate winding number.

Peers live in an environment of their own:
    python3 -m venv peers && peers/bin/pip install libigl point-cloud-utils mesh-to-sdf trimesh
    benchmarks/datasets.py MESHES... --peers peers/bin/python
libigl: signed_distance with the fast winding number; pcu: signed_distance_to_mesh; mesh_to_sdf: its scan method, and
where it finds no OpenGL its sample method (11 normals vote). Those that do not run are named.

--same: so many variations of sample meshes, by one process, by two workers, and by a Ray cluster of two nodes on this
machine, one of which is killed: whether all bytes are the same.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

COUNTS = {"volume": 200_000, "near": 200_000, "surface": 100_000}
WIDTHS, REACH = (0.005, 0.02), 1.05


def by_ff3d(path: Path, out: Path) -> None:
    """One mesh by ff3d, in the coordinates of the peers."""
    from ff3d.datasets.config import LAYOUTS, make_sets_config
    from ff3d.datasets.prepare import prepare

    assert LAYOUTS["dora"].reach == REACH
    sets = [f"{name}={count}" for name, count in COUNTS.items()]
    [row] = prepare([path], out, make_sets_config("dora", sets, widths=WIDTHS))
    if "failure" in row:
        raise ValueError(row["failure"])


def by_peer(method: str, path: Path, out: Path) -> None:
    """One mesh by a peer: read, normalised to [-1, 1], sampled, queried, written."""
    import trimesh

    mesh: Any = trimesh.load(path, process=False)
    low, high = mesh.bounds
    mesh.vertices = (mesh.vertices - (low + high) / 2) * (2 / (high - low).max())
    vertices, faces = np.asarray(mesh.vertices, dtype=np.float64), np.asarray(mesh.faces)
    rng = np.random.default_rng(0)
    surface, chosen = mesh.sample(COUNTS["surface"], return_index=True)
    near = mesh.sample(COUNTS["near"])
    near = near + rng.standard_normal(near.shape) * np.resize(WIDTHS, len(near))[:, None]
    queries = np.concatenate([near, rng.uniform(-REACH, REACH, (COUNTS["volume"], 3))])
    if method == "libigl":
        import igl

        kind = igl.SIGNED_DISTANCE_TYPE_FAST_WINDING_NUMBER
        distances = -igl.signed_distance(queries, vertices, faces, sign_type=kind)[0]
    elif method == "pcu":
        import point_cloud_utils

        distances = -point_cloud_utils.signed_distance_to_mesh(queries, vertices, faces)[0]
    else:
        import mesh_to_sdf

        try:
            distances = -mesh_to_sdf.mesh_to_sdf(mesh, queries)
        except Exception as error:  # pyrender's, of many kinds
            print(f"no scans ({type(error).__name__}): surface points sampled", file=sys.stderr)
            distances = -mesh_to_sdf.mesh_to_sdf(mesh, queries, surface_point_method="sample", sign_method="normal")
    rows = np.concatenate([queries, np.reshape(distances, (-1, 1))], axis=1).astype(np.float32)
    normals = mesh.face_normals[chosen]
    out.mkdir()
    np.savez(out / f"{path.stem}.npz", rand_points=rows, surface=np.concatenate([surface, normals], axis=1))


def child(method: str, path: Path, out: Path) -> None:
    """Import what the method needs, then time it; one line of JSON."""
    import importlib

    modules = {"libigl": ["igl"], "pcu": ["point_cloud_utils"], "mesh_to_sdf": ["mesh_to_sdf"]}
    for name in [*modules.get(method, ["ff3d.datasets.prepare", "igl", "scipy.sparse.csgraph"]), "trimesh"]:
        importlib.import_module(name)
    wall, processors = time.perf_counter(), time.process_time()
    if method == "ff3d":
        by_ff3d(path, out)
    else:
        by_peer(method, path, out)
    row = {"seconds": time.perf_counter() - wall, "processors": time.process_time() - processors}
    print(json.dumps(row), flush=True)


def measured(method: str, path: Path, python: str, seconds: float) -> dict[str, Any]:
    """The row of one mesh and method."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "out")
        command = [python, __file__, "--child", method, str(path), str(out)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
        except subprocess.TimeoutExpired:
            return {"failure": f"over {seconds:g} s"}
        if done.returncode:
            return {"failure": (done.stderr.strip().splitlines() or [f"code {done.returncode}"])[-1]}
        row: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        if done.stderr.startswith("no scans"):
            row["note"] = done.stderr.splitlines()[0]
        with np.load(out / f"{path.stem}.npz") as made:
            rows = made["rand_points"]
    return row | checked(path, rows)


def checked(path: Path, rows: Any) -> dict[str, Any]:
    """How many of 2,000 signs are wrong, and how far distances are off, by the exact sums of libigl over all faces."""
    from ff3d.geometry.distances import NearestFaces
    from ff3d.labels.winding_number import WindingNumberOracle
    from ff3d.shapes.mesh import load_mesh

    mesh = load_mesh(path)
    low, high = mesh.bounds
    mesh.vertices = (mesh.vertices - (low + high) / 2) * (2 / (high - low).max())
    rows = rows[np.random.default_rng(1).choice(len(rows), 2000, replace=False)].astype(np.float64)
    distance = NearestFaces(mesh)(rows[:, :3])[0]
    rows, distance = rows[distance > 1e-5], distance[distance > 1e-5]
    inside = WindingNumberOracle(mesh).exact_winding_number(rows[:, :3]) > 0.5
    return {
        "wrong": int(((rows[:, 3] > 0) != inside).sum()),
        "off": float(np.abs(np.abs(rows[:, 3]) - distance).max()),
    }


def compare(options: argparse.Namespace) -> None:
    """Print a row for each mesh and method, and a table."""
    from ff3d.formats.writers import save_mesh
    from ff3d.shapes.mesh import load_mesh

    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for name in options.meshes:
            mesh = load_mesh(name)
            path = Path(folder, f"{Path(name).stem}.ply")  # the same triangles for all, also of a file with polygons
            save_mesh(mesh, path)
            for method in options.methods:
                python = sys.executable if method == "ff3d" else options.peers
                row = {"mesh": path.stem, "faces": len(mesh.faces), "method": method}
                rows.append(row | measured(method, path, python, options.seconds))
                print(json.dumps(rows[-1]), flush=True)
    print("\n| method | meshes | seconds a mesh | of a processor | meshes an hour | wrong signs | off | failed |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|")
    for method in options.methods:
        own = [row for row in rows if row["method"] == method]
        good = [row for row in own if "failure" not in row]
        if good:
            seconds, processors = (np.mean([row[key] for row in good]) for key in ("seconds", "processors"))
            wrong, off = sum(row["wrong"] for row in good), max(row["off"] for row in good)
            print(
                f"| {method} | {len(good)} | {seconds:.1f} | {processors:.1f} | {7200 / processors:.0f} | "
                f"{wrong} of {2000 * len(good)} | {off:.1e} | {len(own) - len(good)} |"
            )
        else:
            print(f"| {method} | 0 | - | - | - | - | - | {len(own)} |")


def variations(count: int, folder: Path) -> list[Path]:
    """So many files: sample meshes, turned and stretched."""
    import trimesh

    from ff3d.formats.writers import save_mesh
    from ff3d.shapes.mesh import load_mesh

    samples = [load_mesh(name) for name in ("bracket", "bunny", "gyroid", "knot", "soup")]
    paths = []
    for number in range(count):
        rng = np.random.default_rng(number)
        mesh = trimesh.Trimesh(samples[number % 5].vertices, samples[number % 5].faces, process=False)
        mesh.apply_transform(trimesh.transformations.random_rotation_matrix(rng.random(3)))
        mesh.apply_scale(rng.uniform(0.5, 2, 3))
        paths.append(folder / f"variation-{number:03d}.ply")
        save_mesh(mesh, paths[-1])
    return paths


def same(options: argparse.Namespace) -> None:
    """Prepare variations three ways, and compare."""
    os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # read with ray: then its ports are on loopback
    import ray
    from ray.cluster_utils import Cluster

    from ff3d.datasets.config import make_sets_config
    from ff3d.datasets.prepare import ROWS, prepare
    from ff3d.jobs import HERE, Executor

    config = make_sets_config("ff3d", ["volume", "near", "sharp", "surface"], points=options.points, target="signed")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = variations(options.same, folder)

        def made(kind: str, executor: Executor) -> dict[str, bytes]:
            begun = time.perf_counter()
            rows = prepare(paths, folder / kind, config, executor=executor)
            failed = sum("failure" in row for row in rows)
            print(f"{kind}: {len(rows)} meshes, {failed} failed, {time.perf_counter() - begun:.0f} s", flush=True)
            return {path.name: path.read_bytes() for path in (folder / kind).glob("*.npz")}

        alone, beside = made("alone", HERE), made("two workers", Executor(2))
        memory: Any = {"object_store_memory": 100 * 2**20}
        cluster = Cluster(True, head_node_args={"num_cpus": 0, "node_ip_address": "127.0.0.1", **memory})
        nodes = [cluster.add_node(num_cpus=1, **memory) for _ in range(2)]
        cluster.wait_for_nodes()

        def kill() -> None:
            rows = folder / "cluster" / ROWS
            while not rows.exists() or rows.read_text(encoding="utf-8").count("\n") < options.same // 10:
                time.sleep(0.1)
            cluster.remove_node(nodes[1], allow_graceful=False)
            print("a node is killed", flush=True)

        threading.Thread(target=kill, daemon=True).start()
        try:
            clustered = made("cluster", Executor(ray=cluster.address))
        finally:
            ray.shutdown()
            cluster.shutdown()
        print(f"{len(alone)} files, the same bytes: two workers {alone == beside}, cluster {alone == clustered}")


def main() -> None:
    """Read the options."""
    if sys.argv[1:2] == ["--child"]:
        child(sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4]))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("meshes", nargs="*")
    parser.add_argument("--peers", default=sys.executable)
    methods = ["ff3d", "libigl", "pcu", "mesh_to_sdf"]
    parser.add_argument("--methods", nargs="+", choices=methods, default=methods)
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--same", type=int)
    parser.add_argument("--points", type=int, default=2000)
    options = parser.parse_args()
    if options.same:
        same(options)
    if options.meshes:
        compare(options)


if __name__ == "__main__":
    main()
