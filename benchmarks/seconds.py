#!/usr/bin/env python3
"""Quality against seconds: what needs no training beside networks, each with the same seconds.

    benchmarks/seconds.py FOLDER [--names dragon buddha armadillo] [--seconds 2 5 10 30] [--seeds 0]
                          [--presets direct fast] [--baseline distance_grid.py] [--cells 256 384 512 768]

FOLDER holds meshes/NAME.obj and testsets/NAME.npz; where a mesh has no test sets, as the sample shapes have none, they
are drawn and kept in --out. A preset's seconds hold its set-up, labels and distances, without reading the mesh and
without evaluation. baseline: a script that samples distances on a grid (libigl's distances and winding numbers, numpy)
and prints a line for each number of cells along a unit, with its IoU and seconds; it runs in turns with the presets,
mesh by mesh.
Prints a row for each, and the means over the meshes in Markdown.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from rows import write_rows

import ff3d
from ff3d.fields.checkpoint import FitError
from ff3d.fitting import Fit, train
from ff3d.labels.oracles import Shape, load_surface
from ff3d.metrics import LabelledPoints, iou
from ff3d.points.test_sets import TEST_KINDS, load_test_sets, test_points
from ff3d.settings import FitConfig, make_config

POINTS, SEED = 131_072, 12345  # of test sets that are drawn


def baseline(options: argparse.Namespace, mesh: Path, testset: Path) -> dict[str, list[float]]:
    """The rows of the sampled grid: its name -> seconds, KB and IoU."""
    cells = [str(number) for number in options.cells]
    command = [sys.executable, str(options.baseline), str(mesh), str(testset), "--cells", *cells, "--bits", "8"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = {}
    for line in printed.splitlines():
        number = dict(re.findall(r"(cells|seconds|KB|uniform|boundary_face|boundary_area) +([0-9.]+)", line))
        scores = [float(number[kind]) for kind in TEST_KINDS]
        found[f"grid, {number['cells']} a unit"] = [float(number["seconds"]), float(number["KB"]), *scores]
    return found


def test_sets(folder: Path, out: Path, name: str, shape: Shape) -> Path:
    """The test sets of a shape: those of the folder, or as many points drawn once and kept in out."""
    frozen, kept = folder / "testsets" / f"{name}.npz", out / f"{name}.npz"
    if frozen.exists():
        return frozen
    if not kept.exists():
        surface, drawn = load_surface(shape), dict[str, Any]()
        for kind in TEST_KINDS:
            sample = test_points(surface, kind, count=POINTS, seed=SEED)
            drawn |= {kind: sample.points, f"{kind}_inside": np.packbits(sample.occupancy)}
        np.savez(kept, **drawn)
    return kept


def scored_fit(path: Path, config: FitConfig, tests: dict[str, LabelledPoints]) -> tuple[Fit, list[float]]:
    """A fit whose seconds begin when its mesh has been read, and its IoU on each of `TEST_KINDS`."""
    fit = train(ff3d.load_mesh(path), config, held_out={})
    return fit, [iou(fit.field.contains, tests[kind]) for kind in TEST_KINDS]


def main() -> None:
    """Fit, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--names", nargs="+", default=["dragon", "buddha", "armadillo"])
    parser.add_argument("--seconds", type=float, nargs="+", default=[2, 5, 10, 30])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--presets", nargs="+", default=["direct", "fast"])
    parser.add_argument("--baseline", type=Path)
    parser.add_argument("--cells", type=int, nargs="+", default=[256, 384, 512, 768])
    parser.add_argument("--out", type=Path, default=Path("runs/seconds"))
    parser.add_argument("--rows", type=Path, help="write the table there too, as scripts/make_tables.py reads it")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    rows: dict[str, list[list[float]]] = defaultdict(list)
    for name in options.names:
        path = options.folder / "meshes" / f"{name}.obj"
        testset = test_sets(options.folder, options.out, name, path)
        tests = load_test_sets(testset)
        if options.baseline:
            for what, row in baseline(options, path, testset).items():
                rows[what].append(row)
        for seconds in options.seconds:
            for preset in options.presets:
                for seed in options.seeds:
                    try:
                        fit, scores = scored_fit(path, make_config(preset, seconds=seconds, seed=seed), tests)
                    except FitError as error:
                        print(name, preset, f"{seconds:g} s", seed, error, flush=True)
                        continue
                    fit.field.save(options.out / "field.safetensors")
                    kilobytes = (options.out / "field.safetensors").stat().st_size / 1000
                    row = [fit.progress.seconds, kilobytes, *scores]
                    rows[f"{preset}, {seconds:g} s"].append(row)
                    print(name, preset, f"{seconds:g} s", seed, " ".join(f"{value:.4f}" for value in row), flush=True)
    print(f"\n| means of {len(options.names)} meshes | seconds | KB | {' | '.join(TEST_KINDS)} |")
    print("|---|---:|---:|" + "---:|" * len(TEST_KINDS))
    for what, measured in rows.items():
        seconds, kilobytes, *scores = np.mean(measured, axis=0)
        print(f"| {what} | {seconds:.1f} | {kilobytes:,.0f} | {' | '.join(f'{score:.4f}' for score in scores)} |")
    if options.rows:
        columns = {"what": "", "seconds": "1", "KB": ",0", **dict.fromkeys(TEST_KINDS, ".4")}
        means = [[what, *np.mean(measured, axis=0).tolist()] for what, measured in rows.items()]
        write_rows(options.rows, columns, means, seeds=options.seeds)


if __name__ == "__main__":
    main()
