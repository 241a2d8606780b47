"""Training predicted from a network's own tangent kernel, also where only linear measurements of it are compared.

A wide network moves little from where it starts, so that it trains as its linearisation there does: for a rate and a
loss of half the sum of squares the residual falls as exp(-rate K step), K being the kernel of the gradients of its
output to all its parameters (Jacot et al. 2018, arXiv:1806.07572; Lee et al. 2019, arXiv:1902.06720, equations 9 to
11; equation 4 of Tancik et al. 2020, arXiv:2006.10739). `ff3d.theory.ntk` has that kernel at infinite width; here it is
that of an actual network, and beside the prediction stands the actual descent.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  (torch's own name for it)
from numpy.typing import ArrayLike
from torch import Tensor, nn

from ff3d.fields.field import GAINS, OccupancyField
from ff3d.fields.network import ACTIVATIONS, Network
from ff3d.geometry.arrays import Floats
from ff3d.theory.ntk import KernelRegression, check_dense

MOST_GRADIENTS = 2**28  # numbers, of points to a mapping's own parameters: 1 GB


def draw_lazy_weights(network: Network, *, seed: int) -> Network:
    """Draw a ReLU network's weights anew, in place, as kernels want them: N(0, 1), then N(0, 2 / inputs); no biases.

    Only so does a wide network move little. Glorot's rule, by which `Network` draws, makes a first layer of few inputs
    the smaller the wider it is: such a network learns features at any width, and the kernel it starts with does not
    predict it (Chizat et al. 2019, "On Lazy Training in Differentiable Programming", arXiv:1812.07956).
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for layer in network.layers:
            assert isinstance(layer, nn.Linear)
            std = 1.0 if layer is network.layers[0] else math.sqrt(2 / layer.in_features)
            layer.weight.normal_(std=std, generator=generator)
            layer.bias.zero_()
    return network


def tangent_kernel(network: Network, points: ArrayLike, others: ArrayLike | None = None) -> Floats:
    """The tangent kernel of a network as its parameters are now: (n, m), of the gradients of its (first) output.

    points (n, d) and others (m, d, default: points): unit coordinates. In float64, without a field's guard.
    Raises ValueError for more pairs than a dense kernel may have, and for trained tables too large to differentiate at
    every point.
    """
    same = others is None or others is points
    first = _tensor(points)
    second = first if others is None else _tensor(others)
    check_dense(len(first), len(second))
    ones = list(_gradients(network, first))
    pairs = zip(ones, ones if same else _gradients(network, second), strict=True)
    kernel = np.zeros((len(first), len(second)))
    for (inputs, slopes), (other_inputs, other_slopes) in pairs:
        kernel += ((inputs @ other_inputs.T) * (slopes @ other_slopes.T)).numpy()
    return kernel


def _tensor(points: ArrayLike) -> Tensor:
    return torch.from_numpy(np.asarray(points, dtype=np.float32))


def _gradients(network: Network, points: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """The gradients at each point in factors, (n, a) and (n, b): the layer's a b gradients are their outer product.

    A dense layer's are those of its inputs, with a 1 for the bias, and of the output to what the layer gives (Novak
    et al. 2022, arXiv:2206.08720): n (a + b) numbers in place of n a b.
    """
    points = points.to(network.device)
    with torch.enable_grad():
        features = hidden = network.mapping(points).detach().double().requires_grad_()
        inputs, outcomes = [], []
        for layer in network.layers:
            assert isinstance(layer, nn.Linear)
            inputs.append(hidden.detach())
            outcomes.append(F.linear(hidden, layer.weight.detach().double(), layer.bias.detach().double()))
            hidden = ACTIVATIONS[network.activation](outcomes[-1].clone())  # relu works in place
        gain = GAINS[network.target] if isinstance(network, OccupancyField) else 1.0
        to_features, *slopes = torch.autograd.grad(gain * outcomes[-1][:, 0].sum(), [features, *outcomes])
    if network.mapping.trained:
        rows = _mapping_gradients(network.mapping, points, to_features.float())
        yield rows.cpu(), torch.ones(len(rows), 1)
    for given, slope in zip(inputs, slopes, strict=True):
        yield F.pad(given, (0, 1), value=1.0).cpu(), slope.cpu()


def _mapping_gradients(mapping: nn.Module, points: Tensor, to_features: Tensor) -> Tensor:
    """The gradients to a mapping's own parameters (n, p)."""
    parameters = list(mapping.parameters())
    size = sum(parameter.numel() for parameter in parameters)
    if size * len(points) > MOST_GRADIENTS:
        raise ValueError(
            f"gradients of {len(points):,} points to a mapping's {size:,} parameters take "
            f"{size * len(points) * 4e-9:.1f} GB; give at most {MOST_GRADIENTS // size:,} points, or a smaller table"
        )
    rows = torch.empty(len(points), size)
    with torch.enable_grad():
        for row, point, slope in zip(rows, points.split(1), to_features, strict=True):
            found = torch.autograd.grad(mapping(point)[0] @ slope, parameters)
            row[:] = torch.cat([gradient.flatten() for gradient in found])
    return rows


@dataclass(frozen=True)
class LinearizedTraining:
    """Full-batch gradient descent on half the sum of the squares of A f(X) - y, f linearised where it starts.

    kernel: of the points X (n, n).  start: the network at X before training (n,).  targets: y (k,).  rate: of descent.
    measurement: A (k, n), by default the values themselves. A measures linearly, as the rays of a scan do; the
    measurements' kernel is then A K A^T.  Sources: Tancik et al. 2020, equations 15 to 20; mu, gamma: Lee et al. 2019.
    """

    kernel: Floats
    start: Floats
    targets: Floats
    rate: float
    measurement: Floats | None = None

    @cached_property
    def regression(self) -> KernelRegression:
        """The descent as kernel regression on what the start leaves of the measurements."""
        if self.measurement is None:
            return KernelRegression(self.kernel, self.targets - self.start, self.rate)
        kernel = self.measurement @ self.kernel @ self.measurement.T
        return KernelRegression(kernel, self.targets - self.measurement @ self.start, self.rate)

    def losses(self, steps: ArrayLike) -> Floats:
        """Half the sum of squares after so many steps, the shape of `steps`."""
        targets = self.regression.targets
        return 0.5 * float(targets @ targets) * (1 - self.regression.learned(steps))

    def mu(self, step: float, cross: Floats | None = None) -> Floats:
        """What `step` steps make of the targets, at other points: K* A^T (A K A^T)^-1 (1 - exp(-rate A K A^T step)) y.

        cross: the kernel K* of those and X (m, n), by default of X itself.  Returns (m,).
        """
        return self._gained(self.targets, step, cross)

    def gamma(self, step: float, cross: Floats | None = None, start: Floats | None = None) -> Floats:
        """What is left after `step` steps of where the network started, f at the other points: `start` (m,).

        mu + gamma is the network; mu is the mean over networks of random start.
        """
        before = self.start if self.measurement is None else self.measurement @ self.start
        return (self.start if start is None else start) - self._gained(before, step, cross)

    def _gained(self, targets: Floats, step: float, cross: Floats | None) -> Floats:
        cross = self.kernel if cross is None else cross
        measured = cross if self.measurement is None else cross @ self.measurement.T
        return self.regression.predict(measured, step, targets)


def linearized(
    network: Network, points: ArrayLike, targets: ArrayLike, *, rate: float, measurement: Floats | None = None
) -> LinearizedTraining:
    """The training of a network from where it is now, predicted. Arguments as of `LinearizedTraining`, `descend`."""
    with torch.no_grad():
        start = network(_tensor(points).to(network.device)).reshape(len(_tensor(points)), -1)[:, 0]
    kernel = tangent_kernel(network, points)
    return LinearizedTraining(kernel, start.double().cpu().numpy(), np.asarray(targets, np.float64), rate, measurement)


def descend(
    network: Network,
    points: ArrayLike,
    targets: ArrayLike,
    *,
    rate: float,
    steps: int,
    measurement: Floats | None = None,
) -> Floats:
    """Train a network by full-batch gradient descent, in place: the losses (steps + 1,), from before the first step.

    The loss is half the sum of squares of the first output, or of its `measurement`, minus `targets`.
    Raises ValueError if it is no longer finite: the rate is too high.
    """
    at, wanted = _tensor(points).to(network.device), _tensor(targets).to(network.device)
    matrix = None if measurement is None else _tensor(measurement).to(network.device)
    parameters, losses = list(network.parameters()), []
    for step in range(steps + 1):
        values = network(at).reshape(len(at), -1)[:, 0]
        loss = 0.5 * ((values if matrix is None else matrix @ values) - wanted).square().sum()
        losses.append(float(loss.detach()))
        if not math.isfinite(losses[-1]):
            raise ValueError(f"the loss is {losses[-1]} at step {step} of rate {rate:g}; lower the rate")
        if step < steps:
            gradients = torch.autograd.grad(loss, parameters)
            with torch.no_grad():
                for parameter, gradient in zip(parameters, gradients, strict=True):
                    parameter.sub_(gradient, alpha=rate)
    return np.array(losses)


def projections(side: int, angles: int) -> Floats:
    """A scan of a square picture from several directions, as a matrix: (angles side, side^2), dense.

    Each row sums the pixels along a strip, shared linearly between two neighbours, over `side`. Pixels in row-major
    order; angles are even over half a turn.
    """
    centers = (np.arange(side) + 0.5) / side - 0.5
    across, up = np.meshgrid(centers, centers)
    rows = np.zeros((angles, side, side * side))
    for row, angle in zip(rows, np.pi * np.arange(angles) / angles, strict=True):
        place = (np.cos(angle) * across + np.sin(angle) * up).ravel() / math.sqrt(2) + 0.5
        low, share = np.divmod(place * (side - 1), 1.0)
        pixels = np.arange(side * side)
        row[low.astype(int), pixels] = 1 - share
        row[np.minimum(low.astype(int) + 1, side - 1), pixels] += share
    return rows.reshape(angles * side, -1) / side
