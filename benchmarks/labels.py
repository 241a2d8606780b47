"""Labels a second, against named alternatives in the same run; and whether they are right.

    python benchmarks/labels.py MESH [MESH ...] [--millions 128] [--repeats 3]
    python benchmarks/labels.py MESH ... --exact 200000

The first prints, for points uniform in the mesh's box and for points within 0.01 unit of its surface, millions of
labels a second of each oracle, everything that it builds included, and the best of the repeats, which are interleaved.
The second counts disagreements with the generalized winding number summed in float64 over all faces of the file,
outside a shell about the surface whose thickness it prints, and repeats the labels on one thread.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import igl
import numpy as np
import trimesh
from numpy.typing import NDArray
from tqdm import tqdm

from ff3d.geometry.coordinates import UnitCube, grown_box
from ff3d.geometry.sampling import sample_surface, sample_uniform
from ff3d.labels.oracles import Oracle
from ff3d.labels.second_oracles import Open3DOracle, RayOracle
from ff3d.labels.winding_number import WindingNumberOracle
from ff3d.shapes.mesh import load_mesh
from ff3d.shapes.sources import find_mesh

Floats = NDArray[np.float64]
SHELL, NEAR = 1e-6, 0.01  # units


def near_surface(
    mesh: trimesh.Trimesh, count: int, rng: np.random.Generator, unit: float, reach: float = 0.01
) -> Floats:
    """Points on the surface, moved by up to `reach` units in a random direction."""
    points, _ = sample_surface(mesh, count, rng)
    direction = rng.standard_normal((count, 3))
    direction *= (unit * reach * rng.random(count) / np.linalg.norm(direction, axis=1))[:, None]
    return points + direction


def libigl_alone(mesh: trimesh.Trimesh) -> Oracle:
    """libigl's fast winding number at its usual accuracy, in the unit cube, and nothing else."""
    cube = UnitCube.padded(mesh.vertices)
    tree: Any = igl.FastWindingNumberBVH()
    tree.init(np.ascontiguousarray(cube.to_unit(mesh.vertices)), np.array(mesh.faces, dtype=np.int64), 2)
    return lambda points: tree.winding_number(np.ascontiguousarray(cube.to_unit(points)), 2.0) > 0.5


class WithoutGrid(WindingNumberOracle):
    """The same oracle, never by its grid."""

    def __call__(self, points: Any) -> NDArray[np.bool_]:
        """points (n, 3) -> (n,)."""
        return self.winding_number(points) > 0.5


def trimesh_contains(mesh: trimesh.Trimesh) -> Oracle:
    """trimesh's parity of the hits of one ray, by embreex."""
    return lambda points: np.asarray(mesh.contains(points))


def open3d_one_ray(mesh: trimesh.Trimesh) -> Oracle:
    """Open3D's parity of one ray."""
    return Open3DOracle(mesh, samples=1)


ALTERNATIVES: dict[str, tuple[Callable[[trimesh.Trimesh], Oracle], float]] = {  # and the share of the points asked
    "ff3d": (WindingNumberOracle, 1.0),
    "ff3d without its grid": (WithoutGrid, 0.1),
    "libigl fast winding number": (libigl_alone, 0.1),
    "ff3d rays, 3 to 7 votes": (RayOracle, 0.01),
    "trimesh + embreex, one ray": (trimesh_contains, 0.004),
    "Open3D, one ray": (open3d_one_ray, 0.1),
    "Open3D, five rays": (Open3DOracle, 0.04),
}


def rates(path: Path, millions: float, repeats: int) -> None:
    """Print the table of one mesh."""
    mesh = load_mesh(path)
    unit = UnitCube.paper(mesh.vertices).scale
    count = round(millions * 1e6)
    rng = np.random.default_rng(0)
    tree, grid = time.perf_counter(), 0.0
    oracle = WindingNumberOracle(mesh)
    tree = time.perf_counter() - tree
    grid = time.perf_counter()
    known = oracle.grid.known_share
    grid = time.perf_counter() - grid
    print(f"{path.name}: {len(mesh.faces):,} faces; repair and tree {tree:.2f} s, grid {grid:.2f} s, {known:.2%} known")
    kinds = {
        "uniform": sample_uniform(grown_box(mesh, 1e-3 * unit), count, rng),
        "near the surface": near_surface(mesh, count // 5, rng, unit),
    }
    for kind, points in kinds.items():
        best: dict[str, tuple[float, int]] = {}
        failed: dict[str, str] = {}
        answers: dict[str, NDArray[np.bool_]] = {}
        for _ in range(repeats):
            for name, (make, share) in ALTERNATIVES.items():
                if name in failed:
                    continue
                some = points[: max(1000, round(len(points) * share))]
                begun = time.perf_counter()
                try:
                    answers[name] = make(mesh)(some)
                except (ImportError, ValueError) as error:
                    failed[name] = str(error).splitlines()[0]
                    continue
                rate = len(some) / (time.perf_counter() - begun) / 1e6
                best[name] = max(best.get(name, (0.0, 0)), (rate, len(some)))
        print(f"\n| {kind} | points | M labels/s | wrong against ff3d |\n|---|---:|---:|---:|")
        for name in ALTERNATIVES:
            if name in failed:
                print(f"| {name} | | not here: {failed[name][:90]} | |")
                continue
            rate, asked = best[name]
            differ = np.count_nonzero(answers[name] != answers["ff3d"][:asked])
            print(f"| {name} | {asked:,} | {rate:.2f} | {differ:,} |")
    print()


def disagreements(path: Path, count: int) -> None:
    """Print how often the labels of one mesh differ from those of the exact sum, and between runs."""
    mesh = load_mesh(path)
    cube = UnitCube.padded(mesh.vertices)
    unit = UnitCube.paper(mesh.vertices).scale
    rng = np.random.default_rng(1)
    points = np.concatenate(
        [
            sample_uniform(grown_box(mesh, 1e-3 * unit), count // 2, rng),
            near_surface(mesh, count - count // 2, rng, unit),
        ]
    )
    oracle = WindingNumberOracle(mesh)
    labels = oracle(points)
    _ = oracle.grid
    by_grid = oracle(points)
    vertices, faces = np.ascontiguousarray(cube.to_unit(mesh.vertices)), np.array(mesh.faces, dtype=np.int64)
    asked = np.ascontiguousarray(cube.to_unit(points))
    squared, _, _ = igl.point_mesh_squared_distance(asked, vertices, faces)
    outside = np.sqrt(squared) * cube.scale / unit > SHELL
    chunks = range(0, count, 2000)
    exact = np.concatenate(
        [igl.winding_number(vertices, faces, asked[i : i + 2000]) for i in tqdm(chunks, leave=False)]
    )
    wrong = labels != (exact > 0.5)
    counts = [~outside, wrong & outside, wrong & ~outside, labels != by_grid]
    numbers = " | ".join(str(np.count_nonzero(it)) for it in counts)
    print(f"| {path.name} | {count:,} | {numbers} | {alike(path, points, labels)} |", flush=True)


def alike(path: Path, points: Floats, labels: NDArray[np.bool_]) -> str:
    """Whether fresh processes with one thread and with two give the same labels."""
    digest = hashlib.sha256(labels.tobytes()).hexdigest()
    code = (
        "import hashlib, sys, numpy as np\n"
        "from ff3d.shapes.mesh import load_mesh; from ff3d.labels.oracles import WindingNumberOracle\n"
        "points = np.frombuffer(sys.stdin.buffer.read()).reshape(-1, 3)\n"
        "print(hashlib.sha256(WindingNumberOracle(load_mesh(sys.argv[1]))(points).tobytes()).hexdigest())"
    )
    for threads in ("1", "2"):
        environment = {**os.environ, "OMP_NUM_THREADS": threads, "IGL_NUM_THREADS": threads}
        command = [sys.executable, "-c", code, str(path)]
        done = subprocess.run(command, input=points.tobytes(), capture_output=True, check=True, env=environment)
        if done.stdout.decode().strip() != digest:
            return f"differs with {threads} thread(s)"
    return "the same bits"


def main() -> None:
    """Parse the arguments and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("meshes", nargs="+")
    parser.add_argument("--millions", type=float, default=128, help="uniform points; a fifth of them near the surface")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--exact", type=int, help="count disagreements with the exact sum on so many points instead")
    arguments = parser.parse_args()
    paths = [find_mesh(name) for name in arguments.meshes]
    if arguments.exact:
        print(f"| mesh | points | within {SHELL:g} unit | wrong outside | wrong within | grid differs | 1, 2 threads |")
        print("|---|---:|---:|---:|---:|---:|---|", flush=True)
    for path in paths:
        if arguments.exact:
            disagreements(path, arguments.exact)
        else:
            rates(path, arguments.millions, arguments.repeats)


if __name__ == "__main__":
    main()
