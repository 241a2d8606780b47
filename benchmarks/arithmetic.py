#!/usr/bin/env python3
"""Arithmetic of a training step over the largest matrix product of the same process.

    benchmarks/arithmetic.py [--seconds 20]

Counts the multiplications and additions of the dense layers alone (forward, and backward to weights and to inputs;
the mapping, activations, loss and Adam count as none) and divides by the time of a whole step. The products are timed
between the steps, in the same process. To hold oneDNN to AVX512-BF16 on a machine with AMX, set
ONEDNN_MAX_CPU_ISA=AVX512_CORE_BF16.
"""

from __future__ import annotations

import argparse
import statistics
import time
from itertools import pairwise

import numpy as np
import torch

from ff3d.fields.field import OccupancyField
from ff3d.fields.mapping import build_mapping
from ff3d.fields.network import best_device, best_precision
from ff3d.fields.optimise import Pool, optimise
from ff3d.fitting import loss_of
from ff3d.geometry.coordinates import UnitCube
from ff3d.geometry.cores import keep_freed_memory
from ff3d.settings import make_config

SIZES = ((2048, 2048, 2048), (4096, 4096, 4096), (8192, 256, 256), (32768, 256, 256), (16384, 1024, 1024))
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def product_rate(size: tuple[int, int, int], dtype: torch.dtype) -> float:
    """GFLOP/s of the best of eight products of this size."""
    m, k, n = size
    first, second = torch.randn(m, k).to(dtype), torch.randn(k, n).to(dtype)
    times = []
    for _ in range(8):
        begun = time.perf_counter()
        first @ second
        times.append(time.perf_counter() - begun)
    return 2 * m * k * n / min(times) / 1e9


def step_flops(sizes: list[int], batch: int) -> int:
    """Operations of one step: 2 a weight and point forward, 2 to the weight, 2 to the layer's input if it needs it."""
    products = [m * n for m, n in pairwise(sizes)]
    return 2 * batch * (3 * sum(products) - products[0])


def main() -> None:
    """Time steps and products in turn; print rates and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    keep_freed_memory()
    config = make_config(seconds=options.seconds / options.rounds)
    precision = best_precision(best_device("cpu"))
    cube = UnitCube((0.5, 0.5, 0.5), 1.0)
    mapping = build_mapping(config.mapping, seed=0)
    width = config.network.hidden_width(mapping.name, mapping.features)
    depth = config.network.hidden_layers(mapping.name)
    field = OccupancyField(mapping, width=width, depth=depth, cube=cube, bounds=[[0] * 3, [1] * 3], precision=precision)
    points = np.random.default_rng(0).random((config.optimiser.pool_size, 3)).astype(np.float32)
    pool = Pool(points, (points[:, 0] < 0.5).astype(np.float32))
    sizes = [mapping.features, *[width] * depth, 1]
    flops = step_flops(sizes, config.optimiser.batch_size)
    products, steps = [], []
    for _ in range(options.rounds):
        products.append(max(product_rate(size, DTYPES[precision]) for size in SIZES))
        progress = optimise(field, lambda _, __: pool, config.optimiser, config.budget, loss=loss_of("occupancy"))
        steps.append(flops * progress.step / progress.seconds / 1e9)
    largest, sustained = max(products), statistics.median(steps)
    single = max(product_rate(size, torch.float32) for size in SIZES)
    print(f"{depth} x {width}, batch {config.optimiser.batch_size}, {precision}, {torch.get_num_threads()} threads")
    rounds = [", ".join(f"{rate:.0f}" for rate in rates) for rates in (products, steps)]
    print(f"largest {precision} product   {largest:8.0f} GFLOP/s   (each round: {rounds[0]})")
    print(f"largest float32 product    {single:8.0f} GFLOP/s")
    print(f"training step, sustained   {sustained:8.0f} GFLOP/s   (each round: {rounds[1]})")
    print(f"a step takes               {flops / sustained / 1e6:8.1f} ms")
    print(f"ratio                      {sustained / largest:8.2f}")


if __name__ == "__main__":
    main()
