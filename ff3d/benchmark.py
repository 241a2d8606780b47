"""Compare mappings on a mesh: each is fitted, extracted and measured on the same footing -> result rows."""

from __future__ import annotations

import dataclasses
import json
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from ff3d.files import write_text
from ff3d.mesh import load_mesh, save_mesh
from ff3d.metrics import LabelledPoints, SurfaceMetrics, iou, surface_distances
from ff3d.occupancy import make_oracle
from ff3d.runs import MeshSource, Run
from ff3d.sampling import TEST_KINDS, test_points
from ff3d.search import ExtractionError
from ff3d.settings import FitConfig
from ff3d.training import FitError

if TYPE_CHECKING:
    import trimesh

    from ff3d.field import OccupancyField
    from ff3d.occupancy import Oracle

log = logging.getLogger("ff3d")


@dataclass(frozen=True)
class Row:
    """One fit of a comparison: what it cost and how good it is.

    iou: the field's, per kind of test points.  surface: of the extracted mesh against the reference; None with
    `failure` saying why.  seconds: labelling and training.  bytes: of field.safetensors.
    """

    mapping: str
    seed: int
    steps: int
    samples: int
    seconds: float
    parameters: int
    bytes: int
    faces: int
    iou: dict[str, float]
    surface: SurfaceMetrics | None
    failure: str | None = None


@dataclass(frozen=True)
class Comparison:
    """What `compare` returns: the reference mesh, one row a mapping and, beside it, the mesh it was measured on."""

    name: str
    config: FitConfig
    source: MeshSource
    mesh: trimesh.Trimesh
    oracle: Oracle
    rows: list[Row]
    shapes: list[trimesh.Trimesh | None]
    interrupted: bool

    @property
    def best(self) -> Row:
        """The row with the highest IoU near the surface."""
        return max(self.rows, key=lambda row: row.iou["boundary_face"])


def evaluate(
    field: OccupancyField, tests: dict[str, LabelledPoints], *, progress_bar: bool = False
) -> dict[str, float]:
    """The field's IoU on each test set."""
    bar = tqdm(tests.items(), desc="evaluate", unit=" sets", delay=2, leave=False, disable=not progress_bar)
    return {kind: iou(field.contains, points) for kind, points in bar}


def compare(
    path: Path,
    mappings: Sequence[str],
    config: FitConfig,
    folder: Path,
    *,
    resolution: int = 192,
    command: str = "",
    progress_bar: bool = False,
) -> Comparison:
    """Fit every mapping to the mesh at `path` with the same settings, each in its own run under `folder`.

    Each row is on disk (rows.jsonl) before the next fit starts; fits that are there already are only measured, and
    an interrupted one is gone on with. A fit or an extraction that fails is a row that says why. Ctrl-C ends the
    fit in hand, measures it, and leaves out the rest.
    """
    mesh = load_mesh(path)
    source = MeshSource.of(path)
    oracle = make_oracle(mesh)
    log.info("%s: labelling the test points", path.name)
    tests = {kind: test_points(mesh, kind, seed=config.seed, oracle=oracle) for kind in TEST_KINDS}
    rows: list[Row] = []
    shapes: list[trimesh.Trimesh | None] = []
    interrupted = False
    for mapping in mappings:
        settings = dataclasses.replace(config, mapping=mapping)  # type: ignore[arg-type]
        row, shape, interrupted = fit_and_measure(
            Run(folder / mapping), mesh, settings, source, tests, oracle, resolution, command, progress_bar=progress_bar
        )
        rows.append(row)
        shapes.append(shape)
        _write_rows(folder, rows)
        if interrupted:
            break
    return Comparison(path.stem, config, source, mesh, oracle, rows, shapes, interrupted)


def fit_and_measure(  # noqa: PLR0917  (what a fit is, and what it is measured by)
    run: Run,
    mesh: trimesh.Trimesh,
    config: FitConfig,
    source: MeshSource,
    tests: dict[str, LabelledPoints],
    oracle: Oracle,
    resolution: int,
    command: str = "",
    *,
    progress_bar: bool = False,
) -> tuple[Row, trimesh.Trimesh | None, bool]:
    """Fit in the run's folder, extract the mesh into it and measure both: the row, the mesh, whether interrupted.

    A fit or an extraction that fails is a row that says why.
    """
    try:
        fit = run.fit(mesh, config, source, command=command, oracle=oracle, progress_bar=progress_bar)
    except FitError as error:
        log.error("%s: %s", config.mapping, error)
        return failed_row(config, str(error)), None, False
    progress = fit.progress
    shape, surface, failure = None, None, None
    begun = time.perf_counter()
    try:
        shape = fit.field.extract_mesh(resolution, progress=progress_bar)
        save_mesh(shape, run.folder / "mesh.ply")
        surface = surface_distances(shape, mesh, seed=config.seed)
    except (ExtractionError, MemoryError) as error:
        failure = str(error) or type(error).__name__
        log.warning("%s: %s", config.mapping, failure)
    scores = evaluate(fit.field, tests, progress_bar=progress_bar)
    row = Row(
        mapping=config.mapping,
        seed=config.seed,
        steps=progress.step,
        samples=progress.step * config.batch_size,
        seconds=round(progress.seconds, 2),
        parameters=fit.field.parameter_count,
        bytes=run.field_path.stat().st_size,
        faces=len(shape.faces) if shape is not None else 0,
        iou={kind: round(score, 5) for kind, score in scores.items()},
        surface=surface,
        failure=failure,
    )
    log.info("%s: extracted and measured in %.0f s", config.mapping, time.perf_counter() - begun)
    return row, shape, progress.interrupted


def _write_rows(folder: Path, rows: list[Row]) -> None:
    write_text(folder / "rows.jsonl", "".join(json.dumps(dataclasses.asdict(row)) + "\n" for row in rows))


def failed_row(config: FitConfig, reason: str) -> Row:
    """The row of a fit that broke: nothing inside anywhere, and the reason."""
    nothing: dict[str, Any] = {"steps": 0, "samples": 0, "seconds": 0.0, "parameters": 0, "bytes": 0, "faces": 0}
    iou_of_nothing = dict.fromkeys(TEST_KINDS, 0.0)
    return Row(config.mapping, config.seed, **nothing, iou=iou_of_nothing, surface=None, failure=reason)
