"""Many fits, meshes x mappings x settings x seeds: each done once and a row on disk; stopped anywhere, it resumes."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tqdm.auto import tqdm

from ff3d.checks import one_line, read_json
from ff3d.files import check_unmade, locked, write_atomically, write_text
from ff3d.runs import Run, RunError
from ff3d.storage import Storage
from ff3d.studies.plan import PLAN, Plan, Record, matches_plan, provenance
from ff3d.studies.statistics import summary
from ff3d.studies.task import ROW, Reference, Row, reference
from ff3d.studies.workers import Workers

log = logging.getLogger("ff3d")

ROWS, TABLE = "rows.jsonl", "rows.parquet"

HERE = Workers()
MANY = 1000  # fits, beyond which rows.jsonl is not written anew after each


@dataclass(frozen=True)
class Study:
    """A plan and what has come of it so far, in the plan's order. unfinished: the names of fits that were cut short."""

    plan: Plan
    storage: Storage
    rows: list[Row]
    unfinished: tuple[str, ...] = ()
    command: str = ""

    @property
    def folder(self) -> Path:
        """Where its files are on this machine."""
        return self.storage.local

    @property
    def meshes(self) -> list[str]:
        """The names of the plan's meshes that have rows."""
        return [name for name in self.plan.names if self.of(mesh=name)]

    @property
    def versions(self) -> str:
        """The libraries' versions, as the first run that is there recorded them."""
        for row in self.rows:
            self.storage.fetch(f"{row.name}/config.json")
            with suppress(RunError, KeyError, AttributeError):
                return ", ".join(f"{name} {it}" for name, it in Run(self.run(row)).record()["versions"].items())
        return ""

    @property
    def missing(self) -> int:
        """How many fits are not done."""
        return self.plan.fits - len(self.rows) + len(self.unfinished)

    @property
    def best(self) -> str | None:
        """The variant with the highest mean IoU near the surface, of those of which no fit is missing; None without."""
        measure = "iou.boundary_face"
        whole = [variant for variant in self.plan.variants if self.scored(variant, measure) == ""]
        return max(whole, key=lambda variant: summary(self.of(variant), measure)[0], default=None)

    def scored(self, variant: str, measure: str, mesh: str | None = None) -> str | None:
        """How many fits of a variant have a measure, "2 of 3"; "" if all, None if none.

        Meshes count on which any fit has it: where all failed, or there is nothing to measure, nobody is ahead.
        """
        having = [row for row in self.of(mesh=mesh) if row.value(measure) is not None]
        count = sum(row.arm == variant for row in having)
        expected = len({row.mesh for row in having}) * len(self.plan.seeds)
        return None if not count else "" if count == expected else f"{count} of {expected}"

    def of(self, variant: str | None = None, mesh: str | None = None) -> list[Row]:
        """The rows of a variant, of a mesh, or of both."""
        return [row for row in self.rows if variant in (None, row.arm) and mesh in (None, row.mesh)]

    def reference(self, mesh: str) -> Reference:
        """The mesh of this name with its labels, as the fits to it used them."""
        path = self.plan.names[mesh]
        task = next(task for task in self.plan.tasks() if task.mesh == path)
        return reference(task.mesh, task.testset)

    def run(self, row: Row) -> Path:
        """The run folder of a row."""
        return self.folder / row.name


def run_study(
    plan: Plan,
    out: str | Path,
    *,
    workers: Workers = HERE,
    again: bool = False,
    command: str = "",
    progress_bar: bool = False,
    force: bool = False,
) -> Study:
    """Do what is not done yet, each fit in a run folder of its own, out/MESH-MAPPING-SEED.

    out: a folder, or an fsspec address.  again: do those that failed once more.
    A row is on disk (row.json in the run's folder) before the next fit begins; rows.jsonl and rows.parquet hold all.
    A fit that fails, hangs or dies is a row with its `failure`, and so is every fit to a mesh that cannot be
    labelled. After Ctrl-C the fits in hand are kept unfinished and measured; the same call resumes.
    force: replace files of the names of a study's that ff3d has not made.
    Raises ValueError if the folder holds a study of other settings, FolderError if it holds such files, or if another
    process does a study there (at an address that is not seen).
    """
    storage = Storage(out)
    with locked(storage.local):
        _keep_plan(plan, storage, force)
        return _done(plan, storage, workers, again=again, command=command, progress_bar=progress_bar)


def _done(plan: Plan, storage: Storage, workers: Workers, *, again: bool, command: str, progress_bar: bool) -> Study:
    """The study, after what is not done yet is done."""
    tasks = plan.tasks()
    done = {row_name: row for row_name, row in read_rows(storage).items() if not (again and row.failure)}
    open_tasks = [task for task in tasks if task.name not in done]
    for task in open_tasks if again else ():
        storage.remove(f"{task.name}/{ROW}")
    unfinished: list[str] = []

    def finished() -> list[Row]:
        return [done[task.name] for task in tasks if task.name in done and task.name not in unfinished]

    with tqdm(
        total=len(tasks), initial=len(tasks) - len(open_tasks), desc="fits", unit="", disable=not progress_bar
    ) as bar:
        one = progress_bar and len(tasks) <= 10
        out = str(storage.local.absolute()) if workers.ray and not storage.remote else storage.address
        for task, row, whole in workers.rows(open_tasks, out, command, scratch=storage.local, progress_bar=one):
            done[task.name] = row
            unfinished += [] if whole else [task.name]
            bar.update(int(whole))
            if len(tasks) <= MANY:  # of more the rows lie with their runs until the end
                _write_rows(finished(), storage)
    rows = [done[task.name] for task in tasks if task.name in done]
    if not rows:  # the first fits were interrupted before there was anything to report
        raise KeyboardInterrupt
    _write_rows(finished(), storage)
    _write_table(finished(), storage)
    return Study(plan, storage, rows, tuple(unfinished), command)


def read_rows(storage: Storage) -> dict[str, Row]:
    """The rows that lie in a study's run folders, by the folder's name. Raises ValueError for one that is no row."""
    rows = {}
    for name in storage.names(ROW):
        storage.fetch(f"{name}/{ROW}")
        try:
            row = Row.from_json((storage.local / name / ROW).read_text(encoding="utf-8"))
            if row.name != name:
                raise ValueError(f"it is that of {row.name}")
            rows[name] = row
        except (OSError, ValueError) as error:
            raise ValueError(f"{storage.address}/{name}/{ROW}: {error}; delete it to do that fit again") from error
    return rows


def _keep_plan(plan: Plan, storage: Storage, force: bool) -> None:
    """Write the plan at first; raise ValueError if another is there."""
    storage.fetch(PLAN)
    stored, now = storage.local / PLAN, provenance(plan)
    if stored.exists():
        try:
            same = matches_plan(storage.local, plan)
            kept = read_json(stored, Record)
            now["meshes"] |= kept["meshes"]
            now["tests"] |= kept.get("tests", {})
        except (OSError, ValueError) as error:
            raise ValueError(
                f"{stored}: not the plan of a benchmark ({one_line(error)}); give another --out"
            ) from error
        if not same:
            raise ValueError(
                f"{storage.address}: holds a benchmark of other settings or other meshes of these names; "
                "give another --out"
            )
    elif not force:
        pictures = [f"{name}{kind}.png" for name in plan.names for kind in ("", "-cuts")]
        check_unmade(*(storage.local / name for name in (ROWS, TABLE, "report.md", "report.html", *pictures)))
    write_text(stored, json.dumps(now, indent=2) + "\n")
    storage.send(PLAN)


def _write_rows(rows: Sequence[Row], storage: Storage) -> None:
    write_text(storage.local / ROWS, "".join(row.to_json() + "\n" for row in rows))
    storage.send(ROWS)


def _write_table(rows: Sequence[Row], storage: Storage) -> None:
    """rows.parquet: a row a fit, a column a measure; what is nested is flattened, but for the histories.

    There is none where no fit has a measure.
    """
    if not any(row.iou for row in rows):
        storage.remove(TABLE)
        return
    import pyarrow
    from pyarrow import parquet

    plain = []
    for row in rows:
        line = dataclasses.asdict(row)
        line |= {"varied": json.dumps(line["varied"]), "history": json.dumps(line["history"])}
        line["notes"] = json.dumps(line["notes"])
        for group in ("iou", "surface"):
            line |= {f"{group}_{name}": value for name, value in (line.pop(group) or {}).items()}
        plain.append(line)
    names = list(dict.fromkeys(name for line in plain for name in line))
    table = pyarrow.table({name: [line.get(name) for line in plain] for name in names})
    with write_atomically(storage.local / TABLE) as temporary:
        parquet.write_table(table, temporary)
    storage.send(TABLE)
