#!/usr/bin/env python3
"""On a GPU: a training step as it is and recorded, and quality against seconds.

    benchmarks/gpu.py FOLDER [--names armadillo] [--seconds 2 5 10] [--what gaussian fast direct] [--rows STEPS SECONDS]

FOLDER holds meshes/NAME.obj and testsets/NAME.npz. Steps: of the paper's network and batch, on points that are there
already, 200 after 20. Seconds: `gaussian` is seven layers of 256 under the points of `plain`; fast, best and direct are
the presets. A device's first fit is not counted. Needs CUDA.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from rows import write_rows
from seconds import scored_fit

from ff3d.fields.checkpoint import FitError
from ff3d.fields.config import PAPER_MAPPINGS
from ff3d.fields.field import OccupancyField
from ff3d.fields.mapping import make_mapping
from ff3d.fields.optimise import Adam, RecordedStep, Step
from ff3d.geometry.coordinates import UnitCube
from ff3d.geometry.cores import configure_process
from ff3d.points.test_sets import TEST_KINDS, load_test_sets
from ff3d.settings import FitConfig, make_config

WARM, TIMED = 20, 200


def step_seconds(mapping: str, *, recorded: bool) -> float:
    """Seconds of a step of the paper's network and batch."""
    config = make_config("paper", mapping=mapping)
    field = OccupancyField(
        make_mapping(mapping, notebook=True),
        width=config.network.width or 256,
        depth=config.network.depth or 7,
        cube=UnitCube((0.5, 0.5, 0.5), 1.0),
        bounds=[[0] * 3, [1] * 3],
        precision="bfloat16",
    ).to("cuda")
    points = torch.rand(config.optimiser.batch_size, 3, device="cuda")
    targets = (points[:, 0] > 0.5).float()
    step: Any = Step(field, F.binary_cross_entropy_with_logits, Adam(field, config.optimiser))
    step = RecordedStep(step) if recorded else step
    for _ in range(WARM):
        step(points, targets)
    torch.cuda.synchronize()
    begun = time.perf_counter()
    for _ in range(TIMED):
        step(points, targets)
    torch.cuda.synchronize()
    return (time.perf_counter() - begun) / TIMED


def config_of(what: str, seconds: float) -> FitConfig:
    """The settings of a name and a budget."""
    if what == "gaussian":
        return make_config("plain", mapping="gaussian", depth=7, seconds=seconds)
    return make_config(what, seconds=seconds)


def fit_rows(folder: Path, name: str, whats: list[str], budgets: list[float]) -> list[list[Any]]:
    """What was fitted, its seconds and those without a step, millions of samples a second, IoU."""
    path, tests = folder / "meshes" / f"{name}.obj", load_test_sets(folder / "testsets" / f"{name}.npz")
    scored_fit(path, make_config("plain", steps=20), tests)
    rows: list[list[Any]] = []
    for what in whats:
        for seconds in budgets:
            config = config_of(what, seconds)
            try:
                fit, scores = scored_fit(path, config, tests)
            except FitError as error:
                rows.append([name, f"{what}, {seconds:g} s", str(error), "", "", "", "", ""])
            else:
                progress = fit.progress
                rate = progress.step * config.optimiser.batch_size / progress.seconds / 1e6
                rows.append([name, f"{what}, {seconds:g} s", progress.seconds, progress.labelling, rate, *scores])
            print(*rows[-1], flush=True)
    return rows


def main() -> int:
    """Time, fit, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--names", nargs="+", default=["armadillo"])
    parser.add_argument("--seconds", type=float, nargs="+", default=[2, 5, 10])
    parser.add_argument("--what", nargs="+", default=["gaussian", "fast", "direct"])
    parser.add_argument(
        "--rows", type=Path, nargs=2, help="write both tables there, as scripts/make_tables.py reads it"
    )
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print("no CUDA device here")
        return 1
    configure_process()
    steps = []
    for mapping in PAPER_MAPPINGS:
        plain, recorded = (1e3 * step_seconds(mapping, recorded=recorded) for recorded in (False, True))
        steps.append([mapping, plain, recorded, plain / recorded])
        print(*steps[-1], flush=True)
    fits = [row for name in options.names for row in fit_rows(options.folder, name, options.what, options.seconds)]
    if options.rows:
        titles = {"mapping": "", "step, ms": "2", "recorded, ms": "2", "times as fast": "1"}
        write_rows(options.rows[0], titles, steps, seeds="0")
        titles = {"mesh": "", "fit": "", "seconds": "1", "of them without a step": "1", "million samples a second": "1"}
        write_rows(options.rows[1], titles | dict.fromkeys(TEST_KINDS, ".4"), fits, seeds="0")
    return 0


if __name__ == "__main__":
    sys.exit(main())
