"""fit: labelled points -> a trained field. Loop, schedule, budget, checkpoint and resume."""

from __future__ import annotations

import copy
import dataclasses
import json
import logging
import math
import signal
import threading
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  (torch's own name for it)
from numpy.typing import NDArray
from torch import Tensor

from ff3d.fields.devices import best_device, best_precision
from ff3d.fields.feature_grids import GRID_DEFAULTS
from ff3d.fields.field import FAR_LOGIT, OccupancyField
from ff3d.fields.mapping import make_mapping
from ff3d.files import write_whole
from ff3d.geometry.coordinates import UnitCube
from ff3d.geometry.cores import keep_freed_memory
from ff3d.points.training_points import Pool, Supply
from ff3d.settings import TABLES, FitConfig, as_plain, make_config

if TYPE_CHECKING:
    import trimesh

    from ff3d.geometry.surface_cells import SurfaceCells
    from ff3d.labels.oracles import Oracle, Shape
    from ff3d.metrics import LabelledPoints

log = logging.getLogger("ff3d")

CHECKPOINT_SECONDS = 20.0
LOSABLE = 0.0005  # IoU, when numbers are stored in fewer bytes


class FitError(RuntimeError):
    """A fit that cannot go on; the message says what happened and what to change."""


@dataclass
class Progress:
    """How far a fit is: steps done, seconds of the budget spent, the last loss, and each evaluation's row.

    labelling: those of the seconds that went into drawing and labelling points.
    finished: the budget is spent.  interrupted: Ctrl-C was pressed; after the last step both are true.
    """

    step: int = 0
    seconds: float = 0.0
    labelling: float = 0.0
    loss: float = math.nan
    finished: bool = False
    interrupted: bool = False
    history: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Fit:
    """What `train` returns: the field and how it came about."""

    field: OccupancyField
    config: FitConfig
    progress: Progress


def learning_rate_factor(schedule: str, share: float) -> float:
    """The learning rate over its start, when `share` in [0, 1] of the budget is spent."""
    if schedule == "exponential":
        return float(0.01**share)  # a tenth every half: Tancik et al. 2020, 5,000 of 10,000 steps
    if schedule == "linear":
        return min(1.0, max(0.0, 2 - 2 * share))
    return min(1.0, share / 0.02 + 0.01) * 0.5 * (1 + math.cos(math.pi * share))


def optimise(
    field: OccupancyField,
    draw: Callable[[int], Pool],
    config: FitConfig,
    *,
    evaluate: Callable[[OccupancyField], dict[str, float]] | None = None,
    evaluations: int = 10,
    on_evaluation: Callable[[Progress], None] | None = None,
    checkpoint: Path | None = None,
    spent: float = 0.0,
    progress_bar: bool = False,
) -> Progress:
    """Fit `field` in place by Adam until the budget is spent or Ctrl-C.

    The loss is the binary cross-entropy of the labels, or for a field of distances, the L1 norm of logit -
    `FAR_LOGIT` tanh(distance).
    draw: k -> the k-th pool, of config.batches_in_pool(k) batches; a function of k alone, so that a resumed fit sees
    what an undisturbed one sees.
    evaluate: named held-out scores, asked `evaluations` times over the budget; its time is not part of the budget.
    checkpoint: where to keep the state of the unfinished fit; one that is there already is gone on from.
    spent: seconds of the budget that preparing the labels took before.
    Raises FitError if the loss is no longer finite, if nothing of the seconds is left for a first step, or if the
    checkpoint belongs to other settings.
    """
    keep_freed_memory()
    device = field.device
    # tables: as Mueller et al. 2022, arXiv:2201.05989, section 4; most rows are asked about in few of the steps
    moments: dict[str, Any] = {"betas": (0.9, 0.99), "eps": 1e-15} if config.mapping in TABLES else {}
    parameters = list(field.parameters())
    optimizer = torch.optim.Adam(parameters, lr=config.rate, fused=device.type in ("cpu", "cuda"), **moments)
    progress = Progress(seconds=spent, labelling=spent)
    if checkpoint is not None and checkpoint.exists():
        progress = load_checkpoint(checkpoint, field, optimizer, config)
    pool, pool_begins, pool_ends = -1, 0, 0
    loss, last_draw = torch.tensor(progress.loss), 0.0
    begun, saved = time.perf_counter() - progress.seconds, time.perf_counter()

    def share() -> float:
        return progress.step / config.steps if config.steps else progress.seconds / (config.seconds or 1.0)

    if config.seconds and progress.step == 0 and spent >= config.seconds:
        raise FitError(f"to prepare the labels took {spent:.1f} s of {config.seconds:g} s; give more seconds")
    with _Interrupt() as interrupt, closing(_Bar(config, enabled=progress_bar)) as bar:
        while share() < 1 and not interrupt.asked:
            if progress.step >= pool_ends and pool >= 0 and config.seconds:
                # a pool that would take half of what is left of the seconds, or more, is not worth drawing: once more
                # through the last one
                growth = config.batches_in_pool(pool + 1) / config.batches_in_pool(pool)
                if config.seconds - progress.seconds < 2 * growth * last_draw:
                    pool_ends += config.batches_in_pool(pool)
            if progress.step >= pool_ends:
                while progress.step >= pool_ends:
                    pool += 1
                    pool_begins, pool_ends = pool_ends, pool_ends + config.batches_in_pool(pool) * config.passes
                drawing = time.perf_counter()
                points, targets = (torch.from_numpy(it).to(device, torch.float32) for it in draw(pool))
                last_draw = time.perf_counter() - drawing
                progress.labelling += last_draw
            start = (progress.step - pool_begins) % config.batches_in_pool(pool) * config.batch_size
            batch = slice(start, start + config.batch_size)
            for group in optimizer.param_groups:
                group["lr"] = config.rate * learning_rate_factor(config.schedule, share())
            if field.target == "distance":
                loss = F.l1_loss(field(points[batch]), FAR_LOGIT * targets[batch].tanh())
            else:
                loss = F.binary_cross_entropy_with_logits(field(points[batch]), targets[batch])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            progress.step += 1
            progress.seconds = time.perf_counter() - begun
            bar.show(progress)
            evaluation_due = share() >= min(1.0, (len(progress.history) + 1) / evaluations)
            checkpoint_due = checkpoint is not None and time.perf_counter() - saved > CHECKPOINT_SECONDS
            if evaluation_due or checkpoint_due:
                if device.type == "cuda":
                    torch.cuda.synchronize(device)
                paused = time.perf_counter()
                progress.seconds = paused - begun
                progress.loss = float(loss.detach())
                if not math.isfinite(progress.loss):
                    raise FitError(f"the loss is {progress.loss} at step {progress.step}; lower the learning rate")
                if evaluation_due:
                    scores = evaluate(field) if evaluate else {}
                    progress.history.append(_row(progress, config, scores))
                    bar.show(progress, scores)
                    if on_evaluation:
                        on_evaluation(progress)
                if checkpoint_due and checkpoint is not None:
                    save_checkpoint(checkpoint, field, optimizer, progress, config)
                    saved = time.perf_counter()
                begun += time.perf_counter() - paused
    progress.finished, progress.interrupted = share() >= 1, interrupt.asked
    progress.loss = float(loss.detach())
    if checkpoint is not None:  # also of a finished fit: what is done with the field next may be broken off
        save_checkpoint(checkpoint, field, optimizer, progress, config)
    return progress


def train(
    shape: Shape,
    config: FitConfig,
    *,
    oracle: Oracle | None = None,
    held_out: dict[str, LabelledPoints] | None = None,
    on_evaluation: Callable[[Progress], None] | None = None,
    checkpoint: Path | None = None,
    spent: float = 0.0,
    progress_bar: bool = False,
    source: dict[str, Any] | None = None,
) -> Fit:
    """Label points of a shape, one that `load_surface` takes, and fit a field to them.

    oracle: points -> bool; by default the shape's own, of a mesh its generalized winding number.
    held_out: test sets scored as the fit goes; by default 2^15 points of each kind, seeded apart from training.
    Otherwise as `optimise`.
    """
    from ff3d.geometry.coordinates import grown_box
    from ff3d.labels.oracles import surface_and_oracle
    from ff3d.labels.surfels import PointCloudOracle

    begun = time.perf_counter()
    keep_freed_memory()
    mesh, oracle = surface_and_oracle(shape, oracle)
    if isinstance(oracle, PointCloudOracle) and config.target == "distance":
        log.info("a point cloud has no distances between its points: fitted to labels")
        config = replace(config, target="occupancy")
    device, precision = where(config)
    cube = (UnitCube.paper if config.cube == "paper" else UnitCube.padded)(mesh.vertices)
    bounds = grown_box(mesh, config.margin * cube.scale)
    surface = surface_cells(oracle, cube, bounds if config.guarded else None)
    guarded = config.guarded and surface is not None
    if config.guarded and not guarded:
        log.info("not guarded, and points as those of plain: these labels have no cell grid")
        config = as_plain(config, ("uniform", "widths"))
    asked = {name: getattr(config, name) for name in GRID_DEFAULTS.get(config.mapping, ())}
    mapping = make_mapping(
        config.mapping,
        count=config.frequencies,
        scale=config.scale,
        seed=config.seed,
        notebook=config.notebook,
        **{name: value for name, value in asked.items() if value is not None},
    )
    result = OccupancyField(
        mapping,
        width=config.width_for(mapping.features),
        depth=config.layers,
        activation=config.activation,
        target=config.target,
        cube=cube,
        bounds=bounds,
        precision=precision,
        source=source,
        surface=surface,
        guarded=guarded,
        seed=config.seed,
    ).to(device)
    log.info("%s: %d parameters on %s in %s", config.mapping, result.parameter_count, device.type, precision)

    def open_space(count: int, rng: np.random.Generator) -> NDArray[np.float64]:
        assert surface is not None
        return np.clip(cube.from_unit(surface.draw(count, rng, cube.to_unit(bounds))), *bounds)

    draw = Supply(mesh, oracle, cube, config, open_space if guarded else None)
    spent += time.perf_counter() - begun
    tests = _held_out(mesh, config, oracle, 2**15) if held_out is None else held_out
    progress = optimise(
        result,
        draw,
        config,
        evaluate=lambda field: _scores(field, tests),
        on_evaluation=on_evaluation,
        checkpoint=checkpoint,
        spent=spent,
        progress_bar=progress_bar,
    )
    if result.surface is None:  # the grid may have been made since
        result.surface = surface_cells(oracle, cube)
    return Fit(_stored(result, mesh, config, oracle), config, progress)


def surface_cells(oracle: Oracle, cube: UnitCube, bounds: NDArray[np.float64] | None = None) -> SurfaceCells | None:
    """The coarse cells of an oracle's cell grid, in the coordinates of `cube`; None if it has none.

    bounds: of a field (2, 3), input coordinates, that the cells are to guard: the grid is made if it can be, and the
    outermost cells have the labels that hold as far as there.
    """
    from ff3d.labels.winding_number import WindingNumberOracle

    if not isinstance(oracle, WindingNumberOracle):
        return None
    grid = oracle.known_grid if bounds is None else oracle.grid
    if grid is None:
        return None
    cells = grid.surface_cells()
    lower = cube.to_unit(oracle.cube.from_unit(cells.lower[None]))[0]
    cells = replace(cells, lower=lower, side=cells.side * oracle.cube.scale / cube.scale)
    if bounds is None:
        return cells
    return cells.settled(cube.to_unit(bounds), lambda unit: oracle.winding_number(cube.from_unit(unit)))


def _held_out(mesh: trimesh.Trimesh, config: FitConfig, oracle: Oracle, count: int) -> dict[str, LabelledPoints]:
    """Test points of each kind, seeded apart from training."""
    from ff3d.points.test_sets import TEST_KINDS, test_points

    seed = config.seed + 1_000_003
    return {kind: test_points(mesh, kind, count=count, seed=seed, oracle=oracle) for kind in TEST_KINDS}


def _scores(field: OccupancyField, tests: dict[str, LabelledPoints]) -> dict[str, float]:
    from ff3d.metrics import iou

    return {kind: iou(field.contains, points) for kind, points in tests.items()}


def _stored(field: OccupancyField, mesh: trimesh.Trimesh, config: FitConfig, oracle: Oracle) -> OccupancyField:
    """The field with its numbers as they will be stored; `auto` takes the smallest storage that costs little IoU."""
    if config.storage != "auto":
        field.round_to(config.storage)
        return field
    tests = _held_out(mesh, config, oracle, 2**17)  # of 2^15, chance alone gives and takes as much as is losable
    before = _scores(field, tests)
    for smaller in ("int8", "float16"):
        rounded = copy.deepcopy(field)
        rounded.round_to(smaller)
        after = _scores(rounded, tests)
        lost = max(before[kind] - after[kind] for kind in before)
        if lost <= LOSABLE:
            log.info("stored as %s: IoU falls by %.5f", smaller, lost)
            return rounded
    return field


def fit(
    shape: Shape,
    mapping: str | None = None,
    *,
    preset: str | None = None,
    oracle: Oracle | None = None,
    progress_bar: bool = False,
    **settings: Any,
) -> OccupancyField:
    """Fit a field to a shape: `ff3d.fit(mesh, seconds=60)`, or with a mapping by name, `ff3d.fit(mesh, "gaussian")`.

    shape: a Trimesh, a PointCloud, a Solid, a file's path or a name, as of `load_surface`.
    settings: any of `FitConfig`'s; `preset` chooses what the others start from, by default `plain` with a mapping,
    else `best` from 60 s on and `fast` under it.  oracle: labels of one's own.
    Raises ValueError for settings that are unknown or out of range, FitError if the fit breaks.
    """
    named = {} if mapping is None else {"mapping": mapping}
    config = make_config(preset, **named, **settings)
    return train(shape, config, oracle=oracle, progress_bar=progress_bar).field


def where(config: FitConfig) -> tuple[torch.device, str]:
    """The device and the precision that a fit of these settings uses on this machine."""
    device = best_device(config.device)
    waves = config.activation in ("siren", "finer", "gaussian")  # which bfloat16 would shift by a tenth of a turn
    return device, ("float32" if waves else best_precision(device)) if config.precision == "auto" else config.precision


def save_checkpoint(
    path: Path,
    field: OccupancyField,
    optimizer: torch.optim.Optimizer,
    progress: Progress,
    config: FitConfig,
) -> None:
    """Write weights, Adam's moments and the progress to one .safetensors file, whole or not at all."""
    from safetensors.torch import save_file

    tensors = {f"field.{name}": tensor for name, tensor in field.state_dict().items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"adam.{index}.{name}": torch.as_tensor(value) for name, value in state.items()}
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    metadata = {
        "config": json.dumps(dataclasses.asdict(config)),
        "progress": json.dumps(dataclasses.asdict(replace(progress, interrupted=False))),
    }
    with write_whole(path) as temporary:
        save_file(tensors, temporary, metadata)


def load_checkpoint(path: Path, field: OccupancyField, optimizer: torch.optim.Optimizer, config: FitConfig) -> Progress:
    """Put a checkpoint's weights and moments into `field` and `optimizer`; return how far it was.

    Raises FitError if the file is not whole or was written under other settings.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors: dict[str, Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        stored, progress = json.loads(metadata["config"]), Progress(**json.loads(metadata["progress"]))
        if stored != json.loads(json.dumps(dataclasses.asdict(config))):
            raise FitError(f"{path}: belongs to a fit with other settings; give another --out, or delete it")
        field.load_state_dict({name[6:]: tensors[name] for name in tensors if name.startswith("field.")})
        state = optimizer.state_dict()
        for name, tensor in tensors.items():
            if name.startswith("adam."):
                _, index, key = name.split(".")
                state["state"].setdefault(int(index), {})[key] = tensor
        optimizer.load_state_dict(state)
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise FitError(f"{path}: not a checkpoint that can be gone on from ({error}); delete it") from error
    return progress


def _row(progress: Progress, config: FitConfig, scores: dict[str, float]) -> dict[str, Any]:
    """One line of metrics.jsonl."""
    return {
        "step": progress.step,
        "seconds": round(progress.seconds, 3),
        "labelling": round(progress.labelling, 3),
        "samples": progress.step * config.batch_size,
        "loss": progress.loss,
        "iou": {name: round(score, 6) for name, score in scores.items()},
    }


class _Interrupt:
    """Ctrl-C ends the loop after the step in hand, so that what is kept is whole; a second one breaks in at once."""

    def __init__(self) -> None:
        self.asked = False
        self._previous: Any = None

    def __enter__(self) -> _Interrupt:
        if threading.current_thread() is threading.main_thread():
            self._previous = signal.signal(signal.SIGINT, self._ask)
        return self

    def __exit__(self, *_: object) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)

    def _ask(self, number: int, frame: Any) -> None:
        if self.asked and callable(self._previous):
            self._previous(number, frame)
        self.asked = True


class _Bar:
    """A tqdm bar over the budget, in its own measure: steps or seconds."""

    def __init__(self, config: FitConfig, *, enabled: bool):
        self._in_steps, self._shown = config.steps is not None, 0.0
        self._total = float(config.steps or config.seconds or 0)
        self._bar: Any = None
        if enabled:
            from tqdm import tqdm

            unit = " steps" if self._in_steps else " s"
            layout = "{desc}: {percentage:3.0f}%|{bar}| {n:.0f}/{total:.0f}{unit} [{elapsed}{postfix}]"
            self._bar = tqdm(total=self._total, desc=config.mapping, unit=unit, bar_format=layout)

    def show(self, progress: Progress, scores: dict[str, float] | None = None) -> None:
        """Move to where the fit is, at most five times a second; scores are shown until the next ones."""
        if self._bar is None:
            return
        if scores:
            self._bar.set_postfix({name: f"{score:.4f}" for name, score in scores.items()}, refresh=False)
        now = time.perf_counter()
        if scores or now - self._shown > 0.2:
            self._bar.n = min(progress.step if self._in_steps else progress.seconds, self._total)
            self._bar.refresh()
            self._shown = now

    def close(self) -> None:
        """Leave the bar on the screen as it is."""
        if self._bar is not None:
            self._bar.close()
