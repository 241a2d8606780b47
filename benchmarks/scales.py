#!/usr/bin/env python3
"""The scale of the Gaussian mapping: the one predicted before any training, beside the one that fits find best.

    benchmarks/scales.py [--shapes bunny knot] [--pictures camera text-0] [--steps 300] [--size 256] [--seeds 0]
                         [--shape-scales 3 4.2 6 8.5 12 24] [--picture-scales 2 4 8 16 32 64]

Shapes: preset `plain`; the error is 1 - IoU of `boundary_face` points, the prediction a share of wrong points.
Pictures: preset `fast`, as many steps; PSNR in dB at held-out pixels. The best scale is a parabola's, in the logarithm.
Prints a row for each as it is done; --rows and --picture-rows write the tables as scripts/make_tables.py reads them.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rows import write_rows

import ff3d
from ff3d.labels.oracles import load_surface
from ff3d.metrics import iou
from ff3d.points.test_sets import test_points
from ff3d.theory.images import fit_image
from ff3d.theory.predictions import best_scale
from ff3d.theory.shapes import ShapeKernels, ntk, ntk_picture


def decibels(square: float) -> float:
    """The PSNR of a mean square error."""
    return float(-10 * np.log10(square))


def rows_of(
    name: str, kernels: ShapeKernels, measured: dict[float, float], shown: Callable[[float], float]
) -> list[list[Any]]:
    """What was measured and what was predicted: errors at each scale, and the best."""
    found = []
    predicted = {it.scale: it.error for it in kernels.predicted if it.scale is not None}
    for what, errors in (("measured", measured), ("predicted", predicted)):
        found.append([f"{name}, {what}", *(shown(error) for error in errors.values()), best_scale(errors)])
        print(*(it if isinstance(it, str) else f"{it:.4g}" for it in found[-1]), flush=True)
    return found


def main() -> None:
    """Predict, fit, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="*", default=["bunny", "knot"])
    parser.add_argument("--pictures", nargs="*", default=["camera", "text-0"])
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--shape-scales", type=float, nargs="+", default=[3, 4.2, 6, 8.5, 12, 24])
    parser.add_argument("--picture-scales", type=float, nargs="+", default=[2, 4, 8, 16, 32, 64])
    parser.add_argument("--rows", type=Path)
    parser.add_argument("--picture-rows", type=Path)
    options = parser.parse_args()

    def mean(measure: Callable[[float, int], float], scales: Sequence[float]) -> dict[float, float]:
        return {scale: float(np.mean([measure(scale, seed) for seed in options.seeds])) for scale in scales}

    shapes: list[list[Any]] = []
    for name in options.shapes:
        surface = load_surface(name)
        tests = test_points(surface, "boundary_face", seed=12345)

        def missed(scale: float, seed: int, surface: Any = surface, tests: Any = tests) -> float:
            fit = ff3d.fit(surface, preset="plain", mapping="gaussian", scale=scale, steps=options.steps, seed=seed)
            return 1 - iou(fit.contains, tests)

        kernels = ntk(
            surface, ("gaussian",), points=100, slices=0, fit_steps=options.steps, scales=options.shape_scales
        )
        shapes += rows_of(name, kernels, mean(missed, options.shape_scales), float)
    pictures: list[list[Any]] = []
    for name in options.pictures:
        settings = {"size": options.size, "steps": options.steps}

        def square(scale: float, seed: int, name: str = name, settings: Any = settings) -> float:
            fit = fit_image(name, "gaussian", scale=scale, seed=seed, **settings)
            return float(10 ** (-fit.snapshots[-1].row["psnr_test"] / 10))

        predicted = {"fit_steps": options.steps, "scales": options.picture_scales, "size": options.size}
        kernels = ntk_picture(name, ("gaussian",), points=100, slices=0, **predicted)
        pictures += rows_of(name, kernels, mean(square, options.picture_scales), decibels)
    for path, rows, scales, form in (
        (options.rows, shapes, options.shape_scales, ".3"),
        (options.picture_rows, pictures, options.picture_scales, "1"),
    ):
        if path:
            columns = {"scale of gaussian": ""} | {f"{scale:g}": form for scale in scales} | {"best": "1"}
            write_rows(path, columns, rows, seeds=options.seeds)


if __name__ == "__main__":
    main()
