"""One fit of a benchmark: a task -> the field, the mesh and the row of what it cost and how good it is."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ff3d.checks import check_type, one_line, parse_json
from ff3d.fields.checkpoint import Evaluation
from ff3d.fields.mapping import DEFAULT_SCALE
from ff3d.fields.network import resolve_device
from ff3d.files import FolderError, short_name, write_text
from ff3d.formats.writers import save_mesh
from ff3d.labels.oracles import load_timed
from ff3d.labels.winding_number import WindingNumberOracle
from ff3d.metrics import LabelledPoints, SurfaceMetrics, nothing_found, remarks, surface_distances
from ff3d.points.test_sets import TEST_KINDS, load_test_sets, test_points
from ff3d.runs import MeshSource, Run, RunError
from ff3d.settings import FitConfig
from ff3d.shapes.sources import find_shape
from ff3d.studies.measurement import overlaps_of, separating_reference
from ff3d.surfaces.grid_levels import ExtractionError

if TYPE_CHECKING:
    import trimesh

    from ff3d.fitting import Observer
    from ff3d.labels.oracles import LabelledShape, Oracle

log = logging.getLogger("ff3d")

ROW = "row.json"
KEPT = 2_000_000  # faces of the meshes whose references are kept: about a gigabyte
COST = 50_000  # faces that take as much memory as the test sets of a mesh


@dataclass(frozen=True)
class Task:
    """One fit to be done and measured.

    varied: the settings in which it differs from the plan's, by name, beside mapping and seed.
    resolution: of the extracted mesh.  testset: a .npz of frozen test points, in place of those drawn from the mesh.
    title: the name of the mesh among those of the plan, by default its file's.
    """

    mesh: Path
    config: FitConfig
    varied: dict[str, Any]
    resolution: int = 192
    testset: Path | None = None
    title: str = ""

    @property
    def mesh_name(self) -> str:
        """What the mesh is called in names of folders and in tables."""
        return self.title or self.mesh.stem

    @property
    def variant(self) -> str:
        """What is compared: the mapping, and what is varied of its settings."""
        return " ".join([self.config.mapping.name, *(f"{name}={value}" for name, value in self.varied.items())])

    @property
    def name(self) -> str:
        """The name of its run folder."""
        return _run_name(self.mesh_name, self.variant, self.config.seed)


def _run_name(mesh: str, variant: str, seed: int) -> str:
    return short_name("-".join([mesh, *variant.split(), str(seed)]))


@dataclass(frozen=True)
class Row:
    """One fit of a benchmark: what it was, what it cost and how good it is.

    arm: the mapping and what was varied of its settings.  seconds: of labelling and training, `label_seconds` those
    of labelling; `evaluation_seconds` come on top.  bytes: of field.safetensors.  tests: sha256 of the test sets.
    iou: the field's, per kind of test points that have anything inside; {} where there is no field.  surface: of the
    extracted mesh against the reference; None where there is no mesh.  history: the evaluations while it was fitted.
    failure: what went wrong.  notes: in what the settings used differ from those given, and why; what of the shape was
    repaired or left out; what the IoUs do not show.
    """

    mesh: str
    sha256: str
    arm: str
    mapping: str
    varied: dict[str, Any]
    seed: int
    failure: str | None = None
    notes: list[str] = dataclasses.field(default_factory=list)
    frequencies: int = 0
    scale: float | None = None
    learning_rate: float = 0.0
    width: int = 0
    depth: int = 0
    parameters: int = 0
    bytes: int = 0
    steps: int = 0
    samples: int = 0
    seconds: float = 0.0
    label_seconds: float = 0.0
    evaluation_seconds: float = 0.0
    device: str = ""
    precision: str = ""
    faces: int = 0
    tests: str = ""
    iou: dict[str, float] = dataclasses.field(default_factory=dict)
    surface: SurfaceMetrics | None = None
    history: list[dict[str, Any]] = dataclasses.field(default_factory=list)

    @property
    def compared(self) -> str:
        """The mapping that is compared; `mapping` is the one that was used, another where the labels forced it."""
        return self.arm.partition(" ")[0]

    @property
    def name(self) -> str:
        """The name of its run folder, as of the task's."""
        return _run_name(self.mesh, self.arm, self.seed)

    @classmethod
    def failed(cls, task: Task, reason: str) -> Row:
        """The row of a fit that broke, and why."""
        sha256 = MeshSource.of(task.mesh).sha256 if task.mesh.is_file() else ""
        config = task.config
        return cls(task.mesh_name, sha256, task.variant, config.mapping.name, task.varied, config.seed, failure=reason)

    @classmethod
    def from_json(cls, text: str) -> Row:
        """The row of `to_json`. Raises ValueError if it is not one."""
        try:
            plain = parse_json(text, cls)
            check_type(plain.get("history", []), list[Evaluation], "history")
            surface = SurfaceMetrics(**plain["surface"]) if plain.get("surface") else None
            return cls(**{**plain, "surface": surface})
        except ValueError as error:
            raise ValueError(f"not a row of a benchmark ({one_line(error)})") from error

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps(dataclasses.asdict(self))

    def value(self, measure: str) -> float | None:
        """A measure by its name, "iou.uniform", "surface.chamfer", "seconds"; None where there is none."""
        group, _, name = measure.partition(".")
        found: Any = getattr(self, group)
        if isinstance(found, dict):
            found = found.get(name)
        elif name:
            found = getattr(found, name, None)
        return None if found is None or not (self.iou or self.failure is None) else float(found)


@dataclass(frozen=True)
class Reference:
    """What the fits to one shape share: its surface and labels, the test sets, and the seconds that its oracle took.

    Those seconds are part of each fit's budget, as if it had been the only one.
    """

    surface: LabelledShape
    seconds: float
    testset: Path | None = None

    @property
    def mesh(self) -> trimesh.Trimesh:
        """What counts as surface."""
        return self.surface.mesh

    @property
    def oracle(self) -> Oracle:
        """The labels."""
        return self.surface.oracle

    @property
    def source(self) -> MeshSource:
        """The file's name and sha256."""
        return MeshSource(self.surface.name, self.surface.sha256 or "")

    @cached_property
    def separating(self) -> trimesh.Trimesh:
        """What of the surface distances are to."""
        return separating_reference(self.surface)

    @cached_property
    def tests(self) -> dict[str, LabelledPoints]:
        """The test sets: those of the file, or 262,144 points of each kind, drawn with seed 0, when first used."""
        if self.testset:
            return load_test_sets(self.testset)
        return {kind: test_points(self.surface, kind) for kind in TEST_KINDS}

    @cached_property
    def hash(self) -> str:
        """sha256 of the test sets."""
        digest = hashlib.sha256()
        for kind, (points, occupancy) in sorted(self.tests.items()):
            digest.update(kind.encode() + points.tobytes() + occupancy.tobytes())
        return digest.hexdigest()


_references: dict[tuple[Path, int, Path | None], Reference] = {}  # the one last used at the end


def reference(path: Path, testset: Path | None = None) -> Reference:
    """A mesh or a point cloud, and its oracle: loaded once, and kept until too many others were used since.

    So the fits of a study share it, and so does its report. testset: as of `Task`.
    """
    path = find_shape(path)
    key = path.resolve(), path.stat().st_mtime_ns, testset
    found = _references.pop(key, None)
    if found is None:
        same = next((it for other, it in _references.items() if other[:2] == key[:2]), None)
        found = _load(path, testset) if same is None else dataclasses.replace(same, testset=testset)
    _references[key] = found
    while len(_references) > 1 and sum(len(it.mesh.faces) + COST for it in _references.values()) > KEPT:
        del _references[next(iter(_references))]
    return found


def _load(path: Path, testset: Path | None) -> Reference:
    surface, seconds = load_timed(path)
    begun = time.perf_counter()
    if isinstance(surface.oracle, WindingNumberOracle):
        _ = surface.oracle.grid  # now, so that no fit depends on how many came before it in this process
    return Reference(surface, seconds + time.perf_counter() - begun, testset)


def perform(
    task: Task, folder: Path, *, command: str = "", progress_bar: bool = False, observers: Sequence[Observer] = ()
) -> tuple[Row, bool]:
    """Fit in `folder` or go on there, extract the mesh into it, measure both: the row, and whether it is done.

    A row that is done is in the folder (row.json), and is only read the next time; Ctrl-C ends the fit in hand, which
    is measured, and resumed by the next call. What fails is a row that says why.
    Raises RunError, FolderError, OSError if the folder holds another fit or cannot be written, and ValueError if the
    device cannot be used: no fit would do better.
    """
    kept = folder / ROW
    if kept.exists():
        return Row.from_json(kept.read_text(encoding="utf-8")), True
    done = True
    resolve_device(task.config.device, task.config.network)
    try:
        truth = reference(task.mesh, task.testset)
        _ = truth.tests  # what is wrong with them is told before the fit, not after
    except (ValueError, OSError, MemoryError) as error:
        row = Row.failed(task, one_line(error))
    else:
        try:
            row, done = _measured(task, folder, truth, command=command, progress_bar=progress_bar, observers=observers)
        except (RunError, FolderError):
            raise
        except (ValueError, RuntimeError, MemoryError) as error:  # settings that do not fit the shape, a full memory
            row = Row.failed(task, one_line(error))
    if row.failure:
        log.error("%s, %s: %s", task.mesh_name, task.variant, row.failure)
    if done:
        write_text(kept, row.to_json() + "\n")
    return row, done


def _measured(
    task: Task, folder: Path, truth: Reference, *, command: str, progress_bar: bool, observers: Sequence[Observer]
) -> tuple[Row, bool]:
    run = Run(folder)
    fit = run.fit(
        truth.mesh,
        task.config,
        truth.source,
        command=command,
        oracle=truth.oracle,
        spent=truth.seconds,
        progress_bar=progress_bar,
        observers=observers,
    )
    field, progress, config = fit.field, fit.progress, fit.config
    shape, surface, failure = None, None, None
    begun = time.perf_counter()
    try:
        shape = field.extract_mesh(task.resolution, progress=progress_bar)
        save_mesh(shape, folder / "mesh.ply")
        surface = surface_distances(shape, truth.separating, seed=config.seed)
    except (ExtractionError, MemoryError) as error:
        failure = one_line(error)
    overlaps = overlaps_of(field.contains, truth.tests, progress_bar=progress_bar)
    nothing = nothing_found(overlaps)
    if nothing and progress.finished:
        failure = f"{nothing} ({failure})" if failure else nothing
    record = run.record()
    row = Row(
        mesh=task.mesh_name,
        sha256=truth.source.sha256,
        arm=task.variant,
        mapping=config.mapping.name,
        varied=task.varied,
        seed=config.seed,
        failure=failure,
        notes=[*fit.notes, *truth.surface.notes, *([] if nothing else remarks(overlaps))],
        frequencies=len(getattr(field.mapping, "frequencies", ())),
        scale=config.mapping.scale or DEFAULT_SCALE.get(config.mapping.name),
        learning_rate=config.optimiser.rate(config.mapping.name),
        width=field.width,
        depth=field.depth,
        parameters=field.parameter_count,
        bytes=run.field_path.stat().st_size,
        steps=progress.step,
        samples=progress.step * config.optimiser.batch_size,
        seconds=round(progress.seconds, 2),
        label_seconds=round(progress.labelling, 2),
        evaluation_seconds=round(time.perf_counter() - begun, 2),
        device=record["device"],
        precision=record["precision"],
        faces=len(shape.faces) if shape is not None else 0,
        tests=truth.hash,
        iou={kind: round(found.iou, 5) for kind, found in overlaps.items() if found.known is not None},
        surface=surface,
        history=progress.history,
    )
    return row, not progress.interrupted
