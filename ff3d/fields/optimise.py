"""The training loop: pools of points and targets, a loss, a budget; the network, its mapping and the data are given."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.optim.adam import adam

from ff3d.fields.checkpoint import Checkpoint, FitError, Progress
from ff3d.fields.config import GRID_MAPPINGS, Budget, OptimiserConfig
from ff3d.fields.network import Network
from ff3d.geometry.cores import threads
from ff3d.progress import Interrupt, ProgressBar

CHECKPOINT_SECONDS = 20.0
PAUSE_SECONDS = 0.25
PIECE = 8192  # points that go through the network together on a CPU: their numbers stay in its caches
WARM_UP = 3  # steps before one is recorded: what libraries do at their first calls cannot be
AHEAD = 3  # pools that are drawn while a GPU trains on one
QUEUED = 8  # replayed steps that a GPU may have before it at most: seconds would not count them


class Pool(NamedTuple):
    """points (n, d), unit coordinates, and targets (n, ...): what the loss compares with. Both float32."""

    points: NDArray[np.float32]
    targets: NDArray[np.float32]


Draw = Callable[[int, int], tuple[NDArray[np.float32], NDArray[np.float32]]]  # (index, count) -> a Pool of `count`
Loss = Callable[[Tensor, Tensor], Tensor]  # (network's output, targets) -> a scalar


def learning_rate_factor(schedule: str, share: float) -> float:
    """The learning rate over its start, when `share` in [0, 1] of the steps, or of the seconds for them, is spent."""
    if schedule == "exponential":
        return float(0.01**share)  # a tenth every half: Tancik et al. 2020, 5,000 of 10,000 steps
    if schedule == "constant":
        return 1.0
    if schedule == "linear":
        return min(1.0, max(0.0, 2 - 2 * share))
    return min(1.0, share / 0.02 + 0.01) * 0.5 * (1 + math.cos(math.pi * share))


class Adam:
    """Adam (Kingma and Ba 2015, arXiv:1412.6980) for a network, with the moments that its mapping wants.

    For tables those of Mueller et al. 2022, arXiv:2201.05989, section 4: most rows are queried in few of the steps.
    torch's own functional form, fused where there is one. `torch.optim.Adam` gives the same numbers, but imports the
    compiler (torch._dynamo), which takes nearly as long as to import all else.
    """

    def __init__(self, network: Network, config: OptimiserConfig):
        on_gpu = network.device.type == "cuda"  # a recorded step reads the rate there
        self._rate_there = torch.zeros((), device=network.device) if on_gpu else None
        self.rate = config.rate(network.mapping.name)
        tables = network.mapping.name in GRID_MAPPINGS
        self._betas, self._epsilon = ((0.9, 0.99), 1e-15) if tables else ((0.9, 0.999), 1e-8)
        self._fused = network.device.type in ("cpu", "cuda")
        self._parameters = list(network.parameters())
        self._steps = [torch.zeros((), device=it.device if self._fused else None) for it in self._parameters]
        self._moments = [(torch.zeros_like(it), torch.zeros_like(it)) for it in self._parameters]

    @property
    def rate(self) -> float:
        """The learning rate of the next step."""
        return self._rate

    @rate.setter
    def rate(self, value: float) -> None:
        self._rate = value
        if self._rate_there is not None:
            self._rate_there.fill_(value)

    def clear_gradients(self) -> None:
        """Forget the gradients of the last step."""
        for parameter in self._parameters:
            parameter.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """Move the parameters that have gradients by `rate`."""
        used = [i for i, parameter in enumerate(self._parameters) if parameter.grad is not None]
        adam(
            [self._parameters[i] for i in used],
            [self._parameters[i].grad for i in used],  # type: ignore[misc]
            [self._moments[i][0] for i in used],
            [self._moments[i][1] for i in used],
            [],
            [self._steps[i] for i in used],
            fused=self._fused,
            amsgrad=False,
            beta1=self._betas[0],
            beta2=self._betas[1],
            lr=self.rate if self._rate_there is None else self._rate_there,
            weight_decay=0.0,
            eps=self._epsilon,
            maximize=False,
        )

    def state(self) -> dict[str, Tensor]:
        """All that a resumed fit needs, by the index of the parameter and torch's names: "0.step", "0.exp_avg", ..."""
        tensors: dict[str, Tensor] = {}
        for i, (step, (first, second)) in enumerate(zip(self._steps, self._moments, strict=True)):
            tensors |= {f"{i}.step": step, f"{i}.exp_avg": first, f"{i}.exp_avg_sq": second}
        return tensors

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over what `state` returned. Raises KeyError or ValueError if it is another network's."""
        for name, tensor in self.state().items():
            if tensors[name].shape != tensor.shape:
                raise ValueError(f"{name}: expected shape {tuple(tensor.shape)}, got {tuple(tensors[name].shape)}")
            tensor.copy_(tensors[name])


class GradientDescent:
    """Plain gradient descent: what the theory of wide networks speaks of."""

    def __init__(self, network: Network, rate: float):
        self.rate = rate
        self._parameters = list(network.parameters())

    def clear_gradients(self) -> None:
        """Forget the gradients of the last step."""
        for parameter in self._parameters:
            parameter.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """Move the parameters that have gradients by `rate` times those."""
        for parameter in self._parameters:
            if parameter.grad is not None:
                parameter.sub_(parameter.grad, alpha=self.rate)

    def state(self) -> dict[str, Tensor]:
        """Nothing is kept between steps."""
        return {}

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over what `state` returned: nothing."""


class PoolCursor:
    """Which batch of which pool a step takes; pools are drawn when they are first needed, beside a GPU ahead of that.

    draw: (k, count) -> the k-th pool, of `count` points; a function of both alone, so that a resumed fit sees what an
    undisturbed one sees.  steps: of the fit, None if they are not known.
    drawing: seconds that the last pool took to draw.  waiting: those in which no step was taken meanwhile.
    """

    def __init__(self, draw: Draw, config: OptimiserConfig, device: torch.device, steps: int | None = None):
        self.draw, self.config, self.device, self.steps = draw, config, device, steps
        self.index, self.drawing, self.waiting = -1, 0.0, 0.0
        self._begin = self._end = 0  # the steps that the pool serves
        self._points = self._targets = torch.zeros(0)
        # the cores of a CPU are busy; beside a GPU a pool has threads of its own, so that few are drawn at once
        self._executor = None if device.type == "cpu" else ThreadPoolExecutor(max(1, min(AHEAD, threads() // 4)))
        self._ahead: deque[Future[tuple[Pool, float]]] = deque()  # the next pools
        self._last = 0  # the steps that these and those before them serve

    def needs_pool(self, step: int, seconds_left: float | None) -> bool:
        """Whether a new pool is due. With few seconds left the last one is used again instead.

        A pool that would take half of what is left of the seconds, or more, is not worth drawing.
        """
        drawn = bool(self._ahead) and self._ahead[0].done()
        if step >= self._end and self.index >= 0 and not drawn and not self._pays(self.index + 1, seconds_left):
            self._end += self.config.batches_in_pool(self.index)
        return step >= self._end

    def next_pool(self, step: int, seconds_left: float | None = None) -> None:
        """Get the pool of this step."""
        while step >= self._end:
            self.index += 1
            batches = self.config.batches_in_pool(self.index)
            self._begin, self._end = self._end, self._end + batches * self.config.passes
        begun = time.perf_counter()
        pool, self.drawing = self._ahead.popleft().result() if self._ahead else self._drawn(self.index)
        self.waiting = time.perf_counter() - begun
        self._last = max(self._last, self._end)
        while self._executor and len(self._ahead) < AHEAD and (self.steps is None or self._last < self.steps):
            index = self.index + 1 + len(self._ahead)
            if not self._pays(index, seconds_left):
                break
            self._ahead.append(self._executor.submit(self._drawn, index))
            self._last += self.config.batches_in_pool(index) * self.config.passes
        self._points, self._targets = (torch.from_numpy(array).to(self.device, torch.float32) for array in pool)

    def _pays(self, index: int, seconds_left: float | None) -> bool:
        """Whether a pool would take less than half of what is left of the seconds, by what the last one took."""
        growth = self.config.batches_in_pool(index) / self.config.batches_in_pool(self.index)
        return seconds_left is None or seconds_left >= 2 * growth * self.drawing

    def _drawn(self, index: int) -> tuple[Pool, float]:
        """The pool of this index, and the seconds that it took."""
        begun = time.perf_counter()
        pool = Pool(*self.draw(index, self.config.batches_in_pool(index) * self.config.batch_size))
        return pool, time.perf_counter() - begun

    def close(self) -> None:
        """Wait for what is being drawn ahead, and forget it."""
        if self._executor:
            self._executor.shutdown(cancel_futures=True)

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """The points and targets of a step."""
        size = self.config.batch_size
        start = (step - self._begin) % self.config.batches_in_pool(self.index) * size
        return self._points[start : start + size], self._targets[start : start + size]


def outputs_of(network: Network, points: Tensor) -> Tensor:
    """network(points), for a large batch on a CPU in pieces: a tenth to a quarter faster, forward and backward."""
    if points.device.type != "cpu" or len(points) <= PIECE:
        return network(points)
    return torch.cat([network(piece) for piece in points.split(PIECE)])


class Step:
    """A training step: (points, targets) -> the loss before it, a scalar tensor."""

    def __init__(self, network: Network, loss: Loss, optimizer: Adam | GradientDescent):
        self.network, self.loss, self.optimizer = network, loss, optimizer

    def __call__(self, points: Tensor, targets: Tensor) -> Tensor:
        """Take the step."""
        loss = self.loss(outputs_of(self.network, points), targets)
        self.optimizer.clear_gradients()
        loss.backward()
        self.optimizer.step()
        return loss.detach()  # what leads to it must not outlive the step


class RecordedStep:
    """The same step on a CUDA device, recorded once and replayed: one launch in place of a hundred, the same numbers.

    CUDA graphs (torch.cuda.CUDAGraph): every replay reads and writes the same memory. So the loss and the optimizer's
    step must be torch's operations alone, none of which looks at a value; a batch of another size is a plain step.
    """

    def __init__(self, step: Step):
        self.step, self.count = step, 0
        self._queued: deque[torch.cuda.Event] = deque()
        self._graph: torch.cuda.CUDAGraph | None = None
        self._beside = torch.cuda.Stream(step.network.device)  # where steps must have been taken before one is recorded

    def __call__(self, points: Tensor, targets: Tensor) -> Tensor:
        """Take the step, or replay it: the loss is a tensor that the next replay overwrites."""
        with torch.cuda.device(points.device):
            return self._take(points, targets)

    def _take(self, points: Tensor, targets: Tensor) -> Tensor:
        self.count += 1
        if self.count <= WARM_UP:
            current = torch.cuda.current_stream()
            self._beside.wait_stream(current)
            with torch.cuda.stream(self._beside):
                loss = self.step(points, targets)
            current.wait_stream(self._beside)
            return loss
        if self._graph is None:
            self._points, self._targets = points.clone(), targets.clone()
            self._graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self._graph, stream=self._beside, capture_error_mode="thread_local"):
                self._loss = self.step(self._points, self._targets)
        if points.shape != self._points.shape:
            return self.step(points, targets)
        self._points.copy_(points)
        self._targets.copy_(targets)
        self._graph.replay()
        self._queued.append(torch.cuda.current_stream().record_event())
        if len(self._queued) > QUEUED:
            self._queued.popleft().synchronize()
        return self._loss


def optimise(
    network: Network,
    draw: Draw,
    config: OptimiserConfig,
    budget: Budget,
    *,
    loss: Loss,
    evaluate: Callable[[], dict[str, float]] | None = None,
    evaluations: int | Sequence[float] = 10,
    optimizer: Adam | GradientDescent | None = None,
    on_evaluation: Callable[[Progress], None] | None = None,
    on_pause: Callable[[Progress], bool] | None = None,
    checkpoint: Checkpoint | None = None,
    spent: float = 0.0,
    title: str = "",
) -> Progress:
    """Fit `network` in place until the budget is spent or a signal comes (Ctrl-C, SIGTERM, SIGHUP).

    draw: see `PoolCursor`.  loss: (output, targets) -> a scalar tensor; see `RecordedStep`.
    evaluate: named held-out scores, queried `evaluations` times over the budget, or at those shares of it, ascending;
    its time, and that of `on_evaluation`, is not part of the budget.  optimizer: by default Adam.
    on_pause: called between two steps every `PAUSE_SECONDS`, on the budget's time; True ends the fit as Ctrl-C does.
    checkpoint: where the state of the unfinished fit is kept; one that is there already is resumed.
    spent: seconds of the budget that preparing the labels took before.  title: of a progress bar; "" for none.
    Raises FitError if the loss is no longer finite, if nothing of the seconds is left for a first step, or if the
    checkpoint belongs to other settings.
    """
    device, optimizer = network.device, optimizer or Adam(network, config)
    moments = [(i + 1) / evaluations for i in range(evaluations)] if isinstance(evaluations, int) else [*evaluations]
    moments.append(1.0)
    base_rate = optimizer.rate
    progress = Progress(seconds=spent, labelling=spent, prepared=spent)
    if checkpoint is not None:
        progress = checkpoint.load(network, optimizer) or progress
    cursor = PoolCursor(draw, config, device, budget.steps)
    step = Step(network, loss, optimizer)
    recorded = device.type == "cuda" and type(optimizer) is Adam
    take_step = RecordedStep(step) if recorded else step
    last_loss = torch.tensor(progress.loss)
    begun, saved = time.perf_counter() - progress.seconds, time.perf_counter()
    pause_due, stopped = progress.seconds, False

    def share() -> float:
        return budget.share(progress.step, progress.seconds)

    def evaluation_due() -> bool:
        return share() >= min(1.0, moments[min(len(progress.history), len(moments) - 1)])

    def rate_factor() -> float:
        """The schedule begins with the first step, however much of the budget the labels took."""
        before = min(1.0, budget.share(0, progress.prepared))
        return learning_rate_factor(config.schedule, (share() - before) / max(1 - before, 1e-9))

    def done() -> float:
        return float(progress.step if budget.steps else progress.seconds)

    if budget.seconds and progress.step == 0 and spent >= budget.seconds:
        raise FitError(f"to prepare the labels took {spent:.1f} s of {budget.seconds:g} s; give more seconds")
    with Interrupt() as interrupt, ExitStack() as stack:
        bar = _bar(budget, title) if title else None
        stack.callback(cursor.close)
        if bar:
            stack.callback(bar.close)
        while share() < 1 and not interrupt.signal and not stopped:
            left = None if budget.seconds is None else budget.seconds - progress.seconds
            if cursor.needs_pool(progress.step, left):
                cursor.next_pool(progress.step, left)
                progress.labelling += cursor.waiting
                if progress.step == 0:
                    progress.seconds = progress.prepared = time.perf_counter() - begun
            points, targets = cursor.batch(progress.step)
            optimizer.rate = base_rate * rate_factor()
            last_loss = take_step(points, targets)
            progress.step += 1
            progress.seconds = time.perf_counter() - begun
            if bar:
                bar.show(done())
            if on_pause and progress.seconds >= pause_due:
                progress.loss = float(last_loss)
                stopped = on_pause(progress)
                progress.seconds = time.perf_counter() - begun
                pause_due = progress.seconds + PAUSE_SECONDS
            checkpoint_due = checkpoint is not None and time.perf_counter() - saved > CHECKPOINT_SECONDS
            if evaluation_due() or checkpoint_due:
                if device.type == "cuda":
                    torch.cuda.synchronize(device)
                paused = time.perf_counter()
                progress.seconds = paused - begun  # may be past a moment now
                progress.loss = float(last_loss)
                if not math.isfinite(progress.loss):
                    raise FitError(f"the loss is {progress.loss} at step {progress.step}; lower the learning rate")
                if evaluation_due():
                    scores = evaluate() if evaluate else {}
                    progress.record(config.batch_size, scores)
                    if bar:
                        bar.show(done(), scores)
                    if on_evaluation:
                        on_evaluation(progress)
                if checkpoint_due and checkpoint is not None:
                    checkpoint.save(network, optimizer, progress)
                    saved = time.perf_counter()
                begun += time.perf_counter() - paused
    progress.finished = share() >= 1
    progress.interrupted, progress.signal = bool(interrupt.signal) or stopped, interrupt.signal
    progress.loss = float(last_loss)
    if checkpoint is not None:  # also of a finished fit: what is done with the network next may be broken off
        checkpoint.save(network, optimizer, progress)
    return progress


def _bar(budget: Budget, title: str) -> ProgressBar:
    """A bar over a budget, in its own measure."""
    return ProgressBar(float(budget.steps or budget.seconds or 0), " steps" if budget.steps else " s", title)
