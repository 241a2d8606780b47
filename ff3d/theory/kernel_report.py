"""What the kernel of a mapping looks like, and what it makes of labelled points: the numbers of the pictures."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from ff3d.fields.mapping import InputMapping, Mapping
from ff3d.geometry.arrays import Floats
from ff3d.theory.ntk import Kernel, KernelRegression, mapped_kernel

MODES = (0, 1, 4, 16, 64, 256)
WAVES = 64  # cycles a unit, at most
PLACE = (0.3, 0.4, 0.45)  # not the cube's middle, which raw coordinates map to 0
LINE = 256  # points of the unit line, on which waves are learned


@dataclass(frozen=True)
class KernelReport:
    """The kernel of one mapping under a network of infinite width; lengths in units, steps of the stable rate.

    distances (k,), profile (k,): the kernel along the first axis from one place, over that at no distance.
    eigenvalues (n,): of the labelled points' kernel, largest first, over their sum.
    steps (t,), learned (t,): the share of the labels' energy that is learned after so many steps.
    frequencies (f,), waves (t, f): the same of waves along a line through the cube, cycles per unit.
    modes: eigenvectors by their place in the spectrum, carried to the slice z = 1/2, or the plane, (side, side) each.
    """

    mapping: str
    distances: Floats
    profile: Floats
    eigenvalues: Floats
    steps: Floats
    learned: Floats
    frequencies: Floats
    waves: Floats
    modes: dict[int, Floats]


def kernel_of(mapping: Mapping, depth: int) -> Kernel:
    """The kernel of a wide network over a mapping. Raises ValueError for a mapping whose features are all learned."""
    if not isinstance(mapping, InputMapping):
        raise ValueError(f"{mapping.name} learns its features: it has no fixed kernel; leave it out")

    def features(points: Floats) -> Floats:
        with torch.no_grad():
            encoded: Floats = mapping(torch.from_numpy(points.astype(np.float32))).numpy()
        return encoded

    return mapped_kernel(features, depth=depth)


def kernel_report(
    mapping: Mapping, points: Floats, labels: Floats, *, depth: int = 4, steps: Floats, side: int = 0
) -> KernelReport:
    """Describe the kernel of a mapping at labelled points of the unit cube, or square.

    points (n, d), labels (n,).  steps (t,): of gradient descent at the highest rate that is surely stable.
    side: of the slice that modes are carried to; 0 leaves them out.  Raises as `kernel_of` and `KernelRegression`.
    """
    kernel = kernel_of(mapping, depth)
    dense = kernel(points, points)
    regression = KernelRegression(dense, labels - labels.mean(), 1.0)
    values, vectors = regression.spectrum
    distances = np.linspace(0, 0.5, 201)
    along = np.tile(PLACE[: mapping.dimension], (len(distances), 1))
    along[:, 0] += distances
    row = kernel(along[:1], along)[0]
    modes = {}
    if side:
        grid = (np.arange(side) + 0.5) / side
        plane = np.full((side * side, mapping.dimension), 0.5)
        plane[:, :2] = np.stack(np.meshgrid(grid, grid), axis=-1).reshape(-1, 2)
        kept = [mode for mode in MODES if mode < len(values) and values[mode] > 1e-12 * values[0]]
        fields = kernel(plane, points) @ (vectors[:, kept] / values[kept])
        modes = {mode: field.reshape(side, side) for mode, field in zip(kept, fields.T, strict=True)}
    frequencies = np.arange(1.0, WAVES + 1)
    return KernelReport(
        mapping.name,
        distances,
        row / row[0],
        values / values.sum(),
        steps,
        regression.learned(steps / values[0]),
        frequencies,
        _learned_waves(kernel, mapping.dimension, frequencies, steps),
        modes,
    )


def _learned_waves(kernel: Kernel, dimension: int, frequencies: Floats, steps: Floats) -> Floats:
    """The share of the energy of waves along a line that is learned after so many steps (t, f)."""
    places = (np.arange(LINE) + 0.5) / LINE
    line = np.full((LINE, dimension), 0.5)
    line[:, 0] = places
    values, vectors = np.linalg.eigh(kernel(line, line))
    waves = np.cos(2 * np.pi * np.outer(places, frequencies))
    energies = (vectors.T @ waves) ** 2 / (waves**2).sum(axis=0)
    return np.asarray(1 - np.exp(-2 * np.outer(steps, values / values[-1])) @ energies)
