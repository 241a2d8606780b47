"""Distances to a mesh: ff3d's truncated lists raced against libigl's AABB tree and Open3D's ray scene.

    python benchmarks/distances.py MESH [MESH ...] [--points 1048576] [--repeats 3] [--workloads 2]

For points near the surface as fits of the preset `fast` draw them, and wider ones, the table has the seconds that each
takes to build, millions of distances a second after that (the best of the repeats, which are interleaved), and the
largest error in units against the float64 distances of libigl, clipped at the reach; those are compared with the least
over all triangles in float64, on fewer points. A fit builds once and queries some millions of points, so the last
two columns have the seconds of both: on the clock, and of all cores together, which other work on the machine changes
less.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import igl
import numpy as np
import trimesh
from numpy.random import Generator

from ff3d.geometry.arrays import Floats
from ff3d.geometry.coordinates import UnitCube, grown_box
from ff3d.geometry.distances import TruncatedDistance
from ff3d.geometry.sampling import SampleMix, Surface
from ff3d.shapes.mesh import load_mesh
from ff3d.shapes.sources import find_mesh

Distance = Callable[[Floats], Any]  # points (n, 3), unit coordinates -> distances (n,), units
Maker = Callable[[Floats, Any, float], Distance]  # vertices, faces and reach -> the index
CHECKED = 200  # points whose distance to every triangle is computed
FIT = 4_000_000  # points of a fit of some ten seconds
# share of uniform points, widths near the surface and the reach, in units; a fit's reach is two bands of .003
WORKLOADS: dict[str, tuple[float, tuple[float, ...], float]] = {
    "near the surface, as `fast` draws them: widths .0003 and .001, reach .006": (0.0, (0.0003, 0.001), 0.006),
    "all points of `fast`: the same and 10% uniform": (0.1, (0.0003, 0.001), 0.006),
    "widths .0005, .002 and .01, 40% uniform, reach .006": (0.4, (0.0005, 0.002, 0.01), 0.006),
    "widths .002 to .12, half uniform, reach .05": (0.5, (0.002, 0.006, 0.015, 0.04, 0.12), 0.05),
}


def ff3d_lists(vertices: Floats, faces: Any, reach: float) -> Distance:
    """What fits use."""
    return TruncatedDistance(vertices, faces, reach)


def libigl_tree(vertices: Floats, faces: Any, reach: float) -> Distance:
    """libigl's AABB tree in float64, built once, on all cores."""
    tree: Any = igl.AABB()
    tree.init(vertices, faces)
    return lambda points: np.sqrt(tree.squared_distance(vertices, faces, points)[0])


def open3d_scene(vertices: Floats, faces: Any, reach: float) -> Distance:
    """Open3D's ray scene (embree's point queries, float32), built once, on all cores."""
    import open3d

    scene = open3d.t.geometry.RaycastingScene()
    scene.add_triangles(vertices.astype(np.float32), faces.astype(np.uint32))
    return lambda points: scene.compute_distance(points.astype(np.float32)).numpy()


def in_order_of_space(make: Maker) -> Maker:
    """The same index, queried in an order that keeps the branches that neighbours share in the cache."""

    def make_ordered(vertices: Floats, faces: Any, reach: float) -> Distance:
        distance = make(vertices, faces, reach)

        def ordered(points: Floats) -> Floats:
            order = np.lexsort((64 * np.clip(points, -1, 1.98).T).astype(np.int8))
            found = np.empty(len(points))
            found[order] = distance(points[order])
            return found

        return ordered

    return make_ordered


REFERENCE = "libigl AABB, points sorted"
CONTENDERS: dict[str, tuple[Maker, float]] = {  # and the share of the points that they are given
    "ff3d TruncatedDistance": (ff3d_lists, 1.0),
    REFERENCE: (in_order_of_space(libigl_tree), 1.0),
    "libigl AABB": (libigl_tree, 0.1),
    "Open3D RaycastingScene, points sorted": (in_order_of_space(open3d_scene), 1.0),
    "Open3D RaycastingScene": (open3d_scene, 0.1),
}


def distance_to_every_triangle(points: Floats, corners: Floats) -> Floats:
    """The slow twin: points (n, 3) and corners (f, 3, 3) -> the least distance (n,), float64."""
    a, b, c = np.moveaxis(corners, 1, 0)
    normals = np.cross(b - a, c - a)
    length = np.linalg.norm(normals, axis=1)
    found = np.empty(len(points))
    for row, point in enumerate(points):
        least, over = np.inf, length > 0
        for start, end in ((a, b), (b, c), (c, a)):
            edge, offset = end - start, point - start
            squared = np.einsum("ij,ij->i", edge, edge)
            share = np.clip(np.einsum("ij,ij->i", offset, edge) / np.where(squared > 0, squared, 1), 0, 1)
            least = min(least, float(np.linalg.norm(offset - share[:, None] * edge, axis=1).min()))
            over = over & (np.einsum("ij,ij->i", np.cross(normals, edge), offset) >= 0)
        height = np.abs(np.einsum("ij,ij->i", normals[over], point - a[over])) / length[over]
        found[row] = min(least, float(height.min(initial=np.inf)))
    return found


def draw(mesh: trimesh.Trimesh, mix: SampleMix, count: int, rng: Generator) -> tuple[Floats, Floats]:
    """The mesh's vertices and `count` points of a mix, both in unit coordinates."""
    cube = UnitCube.padded(mesh.vertices)
    points = mix.draw(Surface.of(mesh), grown_box(mesh, 0.03 * cube.scale), cube.scale, count, rng)
    return np.ascontiguousarray(cube.to_unit(mesh.vertices)), np.ascontiguousarray(cube.to_unit(points))


def clocks() -> Floats:
    """The seconds on the clock, and of processor time of all threads."""
    return np.array([time.perf_counter(), time.process_time()])


def race(mesh: trimesh.Trimesh, mix: SampleMix, reach: float, count: int, repeats: int) -> None:
    """Print the table of one mesh and one workload."""
    vertices, points = draw(mesh, mix, count, np.random.default_rng(0))
    faces = np.array(mesh.faces, dtype=np.int64)
    build = dict.fromkeys(CONTENDERS, np.full(2, np.inf))  # seconds: on the clock, of all cores
    query = dict.fromkeys(CONTENDERS, np.full(2, np.inf))  # a point
    answers: dict[str, Floats] = {}
    absent: dict[str, str] = {}
    for _ in range(repeats):
        for name, (make, share) in CONTENDERS.items():
            if name in absent:
                continue
            given = points[: max(CHECKED, round(share * count))]
            begun = clocks()
            try:
                distance = make(vertices, faces, reach)
            except (ImportError, OSError) as error:
                absent[name] = str(error).splitlines()[0]
                continue
            built = clocks()
            answers[name] = np.minimum(np.asarray(distance(given), dtype=np.float64), reach)
            queried = clocks()
            build[name] = np.minimum(build[name], built - begun)
            query[name] = np.minimum(query[name], (queried - built) / len(given))
    exact = np.minimum(distance_to_every_triangle(points[:CHECKED], vertices[faces]), reach)
    print(f"\n| | build, s | M points/s | largest error, units | build and {FIT / 1e6:g} M points, s | core-s |")
    print("|---|---:|---:|---:|---:|---:|")
    for name in CONTENDERS:
        if name in absent:
            print(f"| {name} | not installed: {absent[name][:90]} | | | | |")
            continue
        off = np.abs(answers[name] - answers[REFERENCE][: len(answers[name])]).max()
        if name == REFERENCE:
            off = np.abs(answers[name][:CHECKED] - exact).max()
        total = build[name] + FIT * query[name]
        rate, (clock, cores) = 1e-6 / query[name][0], total
        print(f"| {name} | {build[name][0]:.2f} | {rate:.2f} | {off:.1e} | {clock:.1f} | {cores:.1f} |", flush=True)


def main() -> None:
    """Parse the arguments and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("meshes", nargs="+")
    parser.add_argument("--points", type=int, default=2**20)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--workloads", type=int, default=len(WORKLOADS), help="the first so many workloads alone")
    arguments = parser.parse_args()
    for name in arguments.meshes:
        path = find_mesh(name)
        mesh = load_mesh(path)
        for workload, (uniform, widths, reach) in list(WORKLOADS.items())[: arguments.workloads]:
            print(f"\n{path.name}, {len(mesh.faces):,} faces; {workload}")
            race(mesh, SampleMix(uniform, widths), reach, arguments.points, arguments.repeats)


if __name__ == "__main__":
    main()
