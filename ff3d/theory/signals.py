"""Networks fitted to a signal of one dimension: figures 2 to 4 of Tancik et al. 2020, arXiv:2006.10739.

32 points of a 1 / f^power signal are trained on, 224 between them tested: small enough to watch each frequency being
learned, by plain gradient descent, as the theory of wide networks has it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from ff3d.fields.config import Budget, OptimiserConfig
from ff3d.fields.mapping import InputMapping, RawCoordinates
from ff3d.fields.network import Network
from ff3d.fields.optimise import Adam, GradientDescent, Pool, optimise
from ff3d.geometry.arrays import Floats
from ff3d.theory.dynamics import LinearizedTraining, tangent_kernel
from ff3d.theory.ntk import mapped_kernel

TRAINED, BETWEEN = 32, 8  # points trained on; of 8 neighbouring points one is
RATE = 1e-5  # of gradient descent, on half the sum of squares
PAPER_STEPS = 50_000
FALLOFFS: tuple[float | None, ...] = (0.0, 0.5, 1.0, 1.5, 2.0, math.inf, None)
EVERY_BATCH = 10**9  # passes over the one pool that holds all points
Distribution = Literal["gaussian", "uniform", "laplacian", "log-uniform"]
DISTRIBUTIONS: tuple[Distribution, ...] = ("gaussian", "uniform", "laplacian", "log-uniform")


@dataclass(frozen=True, eq=False)
class Signal:
    """places (n,) in [0, 1) and values (n,) in [-0.5, 0.5]; every `step`-th is trained on, the others are tested."""

    places: Floats
    values: Floats
    step: int

    @property
    def trained(self) -> tuple[Floats, Floats]:
        """Places and values that are trained on."""
        return self.places[:: self.step], self.values[:: self.step]

    @property
    def tested(self) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Which points are tested (n,)."""
        return np.arange(len(self.places)) % self.step != 0


def random_signal(power: float = 1.0, *, seed: int = 0, trained: int = TRAINED, step: int = BETWEEN) -> Signal:
    """A periodic signal whose amplitudes fall as 1 / (1 + f)^power, up to a quarter of its points' number.

    As the authors' notebook draws it, and scaled to [-0.5, 0.5].
    Raises ValueError for a power that is not finite or leaves no signal, or fewer than 4 points or 2 between.
    """
    if not math.isfinite(power) or trained < 4 or step < 2:
        raise ValueError(f"a signal needs a finite power, 4 points and a step of 2, got {power}, {trained} and {step}")
    count = trained * step
    rng = np.random.default_rng(seed)
    frequencies = np.arange(count // 4)
    waves = np.zeros(count, dtype=np.complex128)
    waves[: count // 4] = (rng.standard_normal((count // 4, 2)) @ [1, 1j]) * (1.0 + frequencies) ** -power
    values = np.fft.ifft(waves).real
    if not np.ptp(values) > 0:
        raise ValueError(f"amplitudes of 1 / f^{power:g} are out of range; give a power nearer 1")
    values = (values - values.min()) / np.ptp(values) - 0.5
    return Signal(np.arange(count) / count, values, step)


@dataclass(frozen=True, eq=False)
class SignalFit:
    """What `fit_signal` returns.

    steps (k,): when the fit was measured.  train, test (k,): mean square errors.  bands (k, f): |FFT| of the error at
    the trained points, frequency 0 to half their number.  values (n,): the network at the end, at every place.
    predicted: train and test (k,), from the network's own tangent kernel before the first step; None where Adam trains.
    """

    signal: Signal
    network: Network
    title: str
    steps: list[int]
    train: list[float]
    test: list[float]
    bands: Floats
    values: Floats
    seconds: float
    interrupted: bool = False
    predicted: tuple[list[float], list[float]] | None = None

    def to_json(self) -> dict[str, Any]:
        """A row of plain values."""
        return {
            "mapping": self.title,
            "step": self.steps[-1],
            "seconds": round(self.seconds, 3),
            "train": self.train[-1],
            "test": self.test[-1],
            "steps": self.steps,
            "train_curve": self.train,
            "test_curve": self.test,
            "bands": self.bands.tolist(),
            "values": self.values.tolist(),
        } | ({"train_predicted": self.predicted[0], "test_predicted": self.predicted[1]} if self.predicted else {})


def falloff_mapping(falloff: float | None, count: int = TRAINED // 2) -> InputMapping:
    """Frequencies 1 to `count`, amplitudes 1 / j^falloff scaled to |gamma| = 1; inf: the first alone; None: x - 1/2.

    The Fourier mapping of figures 2 and 3. Raises ValueError for a falloff that is negative or not a number.
    """
    if falloff is None:
        return RawCoordinates(1, center=0.5)
    if not falloff >= 0:
        raise ValueError(f"falloff must be 0 or more, got {falloff}")
    frequencies = torch.arange(1.0, count + 1)
    amplitudes = frequencies**-falloff
    return InputMapping("positional", frequencies[:, None], amplitudes / amplitudes.norm())


def falloff_title(falloff: float | None) -> str:
    """How a falloff is called: p = 0.5, p = inf, no mapping."""
    return "no mapping" if falloff is None else f"p = {falloff:g}"


def signal_network(mapping: InputMapping, *, width: int = 1024, depth: int = 3, seed: int = 0) -> Network:
    """A network of one output, its weights N(0, 1 / inputs), its biases 0: the notebook's standard parametrisation."""
    network = Network(mapping, width=width, depth=depth, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for layer in network.layers:
            assert isinstance(layer, torch.nn.Linear)
            layer.weight.normal_(0, layer.in_features**-0.5, generator=generator)
            layer.bias.zero_()
    return network


def fit_signal(
    falloff: float | None = 1.0,
    *,
    signal: Signal | None = None,
    power: float = 1.0,
    steps: int = 2000,
    rate: float = RATE,
    width: int = 1024,
    depth: int = 3,
    seed: int = 0,
    progress_bar: bool = False,
) -> SignalFit:
    """Fit a network to 32 points of a signal by gradient descent: `ff3d.fit_signal(math.inf, power=1.0)`.

    falloff: of the mapping's amplitudes, None for no mapping.  signal: by default a random one of this power and seed.
    The paper's figures 2 and 3 take 50,000 steps, 3 hidden layers of 1,024 and a rate of 1e-5, on half the sum of
    squares. Raises ValueError for a falloff or power out of range, FitError if the loss diverges.
    """
    signal = random_signal(power, seed=seed) if signal is None else signal
    network = signal_network(falloff_mapping(falloff), width=width, depth=depth, seed=seed)
    title = falloff_title(falloff)
    training = predicted_training(network, signal, rate)
    fit = _fitted(signal, network, GradientDescent(network, rate), steps, title=title, progress_bar=progress_bar)
    return replace(fit, predicted=training(fit.steps))


def predicted_training(
    network: Network, signal: Signal, rate: float
) -> Callable[[Sequence[int]], tuple[list[float], list[float]]]:
    """Mean square errors, trained and tested, that gradient descent will have after so many steps, as a function.

    From the network's tangent kernel as it is now: equations 3 and 4 of Tancik et al. 2020, at this width.
    """
    places = signal.places[:, None]
    with torch.no_grad():
        start = network(torch.from_numpy(places).float())[:, 0].double().numpy()
    kernel = tangent_kernel(network, places)
    trained = ~signal.tested
    training = LinearizedTraining(kernel[np.ix_(trained, trained)], start[trained], signal.trained[1], rate)

    def errors(steps: Sequence[int]) -> tuple[list[float], list[float]]:
        train, test = [], []
        for step in steps:
            cross = kernel[:, trained]
            error = training.mu(step, cross) + training.gamma(step, cross, start) - signal.values
            train.append(float(np.mean(error[trained] ** 2)))
            test.append(float(np.mean(error[signal.tested] ** 2)))
        return train, test

    return errors


def predicted_by_falloff(
    power: float, falloffs: Sequence[float] = tuple(np.arange(0, 3.01, 0.25)), *, signals: int = 32, depth: int = 3
) -> list[tuple[float, float]]:
    """(falloff, test error) of infinitely wide networks, trained to the end: which amplitudes the theory would choose.

    The mean square error over random signals of this power (seeds 0, 1, ...), from the closed form of the kernel.
    Appendix A.2 of the paper chooses every amplitude so; here they are 1 / j^falloff. A larger falloff ends about as
    well as the best one, but needs longer.
    """
    drawn = [random_signal(power, seed=seed) for seed in range(signals)]
    tested, values = drawn[0].tested, np.stack([it.values for it in drawn], axis=1)
    places = drawn[0].places[:, None]
    errors = []
    for falloff in falloffs:
        mapping = falloff_mapping(falloff)
        features = mapping(torch.from_numpy(places)).double().numpy()
        kernel = mapped_kernel(lambda mapped: mapped, depth=depth)(features, features)
        weights = np.linalg.lstsq(kernel[np.ix_(~tested, ~tested)], values[~tested], rcond=1e-12)[0]
        predicted = kernel[np.ix_(tested, ~tested)] @ weights
        errors.append((float(falloff), float(np.mean((predicted - values[tested]) ** 2))))
    return errors


def fit_sparse(
    distribution: Distribution,
    std: float,
    *,
    signal: Signal,
    count: int = 16,
    steps: int = 300,
    width: int = 256,
    seed: int = 0,
) -> tuple[float, SignalFit]:
    """Fit a network under `count` random frequencies: figure 4. Returns their own standard deviation, and the fit.

    By Adam at 2e-3, 3 hidden layers. The paper says that this standard deviation matters, and not the distribution.
    """
    frequencies = draw_frequencies(distribution, std, count, seed=seed)
    network = Network(InputMapping("gaussian", frequencies[:, None]), width=width, depth=3, seed=seed)
    adam = Adam(network, OptimiserConfig(learning_rate=2e-3))
    fit = _fitted(signal, network, adam, steps, title=f"{distribution} {std:g}", progress_bar=False)
    return float(frequencies.square().mean().sqrt()), fit


def check_signal_fits(falloffs: Sequence[float | None], stds: Sequence[float], steps: int) -> None:
    """Raise ValueError, before the first fit, for what `fit_signal` or `fit_sparse` would not take."""
    Budget(steps=steps)
    for falloff in falloffs:
        falloff_mapping(falloff)
    for std in stds:
        draw_frequencies("gaussian", std, 1, seed=0)


def draw_frequencies(distribution: Distribution, std: float, count: int, *, seed: int) -> Tensor:
    """Frequencies (count,), about 0, of this standard deviation in the mean: one of `DISTRIBUTIONS`.

    log-uniform: of either sign, their magnitudes over two decades.
    Raises ValueError for another name, or a standard deviation that is not positive.
    """
    if not (math.isfinite(std) and std > 0):
        raise ValueError(f"std must be a positive number of cycles, got {std}")
    rng = np.random.default_rng(seed)
    if distribution == "gaussian":
        drawn = rng.standard_normal(count)
    elif distribution == "uniform":
        drawn = rng.uniform(-math.sqrt(3), math.sqrt(3), count)
    elif distribution == "laplacian":
        drawn = rng.laplace(0, math.sqrt(0.5), count)
    elif distribution == "log-uniform":
        root_mean_square = math.sqrt((1 - 1e-4) / (2 * math.log(100)))  # of 100^-u, u uniform in [0, 1]
        drawn = rng.choice([-1.0, 1.0], count) * 100 ** -rng.random(count) / root_mean_square
    else:
        raise ValueError(f"unknown distribution {distribution!r}; known: {', '.join(DISTRIBUTIONS)}")
    return torch.from_numpy(std * drawn).float()


def half_sum(outputs: Tensor, targets: Tensor) -> Tensor:
    """Half the sum of squares, the notebook's loss."""
    return 0.5 * (outputs - targets).square().sum()


def _fitted(
    signal: Signal, network: Network, optimizer: Adam | GradientDescent, steps: int, *, title: str, progress_bar: bool
) -> SignalFit:
    places, values = (it.astype(np.float32)[:, None] for it in signal.trained)
    every = torch.from_numpy(signal.places.astype(np.float32)[:, None])
    train, test, bands = [], [], []

    @torch.no_grad()
    def predicted() -> Floats:
        return network(every)[:, 0].numpy().astype(np.float64)

    def evaluate() -> dict[str, float]:
        error = predicted() - signal.values
        train.append(float(np.mean(error[:: signal.step] ** 2)))
        test.append(float(np.mean(error[signal.tested] ** 2)))
        bands.append(np.abs(np.fft.rfft(error[:: signal.step])))
        return {"train": train[-1], "test": test[-1]}

    config = OptimiserConfig(
        batch_size=len(places), pool_size=len(places), passes=EVERY_BATCH, schedule="constant", learning_rate=RATE
    )
    progress = optimise(
        network,
        lambda index, count: Pool(places, values),
        config,
        Budget(steps=steps),
        loss=half_sum if isinstance(optimizer, GradientDescent) else torch.nn.functional.mse_loss,
        evaluate=evaluate,
        evaluations=[step / steps for step in moments(steps)],
        optimizer=optimizer,
        title=title if progress_bar else "",
    )
    if not progress.finished:
        evaluate()
        progress.record(len(places), {})
    measured = [row["step"] for row in progress.history]
    interrupted = progress.interrupted and not progress.finished
    return SignalFit(
        signal, network, title, measured, train, test, np.array(bands), predicted(), progress.seconds, interrupted
    )


def moments(steps: int) -> list[int]:
    """Steps at which a fit is measured: some forty, evenly in their logarithm, the last included."""
    return sorted({max(1, round(step)) for step in np.geomspace(1, steps, min(steps, 40))})
