#!/usr/bin/env python3
"""Quality at equal seconds: every mapping on every mesh, scored on frozen test sets.

    benchmarks/quality.py FOLDER [--names armadillo dragon buddha] [--mappings ..] [--seconds 30 | --steps N]
                          [--seeds 0] [--preset plain] [--resolution N]

FOLDER holds meshes/NAME.obj, testsets/NAME.npz and, for --resolution, score.py, an independent scorer. Prints one
row a fit: IoU of the field on each frozen set and, with --resolution, of the mesh extracted at that resolution,
labelled by the independent scorer. Fits run one after another in one process; the means over the meshes follow.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
from rows import write_rows

import ff3d
from ff3d.fields.config import PAPER_MAPPINGS
from ff3d.fitting import train
from ff3d.metrics import iou
from ff3d.points.test_sets import TEST_KINDS, load_test_sets
from ff3d.settings import make_config
from ff3d.surfaces.grid_levels import ExtractionError


def mesh_scores(scorer: Path, testset: Path, shape: Path) -> dict[str, float]:
    """IoU of a mesh file by the independent scorer."""
    done = subprocess.run(
        [sys.executable, str(scorer), str(testset), "--mesh", str(shape)], capture_output=True, text=True, check=True
    )
    scores: dict[str, float] = json.loads(done.stdout)
    return scores


def main() -> None:
    """Fit, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--names", nargs="+", default=["dragon", "buddha", "armadillo"])
    parser.add_argument("--mappings", nargs="+", default=list(PAPER_MAPPINGS))
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--preset", default="plain")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--resolution", type=int, help="also extract and score the mesh")
    parser.add_argument("--rows", type=Path, help="write the table there too, as scripts/make_tables.py reads it")
    options = parser.parse_args()
    steps = {"steps": options.steps} if options.steps else {}  # left out, the preset's own stand
    settings = {"seconds": options.seconds, "device": options.device} | steps
    config = make_config(options.preset, **settings)
    print(
        f"preset {config.preset}, {config.budget} a fit, {torch.get_num_threads()} threads, torch {torch.__version__}"
    )
    print(f"{'mesh':12} {'mapping':11} seed " + " ".join(f"{kind:>13}" for kind in TEST_KINDS) + "  steps  seconds")
    scores: dict[str, list[list[float]]] = defaultdict(list)
    for seed in options.seeds:
        for name in options.names:
            mesh = ff3d.load_mesh(options.folder / "meshes" / f"{name}.obj")
            testset = options.folder / "testsets" / f"{name}.npz"
            tests = load_test_sets(testset)
            oracle = ff3d.WindingNumberOracle(mesh)
            for mapping in options.mappings:
                fit = train(
                    mesh,
                    make_config(options.preset, **settings, mapping=mapping, seed=seed),
                    oracle=oracle,
                    held_out={},
                )
                if fit.progress.interrupted:
                    sys.exit("interrupted")
                row = [iou(fit.field.contains, tests[kind]) for kind in TEST_KINDS]
                scores[mapping].append(row)
                print(
                    f"{name:12} {mapping:11} {seed:4} "
                    + " ".join(f"{score:13.4f}" for score in row)
                    + f" {fit.progress.step:6} {fit.progress.seconds:8.1f}",
                    flush=True,
                )
                if options.resolution:
                    begun = time.perf_counter()
                    try:
                        shape = fit.field.extract_mesh(options.resolution)
                    except ExtractionError as error:
                        print(f"{'':12} no mesh: {error}", flush=True)
                        continue
                    seconds = time.perf_counter() - begun
                    with tempfile.TemporaryDirectory() as folder:
                        path = Path(folder) / "shape.ply"
                        ff3d.save_mesh(shape, path)
                        scored = mesh_scores(options.folder / "score.py", testset, path)
                    print(
                        f"{'':12} its mesh at {options.resolution}: "
                        + " ".join(f"{scored[kind]:.4f}" for kind in TEST_KINDS)
                        + f"  {len(shape.faces):,} faces, closed {shape.is_watertight}, extracted in {seconds:.1f} s",
                        flush=True,
                    )
    print("\nmean over meshes and seeds (standard deviation)")
    for mapping, rows in scores.items():
        mean, spread = np.mean(rows, axis=0), np.std(rows, axis=0)
        print(f"{mapping:11} " + " ".join(f"{m:.4f} ({s:.4f})" for m, s in zip(mean, spread, strict=True)))
    if options.rows:
        table = [
            [mapping, *np.stack([np.mean(rows, axis=0), np.std(rows, axis=0)], axis=1).tolist()]
            for mapping, rows in scores.items()
        ]
        write_rows(options.rows, {"mapping": "", **dict.fromkeys(TEST_KINDS, ".4")}, table, seeds=options.seeds)


if __name__ == "__main__":
    main()
