"""Labels a second over shapes of every kind, and whether they are right.

    python benchmarks/label_speed.py [--shapes NAME ...] [--uniform 1000000] [--near 200000] [--exact 500]

For each shape of `label_shapes`: the seconds that building an oracle takes, then millions of labels a second of a fresh
oracle, its building included, for points uniform in the box (grown by a tenth of a percent) and for points of the
surface moved by a normal deviation of 0.01 unit; and how many of `--exact` of either kind differ from the float64 sum
over all faces where that is more than `SURE` from 1/2. The slowest of each kind are named at the end.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import igl
import numpy as np
import trimesh
from label_shapes import SHAPES
from numpy.typing import NDArray
from rows import write_rows

from ff3d.geometry.coordinates import UnitCube, grown_box
from ff3d.geometry.sampling import sample_surface, sample_uniform
from ff3d.labels.winding_number import WindingNumberOracle

Floats = NDArray[np.float64]
NOISE = 0.01  # units
SURE = 1e-4
AIMS = {"uniform": 0.5, "near": 0.1}  # M labels a second


def points_of(mesh: trimesh.Trimesh, kind: str, count: int, rng: np.random.Generator) -> Floats:
    """Points (count, 3) to label, input coordinates."""
    unit = UnitCube.paper(mesh.vertices).scale
    if kind == "uniform":
        return sample_uniform(grown_box(mesh, 1e-3 * unit), count, rng)
    points, _ = sample_surface(mesh, count, rng)
    return np.asarray(points + NOISE * unit * rng.standard_normal((count, 3)))


def clocks() -> Floats:
    """Seconds by the clock, and of this process on all cores: an idle machine takes no more than the lesser of both."""
    return np.array([time.perf_counter(), time.process_time()])


def timed(mesh: trimesh.Trimesh, kind: str, count: int) -> tuple[float, float]:
    """Seconds to build, and to label so many points."""
    points = points_of(mesh, kind, count, np.random.default_rng(0))
    begun = clocks()
    oracle = WindingNumberOracle(mesh)
    built = clocks()
    oracle(points)
    return float((built - begun).min()), float((clocks() - built).min())


def wrong(mesh: trimesh.Trimesh, count: int) -> int:
    """How many of 2 * count labels differ from the float64 sum over the repaired faces where that is sure."""
    oracle, differ = WindingNumberOracle(mesh), 0
    for kind in AIMS:
        points = points_of(mesh, kind, count, np.random.default_rng(1))
        number = igl.winding_number(oracle._vertices, oracle._faces, np.ascontiguousarray(oracle.cube.to_unit(points)))
        sure = np.abs(number - 0.5) > SURE
        for _ in range(2):
            differ += int(np.count_nonzero((oracle(points) != (number > 0.5))[sure]))
            _ = len(oracle._faces) and oracle.grid  # once without and once by the grid
    return differ


def main() -> None:
    """Parse the arguments and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", default=list(SHAPES), choices=list(SHAPES), metavar="NAME")
    parser.add_argument("--uniform", type=int, default=1_000_000)
    parser.add_argument("--near", type=int, default=200_000)
    parser.add_argument("--exact", type=int, default=0)
    parser.add_argument("--rows", type=Path, help="write the table there too, as scripts/make_tables.py reads it")
    arguments = parser.parse_args()
    rates: dict[str, dict[str, float]] = {kind: {} for kind in AIMS}
    rows = []
    print("| shape | faces | building, s | uniform, M/s | near, M/s | wrong |", flush=True)
    print("|---|---:|---:|---:|---:|---:|", flush=True)
    for name in arguments.shapes:
        mesh, best = SHAPES[name](), np.inf
        for kind, count in (("uniform", arguments.uniform), ("near", arguments.near)):
            built, label = timed(mesh, kind, count)
            rates[kind][name] = count / (built + label) / 1e6
            best = min(best, built)
        differ = wrong(mesh, arguments.exact) if arguments.exact else ""
        numbers = " | ".join(f"{rates[kind][name]:.3f}" for kind in AIMS)
        print(f"| {name} | {len(mesh.faces):,} | {best:.2f} | {numbers} | {differ} |", flush=True)
        rows.append([name, len(mesh.faces), best, *(rates[kind][name] for kind in AIMS), differ])
    if arguments.rows:
        columns = {"shape": "", "faces": ",0", "building, s": "2", "uniform, M/s": "3", "near, M/s": "3", "wrong": "0"}
        write_rows(arguments.rows, columns, rows, seeds="0")
    for kind, aim in AIMS.items():
        slowest = sorted(rates[kind], key=lambda name: rates[kind][name])[:3]
        under = sum(rate < aim for rate in rates[kind].values())
        named = ", ".join(f"{name} {rates[kind][name]:.3f}" for name in slowest)
        print(f"\n{kind}: slowest {named} M/s; {under} of {len(rates[kind])} under {aim}")


if __name__ == "__main__":
    main()
