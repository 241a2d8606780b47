"""fit: the one place where a shape meets a network. Labels, points, training, and the numbers as they are stored."""

from __future__ import annotations

import copy
import logging
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch.nn.functional as F  # noqa: N812  (torch's own name for it)
from numpy.typing import NDArray
from torch import Tensor

from ff3d.fields.checkpoint import Checkpoint, Progress
from ff3d.fields.config import LATTICE_MAPPINGS
from ff3d.fields.field import FAR_LOGIT, LatticeField, OccupancyField
from ff3d.fields.mapping import build_mapping
from ff3d.fields.network import resolve_device
from ff3d.fields.optimise import Loss, optimise
from ff3d.geometry.coordinates import UnitCube, grown_box
from ff3d.metrics import Overlap, nothing_found, overlap, remarks
from ff3d.points.lattice_fit import fit_lattice
from ff3d.points.lattice_sampling import SignedDistance
from ff3d.points.training_points import TrainingPoints
from ff3d.progress import ProgressBar
from ff3d.settings import FitConfig, by_network, make_config, unguarded

if TYPE_CHECKING:
    import trimesh

    from ff3d.geometry.surface_cells import SurfaceCells
    from ff3d.labels.oracles import Oracle, Shape
    from ff3d.lattices.lattice import Lattice
    from ff3d.metrics import LabelledPoints

log = logging.getLogger("ff3d")

LOSABLE = 0.0005  # IoU, when numbers are stored in fewer bytes


@dataclass(frozen=True)
class Fit:
    """What `train` returns: the field and how it came about.

    config: the settings as they were used.  notes: in what they differ from those given, and why.
    remarks: what the held-out IoUs of a finished fit do not show.  nothing: why its field is no shape at all, None if
    it is one.
    """

    field: OccupancyField | LatticeField
    config: FitConfig
    progress: Progress
    notes: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    nothing: str | None = None


class Observer:
    """What is told how a fit goes; a subclass shows it, or writes it elsewhere. The field is the one that is fitted."""

    def paused(self, field: OccupancyField | LatticeField, progress: Progress) -> bool:
        """Between two steps, four times a second, and after each level of a lattice; on the budget's time.

        True ends the training of a network as Ctrl-C does. At the first call the field may be nothing yet.
        """
        return False

    def evaluated(self, field: OccupancyField | LatticeField, progress: Progress) -> None:
        """After each evaluation, whose row is the last of `progress.history`; its time is not the budget's."""


def loss_of(target: str) -> Loss:
    """The loss of a target: cross-entropy of labels, or the L1 norm of logit - `FAR_LOGIT` tanh(distance)."""
    if target == "distance":
        return lambda logits, distances: F.l1_loss(logits, FAR_LOGIT * distances.tanh())

    def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(logits, labels)

    return cross_entropy


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
    observers: Sequence[Observer] = (),
) -> Fit:
    """Label points of a shape, one that `load_surface` takes, and fit a field to them.

    The seconds of a budget begin when the shape is in memory: reading its file is no part of them.
    oracle: points -> bool; by default the shape's own, of a mesh its generalized winding number.
    held_out: test sets scored as the fit goes; by default `held_out_count` points of each kind, seeded apart from
    training. Where they have nothing inside, and the field neither, there is no score.
    checkpoint: where the unfinished fit is kept, and resumed from.  observers: see `Observer`.
    Otherwise as `fields.optimise.optimise`.
    """
    from ff3d.labels.oracles import in_memory, surface_and_oracle

    shape = in_memory(shape)
    begun = time.perf_counter()
    mesh, oracle = surface_and_oracle(shape, oracle)
    config, notes = settings_for(config, shape, oracle)
    cube = (UnitCube.paper if config.sampling.cube == "paper" else UnitCube.padded)(mesh.vertices)
    bounds = grown_box(mesh, config.sampling.margin * cube.scale)
    if config.mapping.name in LATTICE_MAPPINGS:
        spent += time.perf_counter() - begun

        def lattice_field(lattice: Lattice) -> LatticeField:
            return LatticeField(lattice, mapping=config.mapping.name, cube=cube, bounds=bounds, source=source)

        def on_lattice(lattice: Lattice, seconds: float) -> None:
            for observer in observers:
                observer.paused(lattice_field(lattice), Progress(seconds=seconds, labelling=seconds, loss=0.0))

        lattice, progress = _lattice(
            mesh,
            oracle,
            cube,
            config,
            spent=spent,
            progress_bar=progress_bar,
            on_lattice=on_lattice if observers else None,
        )
        found = lattice_field(lattice)
        tests = _held_out(mesh, config, oracle, held_out_count(config)) if held_out is None else held_out
        return _scored(found, config, progress, tests, _told(found, on_evaluation, observers))
    device, precision = resolve_device(config.device, config.network)
    surface = surface_cells(oracle, cube, bounds if config.sampling.guarded else None)
    if config.sampling.guarded and surface is None:
        notes.append("not guarded, and points as those of plain: these labels have no cell grid")
        config = unguarded(config)
    for note in notes:
        log.info("%s", note)
    mapping = build_mapping(config.mapping, seed=config.seed)
    field = OccupancyField(
        mapping,
        width=config.network.hidden_width(mapping.name, mapping.features),
        depth=config.network.hidden_layers(mapping.name),
        activation=config.network.activation,
        initialisation=config.network.initialisation,
        target=config.sampling.target,
        cube=cube,
        bounds=bounds,
        precision=precision,
        source=source,
        surface=surface,
        guarded=config.sampling.guarded,
        seed=config.seed,
    ).to(device)
    log.info("%s: %d parameters on %s in %s", mapping.name, field.parameter_count, device.type, precision)

    def open_space(count: int, rng: np.random.Generator) -> NDArray[np.float64]:
        assert surface is not None
        return np.clip(cube.from_unit(surface.draw(count, rng, cube.to_unit(bounds))), *bounds)

    everywhere = open_space if field.guarded else None
    draw = TrainingPoints(mesh, oracle, cube, config.sampling, seed=config.seed, everywhere=everywhere)
    spent += time.perf_counter() - begun
    tests = _held_out(mesh, config, oracle, held_out_count(config)) if held_out is None else held_out
    overlaps: dict[str, Overlap] = {}

    def scores() -> dict[str, float]:
        overlaps.update({kind: overlap(field.contains, points) for kind, points in tests.items()})
        return _known(overlaps)

    progress = optimise(
        field,
        draw,
        config.optimiser,
        config.budget,
        loss=loss_of(field.target),
        evaluate=scores,
        on_evaluation=_told(field, on_evaluation, observers),
        on_pause=(lambda progress: any([it.paused(field, progress) for it in observers])) if observers else None,
        checkpoint=Checkpoint(checkpoint, config.flat()) if checkpoint else None,
        spent=spent,
        title=mapping.name if progress_bar else "",
    )
    if progress.finished and tests and not overlaps:  # resumed after its last step
        scores()
    said = remarks(overlaps) if progress.finished and overlaps else []
    nothing = nothing_found(overlaps) if said else None
    return Fit(_stored(field, mesh, config, oracle), config, progress, tuple(notes), tuple(said), nothing)


def _told(
    field: OccupancyField | LatticeField,
    on_evaluation: Callable[[Progress], None] | None,
    observers: Sequence[Observer],
) -> Callable[[Progress], None]:
    """Tells everybody of an evaluation."""

    def tell(progress: Progress) -> None:
        if on_evaluation:
            on_evaluation(progress)
        for observer in observers:
            observer.evaluated(field, progress)

    return tell


def _lattice(
    mesh: trimesh.Trimesh,
    oracle: Oracle,
    cube: UnitCube,
    config: FitConfig,
    *,
    spent: float,
    progress_bar: bool,
    on_lattice: Callable[[Lattice, float], None] | None,
) -> tuple[Lattice, Progress]:
    """The lattice of a shape, and what it took. spent: seconds of the budget that are gone already."""
    begun = time.perf_counter() - spent
    with closing(ProgressBar(100.0, "%", config.mapping.name)) if progress_bar else nullcontext() as bar:
        distance = SignedDistance(mesh, oracle, cube)
        lattice = fit_lattice(
            distance,
            cube.to_unit(np.asarray(mesh.bounds)),
            config.mapping,
            config.budget,
            seed=config.seed,
            spent=time.perf_counter() - begun,
            progress=(lambda share: bar.show(100 * share)) if bar else None,
            on_lattice=(lambda it: on_lattice(it, time.perf_counter() - begun)) if on_lattice else None,
        )
    seconds = time.perf_counter() - begun
    return lattice, Progress(seconds=seconds, labelling=seconds, loss=0.0, finished=True)


def _scored(
    field: LatticeField,
    config: FitConfig,
    progress: Progress,
    tests: dict[str, LabelledPoints],
    on_evaluation: Callable[[Progress], None] | None,
) -> Fit:
    """A fit without steps: one evaluation, at its end."""
    overlaps = {kind: overlap(field.contains, points) for kind, points in tests.items()}
    progress.record(0, _known(overlaps))
    if on_evaluation:
        on_evaluation(progress)
    said = tuple(remarks(overlaps)) if overlaps else ()
    return Fit(field, config, progress, remarks=said, nothing=nothing_found(overlaps) if said else None)


def _known(overlaps: dict[str, Overlap]) -> dict[str, float]:
    """The IoU of each kind of test points for which there is one."""
    return {kind: found.known for kind, found in overlaps.items() if found.known is not None}


def settings_for(config: FitConfig, shape: Shape, oracle: Oracle | None = None) -> tuple[FitConfig, list[str]]:
    """The settings that a shape in memory can be fitted by, and in what they differ from those given, and why."""
    from ff3d.labels.oracles import is_cloud

    notes: list[str] = []
    if not is_cloud(shape, oracle):
        return config, notes
    if config.mapping.name in LATTICE_MAPPINGS:
        notes.append("a point cloud has no distances between its points: fitted by a network, the preset fast")
        config = by_network(config)
    if config.sampling.target == "distance":
        notes.append("a point cloud has no distances between its points: fitted to labels")
        config = replace(config, sampling=replace(config.sampling, target="occupancy"))
    return config, notes


def surface_cells(oracle: Oracle, cube: UnitCube, bounds: NDArray[np.float64] | None = None) -> SurfaceCells | None:
    """The coarse cells of an oracle's cell grid, in the coordinates of `cube`; None if it has none.

    bounds: of a field (2, 3), input coordinates, that the cells are to guard: the outermost cells have the labels that
    hold as far as there.
    """
    from ff3d.labels.winding_number import WindingNumberOracle

    if not isinstance(oracle, WindingNumberOracle):
        return None
    cells = oracle.grid.surface_cells()  # always: a field must not depend on what was queried before it
    lower = cube.to_unit(oracle.cube.from_unit(cells.lower[None]))[0]
    cells = replace(cells, lower=lower, side=cells.side * oracle.cube.scale / cube.scale)
    if bounds is None:
        return cells
    return cells.settled(cube.to_unit(bounds), lambda unit: oracle.winding_number(cube.from_unit(unit)))


def held_out_count(config: FitConfig) -> int:
    """How many test points of each kind are scored as a fit goes: 2^15, fewer for a budget of few steps.

    Ten evaluations of three kinds shall not take longer than the steps themselves: a point costs a third of one that is
    trained on, so no more than half as many are scored; but 2^12 at least.
    """
    if config.budget.steps is None:
        return 2**15
    return min(2**15, max(2**12, config.budget.steps * config.optimiser.batch_size // (2 * 10 * 3)))


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
    observers: Sequence[Observer] = (),
    **settings: Any,
) -> OccupancyField | LatticeField:
    """Fit a field to a shape: `ff3d.fit(mesh, seconds=60)`, or with a mapping by name, `ff3d.fit(mesh, "gaussian")`.

    shape: a Trimesh, a PointCloud, a Solid, a file's path or a name, as of `load_surface`.
    settings: any of `FitConfig`'s; `preset` chooses what the others start from, by default `plain` with a mapping,
    else as `default_preset` says.  oracle: labels of one's own.  observers: see `Observer`.
    A field that found nothing is returned, with a warning. Ctrl-C, SIGTERM and SIGHUP end the fit after the step in
    hand and then do what they do elsewhere; only a run folder (`ff3d fit --out`) keeps what there is.
    Raises ValueError for settings that are unknown or out of range, FitError if the fit breaks.
    """
    named = {} if mapping is None else {"mapping": mapping}
    config = make_config(preset, **named, **settings)
    result = train(shape, config, oracle=oracle, progress_bar=progress_bar, observers=observers)
    if result.progress.signal and not result.progress.finished:
        signal.raise_signal(result.progress.signal)
    for remark in result.remarks:
        log.warning("%s", remark)
    return result.field
