#!/usr/bin/env python3
"""Shapes in few numbers: IoU of all voxels, held-out IoU and speed of fields with at most 132,000 parameters.

    benchmarks/compact.py FOLDER [--names dragon buddha armadillo] [--seeds 0] [--seconds 120] [--resolution 256]
                          [--variants NAME ...]

FOLDER holds meshes/NAME.obj and testsets/NAME.npz. All voxels: the centres of cubes of 1/256 unit (the side of the
cube of Tancik et al. 2020) over the mesh's box, labelled by the winding number; their number a second is that of
`field.contains`, guard and all, on this machine. Published figures for such models (arXiv:2602.13414: Gaussian
features .9956 in the mean, hash grid .9987, FUTON .9990) were scored on the voxels that those networks were trained
on, on an A100; the fields here never saw a voxel's centre but by chance.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import trimesh
from numpy.typing import NDArray
from rows import write_rows

import ff3d
from ff3d.fitting import Fit, train
from ff3d.geometry.coordinates import UnitCube
from ff3d.metrics import iou
from ff3d.points.test_sets import TEST_KINDS, load_test_sets
from ff3d.settings import make_config

TABLES: dict[str, Any] = {"levels": 8, "coarsest": 10, "finest": 512, "log2_table": 12, "depth": 2, "passes": 4}
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "hash, guarded, distance": ("fast", TABLES),
    "hash, not guarded, distance": ("fast", TABLES | {"guarded": False, "uniform": 0.5}),
    "gaussian, not guarded, distance": (
        "fast",
        {
            "mapping": "gaussian",
            "guarded": False,
            "uniform": 0.4,
            "frequencies": 128,
            "parameters": 132_000,
            "depth": 3,
        },
    ),
    "lattice, solved for": ("small", {"mapping": "lattice"}),
}
MOST = 132_000  # parameters


def fitted(mesh: trimesh.Trimesh, preset: str, settings: dict[str, Any], seconds: float, seed: int) -> Fit:
    """A variant fitted: networks for so many seconds, a lattice in as many cells as `MOST` numbers are enough for."""
    if settings.get("mapping") != "lattice":
        settings = {"storage": "float32", "seconds": seconds} | settings
        return train(mesh, make_config(preset, seed=seed, **settings), held_out={})
    cells = 160
    while True:
        fit = train(mesh, make_config(preset, finest=cells, seed=seed, **settings), held_out={})
        if fit.field.parameter_count <= MOST:
            return fit
        cells = int(cells * min(0.98, (MOST / fit.field.parameter_count) ** 0.5))


def voxels(mesh: trimesh.Trimesh, resolution: int) -> NDArray[np.float64]:
    """The centres of the voxels over the mesh's box: (n, 3), input coordinates."""
    side = UnitCube.paper(mesh.vertices).scale / resolution
    low, high = mesh.vertices.min(axis=0), mesh.vertices.max(axis=0)
    axes = [
        lower + side * (np.arange(int((upper - lower) / side)) + 0.5) for lower, upper in zip(low, high, strict=True)
    ]
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)


def main() -> None:
    """Fit, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--names", nargs="+", default=["dragon", "buddha", "armadillo"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--resolution", type=int, default=256)
    parser.add_argument("--variants", nargs="+", choices=list(VARIANTS), default=list(VARIANTS))
    parser.add_argument("--rows", type=Path, help="write the table there too, as scripts/make_tables.py reads it")
    options = parser.parse_args()
    heads = ["variant", "mesh", "seed", "parameters", "all voxels", *TEST_KINDS, "steps", "M samples/s", "M voxels/s"]
    print("| " + " | ".join(heads) + " |\n|---|---" + "|---:" * (len(heads) - 2) + "|")
    means: dict[str, list[list[float]]] = {name: [] for name in options.variants}
    table: list[list[Any]] = []
    for name in options.names:
        mesh = ff3d.load_mesh(options.folder / "meshes" / f"{name}.obj")
        tests = load_test_sets(options.folder / "testsets" / f"{name}.npz")
        centers = voxels(mesh, options.resolution)
        truth = ff3d.WindingNumberOracle(mesh)(centers)
        for seed in options.seeds:
            for variant in options.variants:
                preset, settings = VARIANTS[variant]
                fit = fitted(mesh, preset, settings, options.seconds, seed)
                if fit.progress.interrupted:
                    raise SystemExit("interrupted")
                begun = time.perf_counter()
                inside = fit.field.contains(centers)
                seconds = time.perf_counter() - begun
                scores = [float((inside & truth).sum() / (inside | truth).sum())]
                scores += [iou(fit.field.contains, points) for points in tests.values()]
                speed = fit.progress.step * fit.config.optimiser.batch_size / fit.progress.seconds / 1e6
                row = [*scores, fit.progress.step, speed, len(centers) / seconds / 1e6]
                means[variant].append(row)
                table.append([variant, name, seed, fit.field.parameter_count, *row])
                print(_line([variant, name, str(seed), f"{fit.field.parameter_count:,}"], row), flush=True)
    for variant, rows in means.items():
        table.append([variant, "mean", "", "", *np.mean(rows, axis=0).tolist()])
        print(_line([variant, "mean", "", ""], list(np.mean(rows, axis=0))))
    if options.rows:
        forms = ["", "", "0", ",0", *[".4"] * (1 + len(TEST_KINDS)), ",0", "2", "1"]
        write_rows(options.rows, dict(zip(heads, forms, strict=True)), table, seeds=options.seeds)


def _line(labels: list[str], row: list[float]) -> str:
    scores = [f"{it:.4f}" for it in row[:4]]
    return "| " + " | ".join([*labels, *scores, f"{row[4]:,.0f}", f"{row[5]:.2f}", f"{row[6]:.1f}"]) + " |"


if __name__ == "__main__":
    main()
