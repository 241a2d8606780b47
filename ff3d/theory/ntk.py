"""The neural tangent kernel of a wide ReLU network under an input mapping, and what it predicts of training.

A network of infinite width, trained by gradient descent on the squares of its errors, is kernel regression with its
neural tangent kernel (Jacot et al. 2018, arXiv:1806.07572; Lee et al. 2019, arXiv:1902.06720). Along an eigenvector of
the training points' kernel the error falls as exp(-rate eigenvalue step): what lies in eigenvectors of small
eigenvalues is learned late. A Fourier mapping composes the kernel with one of the difference of two points alone, whose
width its frequencies choose (Tancik et al. 2020, arXiv:2006.10739, section 4). All in float64 numpy, exact.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike

from ff3d.geometry.arrays import Floats
from ff3d.geometry.cores import available_memory

Kernel = Callable[[Floats, Floats], Floats]
MOST_POINTS = 8192  # of a dense kernel: 0.5 GB
WORKING = 10  # times a dense kernel's own bytes are taken while `mapped_kernel` works it out


def check_dense(rows: int, columns: int) -> None:
    """Raise ValueError where a dense kernel of so many points and others would be too large."""
    if rows * columns > MOST_POINTS**2:
        raise ValueError(
            f"{rows:,} points and {columns:,} others need a dense kernel of {rows * columns * 8 / 1e9:.1f} GB; "
            f"give at most {MOST_POINTS:,} of each"
        )


def check_points(points: int, max_memory: int | None = None) -> None:
    """Raise ValueError where points are too few, or too many for the kernel of all pairs to be worked out.

    max_memory: bytes; by default what is available.
    """
    if not 10 <= points <= MOST_POINTS:
        raise ValueError(f"points must be from 10 to {MOST_POINTS:,}, for a dense kernel of all pairs, got {points:,}")
    available = available_memory() if max_memory is None else max_memory
    needed = WORKING * 8 * points**2
    if needed > available:
        raise ValueError(
            f"a dense kernel of {points:,} points takes about {needed / 1e9:.1f} GB while it is worked out, and "
            f"{available / 1e9:.1f} GB are available; give at most {math.isqrt(available // (WORKING * 8)):,} points"
        )


def relu_kernels(cosine: Floats, norms: Floats, depth: int, bias: float = 0.0) -> tuple[Floats, Floats]:
    """The kernels of a wide ReLU network, by recursion over its layers: (of the outputs, neural tangent).

    cosine: of the angle between two inputs, any shape.  norms: the product of their lengths, the same shape; inputs of
    one length alone are exact.  depth: hidden layers, at least 1.  bias: the standard deviation of biases.
    Weights are N(0, 1) in the first layer and N(0, 2 / inputs) after it, so that layers keep lengths, in the
    parametrisation of Jacot et al. 2018; biases are trained too.
    Sources: Cho and Saul 2009, "Kernel Methods for Deep Learning"; Lee et al. 2019, appendix E.
    Raises ValueError for a depth under 1.
    """
    if depth < 1:
        raise ValueError(f"depth must be at least 1 hidden layer, got {depth}")
    variance = norms + bias**2  # of a layer's unit, at inputs of one length
    covariance = norms * cosine + bias**2
    tangent = covariance.copy()
    for _ in range(depth):
        angle = np.arccos(np.clip(covariance / np.maximum(variance, np.finfo(np.float64).tiny), -1.0, 1.0))
        derivative = (np.pi - angle) / np.pi
        covariance = variance * (np.sin(angle) + (np.pi - angle) * np.cos(angle)) / np.pi + bias**2
        variance = variance + bias**2
        tangent = covariance + tangent * derivative
    return covariance, tangent


def mapped_kernel(features: Callable[[Floats], Floats], *, depth: int, bias: float = 0.0) -> Kernel:
    """The neural tangent kernel of a network on mapped points: (points (n, d), points (m, d)) -> (n, m).

    features: the mapping, points (n, d) -> (n, f). Where its features have one length, as those of sines and cosines,
    the kernel is exact and depends on the difference of two points alone. Elsewhere (none) each pair is taken at the
    geometric mean of its lengths: exact for bias 0, where ReLU networks are homogeneous.
    """

    def kernel(first: Floats, second: Floats) -> Floats:
        one, other = (np.asarray(features(points), dtype=np.float64) for points in (first, second))
        lengths, others = np.linalg.norm(one, axis=1), np.linalg.norm(other, axis=1)
        norms = lengths[:, None] * others
        cosine = np.clip((one @ other.T) / np.maximum(norms, np.finfo(np.float64).tiny), -1.0, 1.0)
        return relu_kernels(cosine, norms, depth, bias)[1]

    return kernel


@dataclass(frozen=True)
class KernelRegression:
    """Gradient descent on half the sum of squares, as a wide network does it: exact, at any step.

    kernel: of the training points (n, n), symmetric.  targets: (n,).  rate: of descent; stable below 2 over the largest
    eigenvalue. At step 0 the network is 0 everywhere.
    """

    kernel: Floats
    targets: Floats
    rate: float

    def __post_init__(self) -> None:
        count = len(self.targets)
        if self.kernel.shape != (count, count):
            raise ValueError(f"kernel must be ({count}, {count}) for {count} targets, got {self.kernel.shape}")
        if count > MOST_POINTS:
            raise ValueError(
                f"{count} points need a dense kernel of {count**2 * 8 / 1e9:.1f} GB; give at most {MOST_POINTS}"
            )

    @cached_property
    def spectrum(self) -> tuple[Floats, Floats]:
        """Eigenvalues (n,), largest first, not negative, and eigenvectors (n, n), a column each."""
        values, vectors = np.linalg.eigh(self.kernel)
        return np.maximum(values[::-1], 0.0), vectors[:, ::-1]

    @cached_property
    def energies(self) -> Floats:
        """The share of the targets' square that lies along each eigenvector (n,): 1 in all."""
        projections = self.spectrum[1].T @ self.targets
        return np.asarray(projections**2 / max(float(self.targets @ self.targets), np.finfo(np.float64).tiny))

    def learned(self, steps: ArrayLike) -> Floats:
        """The share of the targets' square that is learned after so many steps, the shape of `steps`: 0 to 1."""
        times = np.asarray(steps, dtype=np.float64)
        left = np.exp(-2 * self.rate * np.multiply.outer(times, self.spectrum[0]))
        return np.asarray(1 - left @ self.energies)

    def predict(self, cross: Floats, step: float, targets: Floats | None = None) -> Floats:
        """The network at other points after `step` steps: (m,).  cross: kernel of those and the training points (m, n).

        targets: others than its own.  Equation 3 of Tancik et al. 2020: K* K^-1 (1 - exp(-rate K step)) y.
        """
        values, vectors = self.spectrum
        decay = self.rate * step * values
        # (1 - exp(-x)) / x, which is 1 at 0
        gain = self.rate * step * np.where(decay > 1e-12, -np.expm1(-decay) / np.maximum(decay, 1e-300), 1.0)
        targets = self.targets if targets is None else targets
        return np.asarray(cross @ (vectors @ (gain * (vectors.T @ targets))))


def stable_rate(kernel: Floats) -> float:
    """A rate of gradient descent at which training on this kernel's points is stable: 1 over its largest eigenvalue."""
    return 1.0 / float(np.linalg.eigvalsh(kernel)[-1])
