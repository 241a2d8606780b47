#!/usr/bin/env python3
"""The tangent kernel's closed form and its predictions, against what networks do.

    benchmarks/kernels.py [--networks 200] [--width 4096] [--depth 2] [--steps 1000]
                          [--units 1024] [--depths 1 2 4]

1. The closed form against the mean over many random networks, at points of the unit sphere.
2. Full-batch gradient descent on a signal of one dimension (32 points) beside equation 4 with
   the network's own kernel.
3. The same where only projections of a picture are compared, as a scanner does (equations 15 to 20).
Intervals are 95%, over networks.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch

from ff3d.fields.mapping import make_mapping
from ff3d.fields.network import Network
from ff3d.geometry.arrays import Floats
from ff3d.theory.dynamics import descend, draw_lazy_weights, linearized, projections, tangent_kernel
from ff3d.theory.ntk import relu_kernels, stable_rate


def random_kernel(points: torch.Tensor, width: int, depth: int, seed: int) -> Floats:
    """The tangent kernel (n, n) of a network of random weights, in the parametrisation of `relu_kernels`."""
    generator = torch.Generator().manual_seed(seed)
    given, weights, hidden = [points], [], []
    for layer in range(depth):
        size = given[-1].shape[1]
        weights.append(torch.randn(size, width, generator=generator) * (1.0 if layer == 0 else (2 / size) ** 0.5))
        hidden.append(given[-1] @ weights[-1])
        given.append(hidden[-1].relu())
    head = torch.randn(width, generator=generator) * (2 / width) ** 0.5
    kernel = (given[-1] @ given[-1].T) * (2 / width)
    slope = (hidden[-1] > 0) * head
    for layer in reversed(range(depth)):
        scale = 1.0 if layer == 0 else 2 / width
        kernel += scale * (given[layer] @ given[layer].T) * (slope @ slope.T)
        if layer:
            slope = (slope @ weights[layer].T) * (hidden[layer - 1] > 0)
    return kernel.double().numpy()


def closed_form(networks: int, width: int, depth: int) -> None:
    """Print the relative error of the closed form, over all pairs of 8 points, with its interval."""
    points = np.random.default_rng(0).standard_normal((8, 3))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    exact = relu_kernels(np.clip(points @ points.T, -1, 1), np.ones((8, 8)), depth)[1]
    tensor = torch.from_numpy(points).float()
    begun = time.perf_counter()
    seen = np.array([random_kernel(tensor, width, depth, seed) for seed in range(networks)])
    along = (seen * exact).sum(axis=(1, 2)) / (exact**2).sum() - 1
    error = 1.96 * along.std(ddof=1) / np.sqrt(networks)
    pair = np.abs(seen.mean(axis=0) / exact - 1)
    pair_error = 1.96 * seen.std(axis=0, ddof=1) / np.sqrt(networks) / exact
    worst = np.unravel_index(pair.argmax(), pair.shape)
    print(f"closed form, {depth} hidden layers, against {networks:,} networks of width {width:,}:")
    print(f"  relative error      {100 * along.mean():+.3f}% +- {100 * error:.3f}%")
    print(f"  of the worst pair    {100 * pair[worst]:.3f}% +- {100 * pair_error[worst]:.3f}%")
    print(f"  {time.perf_counter() - begun:.0f} s")


def compared(title: str, network: Network, points: Floats, targets: Floats, *, steps: int, scan: Floats | None) -> None:
    """Print predicted and measured losses of descent."""
    begun = time.perf_counter()
    kernel = tangent_kernel(network, points)
    rate = 0.1 * stable_rate(kernel if scan is None else scan @ kernel @ scan.T)
    training = linearized(network, points, targets, rate=rate, measurement=scan)
    predicted = training.losses(np.arange(steps + 1))
    measured = descend(network, points, targets, rate=rate, steps=steps, measurement=scan)
    print(f"{title}: loss, predicted and measured")
    for step in sorted({0, 1, 10, 100, steps // 2, steps}):
        print(f"  step {step:6,} {predicted[step]:12.5g} {measured[step]:12.5g}")
    print(f"  largest relative difference {100 * np.abs(predicted / measured - 1).max():.2f}%")
    with torch.no_grad():
        values = network(torch.from_numpy(points).float())[:, 0].double().numpy()
    difference = np.linalg.norm(values - training.mu(steps) - training.gamma(steps)) / np.linalg.norm(values)
    print(f"  values at the end, difference to mu + gamma over them {difference:.4f}")
    print(f"  {time.perf_counter() - begun:.0f} s")


def main() -> None:
    """Print the three tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", type=int, default=200)
    parser.add_argument("--width", type=int, default=4096)
    parser.add_argument("--depth", type=int, default=2)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--units", type=int, default=1024, help="in a hidden layer of the networks that are trained")
    parser.add_argument("--depths", type=int, nargs="+", default=[1, 2, 4], help="hidden layers for the signal")
    options = parser.parse_args()
    closed_form(options.networks, options.width, options.depth)
    places = np.arange(32)[:, None] / 32
    waves = np.random.default_rng(0).standard_normal((16, 2)) / np.arange(1, 17)[:, None]  # of amplitude 1/f
    angles = 2 * np.pi * places * np.arange(1, 17)
    signal = np.cos(angles) @ waves[:, 0] + np.sin(angles) @ waves[:, 1]
    for depth in options.depths:
        network = Network(make_mapping("gaussian", dimension=1, count=16, scale=4.0), width=options.units, depth=depth)
        draw_lazy_weights(network, seed=0)
        compared(f"signal, {depth} x {options.units:,}", network, places, signal, steps=options.steps, scan=None)
    side = 16
    grid = np.stack(np.meshgrid(*[(np.arange(side) + 0.5) / side] * 2), axis=-1).reshape(-1, 2)
    picture = (((grid - 0.45) ** 2).sum(axis=1) < 0.08).astype(np.float64)
    scan = projections(side, 12)
    network = Network(make_mapping("gaussian", dimension=2, count=64, scale=2.0), width=options.units, depth=2)
    draw_lazy_weights(network, seed=0)
    compared(f"scan, 12 angles, 2 x {options.units:,}", network, grid, scan @ picture, steps=options.steps, scan=scan)


if __name__ == "__main__":
    main()
