"""Many fits, meshes x mappings x seeds: each done once, each a row on disk; stopped anywhere, it goes on there."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from ff3d.benchmark import failed_row, fit_and_measure
from ff3d.files import write_text
from ff3d.mesh import load_mesh
from ff3d.occupancy import make_oracle
from ff3d.runs import MeshSource, Run
from ff3d.sampling import TEST_KINDS, test_points
from ff3d.settings import FitConfig

log = logging.getLogger("ff3d")

PLAN, ROWS = "plan.json", "rows.jsonl"


@dataclass(frozen=True)
class Plan:
    """Which fits: every mapping with every seed on every mesh, all with the same settings otherwise."""

    meshes: tuple[Path, ...]
    mappings: tuple[str, ...]
    seeds: tuple[int, ...]
    config: FitConfig
    resolution: int = 192

    def __post_init__(self) -> None:
        for name, values in (("meshes", self.meshes), ("mappings", self.mappings), ("seeds", self.seeds)):
            if not values or len(set(values)) < len(values):
                raise ValueError(f"{name} must be given, each once, got {', '.join(map(str, values)) or 'none'}")
        if len({path.stem for path in self.meshes}) < len(self.meshes):
            raise ValueError("two meshes have one name; rename one, for results are kept by name")

    @property
    def fits(self) -> int:
        """How many fits that is."""
        return len(self.meshes) * len(self.mappings) * len(self.seeds)

    def __str__(self) -> str:
        seconds = self.config.seconds
        minutes = f", about {self.fits * seconds / 60:.0f} minutes of fitting" if seconds else ""
        return (
            f"{len(self.meshes)} meshes x {len(self.mappings)} mappings x {len(self.seeds)} seeds = {self.fits} fits, "
            f"preset {self.config.preset}, {self.config.budget} each{minutes}"
        )


def run_study(plan: Plan, folder: Path, *, command: str = "", progress_bar: bool = False) -> list[dict[str, Any]]:
    """Do what is not done yet, a run folder for each fit: folder/MESH/MAPPING-SEED; return all rows, in plan order.

    A row is on disk (rows.jsonl, flushed) before the next fit begins. A fit that fails is a row with its `failure`,
    and so is every fit of a mesh that cannot be labelled. Ctrl-C ends the fit in hand, keeps it unfinished, and
    returns the rows so far; the same call goes on.
    Raises ValueError if the folder holds a study of other settings.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _check_plan(plan, folder)
    done = {(row["mesh"], row["mapping"], row["seed"]): row for row in read_rows(folder)}
    with tqdm(total=plan.fits, desc="fits", unit="", disable=not progress_bar) as bar:
        bar.update(sum(task in done for task in _tasks(plan)))
        for path in plan.meshes:
            asked = [task for task in _tasks(plan) if task[0] == path.stem and task not in done]
            if not asked:
                continue
            source = MeshSource.of(path)
            try:
                mesh = load_mesh(path)
                oracle = make_oracle(mesh)
                tests = {kind: test_points(mesh, kind, oracle=oracle) for kind in TEST_KINDS}
            except ValueError as error:
                for task in asked:
                    config = _config(plan, task)
                    done[task] = _write_row(folder, path, source, dataclasses.asdict(failed_row(config, str(error))))
                    bar.update(1)
                continue
            for task in asked:
                run = Run(folder / path.stem / f"{task[1]}-{task[2]}")
                row, _, interrupted = fit_and_measure(
                    run, mesh, _config(plan, task), source, tests, oracle, plan.resolution, command
                )
                if interrupted:
                    log.info("interrupted in %s; the same command goes on there", run.folder)
                    return [done[it] for it in _tasks(plan) if it in done]
                done[task] = _write_row(folder, path, source, dataclasses.asdict(row))
                bar.update(1)
    return [done[it] for it in _tasks(plan)]


def read_rows(folder: Path) -> list[dict[str, Any]]:
    """The rows in a folder; the last line is left out if it was cut short by a kill."""
    path = folder / ROWS
    if not path.exists():
        return []
    whole, _, cut = path.read_text(encoding="utf-8").rpartition("\n")
    if cut:
        write_text(path, whole + "\n" if whole else "")
    return [json.loads(line) for line in whole.splitlines()]


def summary(rows: list[dict[str, Any]], measure: str) -> tuple[float, float]:
    """Mean of a measure over rows, and the half width of its 95% interval over seeds (Student's t; NaN for one seed).

    measure: "iou.uniform", "surface.chamfer" and the like. Each seed's value is its mean over the meshes. Rows that
    failed have no such value, and are left out.
    """
    from scipy import stats

    by_seed: dict[int, list[float]] = {}
    group, _, name = measure.partition(".")
    for row in rows:
        if row["failure"] is None and row[group] is not None:
            by_seed.setdefault(row["seed"], []).append(row[group][name])
    means = np.array([np.mean(values) for values in by_seed.values()])
    if not len(means):
        return float("nan"), float("nan")
    if len(means) == 1:
        return float(means[0]), float("nan")
    width = stats.t.ppf(0.975, len(means) - 1) * means.std(ddof=1) / np.sqrt(len(means))
    return float(means.mean()), float(width)


def _tasks(plan: Plan) -> list[tuple[str, str, int]]:
    return [(path.stem, mapping, seed) for path in plan.meshes for mapping in plan.mappings for seed in plan.seeds]


def _config(plan: Plan, task: tuple[str, str, int]) -> FitConfig:
    return dataclasses.replace(plan.config, mapping=task[1], seed=task[2])  # type: ignore[arg-type]


def _check_plan(plan: Plan, folder: Path) -> None:
    """Settings and meshes are written at first, and must be the same when it goes on; fits may be added."""
    stored = folder / PLAN
    kept = json.loads(stored.read_text(encoding="utf-8")) if stored.exists() else {"meshes": {}}
    settings = json.loads(json.dumps(dataclasses.asdict(_config(plan, ("", "none", 0)))))
    now = {"settings": settings, "resolution": plan.resolution}
    hashes = {path.stem: MeshSource.of(path).sha256 for path in plan.meshes}
    if stored.exists() and (
        {key: kept[key] for key in now} != now or {**kept["meshes"], **hashes} != {**hashes, **kept["meshes"]}
    ):
        raise ValueError(
            f"{folder}: holds a benchmark of other settings or other meshes of these names; give another --out"
        )
    write_text(stored, json.dumps({**now, "meshes": {**kept["meshes"], **hashes}}, indent=2) + "\n")


def _write_row(folder: Path, path: Path, source: MeshSource, row: dict[str, Any]) -> dict[str, Any]:
    """Append a row, and see that it is on the disk."""
    row = {"mesh": path.stem, "sha256": source.sha256, **row}
    with (folder / ROWS).open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
        file.flush()
        os.fsync(file.fileno())
    return json.loads(json.dumps(row))
