"""ff3d compare, benchmark and tune."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, get_args

from tyro.conf import arg

from ff3d.cli.options import (
    ManyMeshes,
    PageOptions,
    ServedPage,
    Settings,
    ShapeName,
    number_or_text,
    say,
    typed_command,
)
from ff3d.cli.settings import given
from ff3d.fields.config import COMPARED, PAPER_MAPPINGS, MappingName
from ff3d.progress import Interrupt
from ff3d.settings import make_config

if TYPE_CHECKING:
    from ff3d.settings import FitConfig
    from ff3d.studies.plan import Plan
    from ff3d.studies.workers import Workers
    from ff3d.viewer.watching import Watch

NAMES = f"[{{{','.join(get_args(MappingName))}}} ...]"
SEEDS = (0, 1, 2)
RESOLUTION = 192


def _option(metavar: str, usual: Sequence[Any]) -> Any:
    """An option that is None where it is not given, and what it usually is then."""
    return arg(metavar=metavar, help_behavior_hint=f"(default: {' '.join(map(str, usual))})")


@dataclass
class Executor:
    """Where the fits of a study run, and how many at a time."""

    workers: int = 1
    """processes that fit at the same time, beside this one; 0: in this process"""
    threads: int | None = None
    """threads of each (default: the cores shared out)"""
    timeout: float | None = None
    """seconds after which a fit is taken to hang, and is a failure (default: 600 and ten times the largest budget)"""
    ray: str | None = None
    """the address of a Ray cluster that does the fits: auto, local, or ray://HOST:PORT"""
    gpus: float = 0.0
    """GPUs that a fit on the cluster is given"""

    def start(self) -> None:
        """Let what workers need be imported, while the plan is made. Raises ValueError for GPUs without a cluster."""
        from ff3d.studies.workers import start_server

        if self.gpus and not self.ray:
            raise ValueError(
                "--gpus needs --ray: it is what each fit is given of a cluster; --device picks the GPU here"
            )
        if self.workers and not self.ray:
            start_server()

    def workers_for(self, configs: Iterable[FitConfig]) -> Workers:
        """The workers for fits of these settings: without --timeout none is given up unless all have seconds."""
        from ff3d.studies.workers import Workers

        timeout, seconds = self.timeout, [config.budget.seconds or math.inf for config in configs]
        if timeout is None and (self.workers or self.ray) and max(seconds, default=math.inf) < math.inf:
            timeout = 600 + 10 * max(seconds)
        return Workers(self.workers, self.threads, timeout, self.ray, self.gpus)


@dataclass
class CompareCommand:
    """Fit several mappings to a mesh on the same terms; extract, measure and picture each."""

    EXAMPLES: ClassVar = (
        "bunny --steps 100 --resolution 96 --out runs/compare",
        "bunny --mappings hash voxels --steps 100 --resolution 96 --out runs/two",
    )

    mesh: ShapeName
    settings: Settings
    mappings: tuple[MappingName, ...] = COMPARED
    """the mappings to compare; voxels: signed distances on a grid, without a network"""
    resolution: int = RESOLUTION
    """grid cells along the longest side of each extracted mesh"""
    out: Path | None = None
    """results folder; the same command again resumes it (default: runs/MESH)"""
    watch: bool = False
    """show the shapes as they form, side by side in the browser, with curves"""
    page: ServedPage = field(default_factory=PageOptions)
    force: bool = False
    """replace files that ff3d has not made"""

    def __call__(self) -> int:  # noqa: D102  (the class says it)
        from ff3d.runs import new_folder
        from ff3d.studies.plan import make_plan, matches_plan

        settings = _without_mapping(given(self.settings), "compare")
        seed = settings.pop("seed", 0)
        plan = make_plan([self.mesh], self.mappings, (seed,), resolution=self.resolution, **settings)

        def unfinished(folder: Path) -> bool:
            return not (folder / "report.md").exists() and matches_plan(folder, plan)

        folder = self.out or new_folder(Path("runs"), plan.meshes[0].stem, reusable=unfinished)
        if not self.watch:
            return _study(plan, str(folder), Executor(0), force=self.force)
        from ff3d.viewer.page import check_viser

        check_viser("ff3d compare --watch")
        from ff3d.studies.task import reference
        from ff3d.viewer.watching import Watch

        surface = reference(plan.meshes[0]).surface
        with closing(Watch(surface, plan.variants, host=self.page.host, port=self.page.port)) as watch:
            watch.announce(say, browser=not self.page.no_open)
            code = _study(plan, str(folder), Executor(0), force=self.force, watch=watch)
            watch.linger(say)
        return code


@dataclass
class BenchmarkCommand:
    """Fit every mapping with every seed on every mesh, measure each, and report means with intervals over seeds."""

    EXAMPLES: ClassVar = (
        "bunny knot --mappings hash --seeds 0 1 --steps 100 --resolution 64 --out runs/study",
        "bunny --mappings gaussian --vary scale=6,12 --seeds 0 --steps 100 --resolution 64 --out runs/scales",
    )

    meshes: ManyMeshes
    settings: Settings
    executor: Annotated[Executor, arg(name="")]
    mappings: Annotated[tuple[MappingName, ...] | None, _option(NAMES, COMPARED)] = None
    """the mappings to compare; voxels: signed distances on a grid, without a network"""
    seeds: Annotated[tuple[int, ...] | None, _option("[INT ...]", SEEDS)] = None
    """seeds of frequencies, weights and samples; --seed is not used"""
    vary: tuple[str, ...] = ()
    """settings to vary: scale=4,8,12 width=64,256; each combination is fitted"""
    tuned: Path | None = None
    """a tuned.json of ff3d tune: learning rates and scales to take"""
    testsets: Path | None = None
    """a folder of frozen test points, MESH.npz; by default they are drawn from the mesh"""
    resolution: Annotated[int | None, _option("INT", [RESOLUTION])] = None
    """grid cells along the longest side of each extracted mesh"""
    plan: Path | None = None
    """YAML: meshes, mappings, seeds, vary, tuned, testsets, resolution, settings; options typed go before the file's"""
    again: bool = False
    """do once more what failed"""
    out: str = "runs/benchmark"
    """results folder, or an fsspec address (s3://...); the same command again resumes it"""
    force: bool = False
    """replace files that ff3d has not made"""

    def __call__(self) -> int:  # noqa: D102  (the class says it)
        self.executor.start()
        from ff3d.studies.plan import make_plan, read_plan

        settings = _without_mapping(given(self.settings), "benchmark")
        settings.pop("seed", None)
        options = {name: getattr(self, name) for name in ("mappings", "seeds", "tuned", "testsets", "resolution")}
        typed = {name: value for name, value in options.items() if value is not None} | settings
        if self.vary:
            typed["vary"] = _varied(self.vary)
        if bool(self.meshes) == (self.plan is not None):
            raise ValueError("give MESHES, or --plan FILE.yaml with the meshes in it")
        usual = {"mappings": COMPARED, "seeds": SEEDS, "resolution": RESOLUTION}
        plan = read_plan(self.plan, typed, **usual) if self.plan else make_plan(self.meshes, **{**usual, **typed})
        found = {name for mapping in plan.mappings for name in plan.tuned.get(mapping, {})}
        if twice := sorted(settings.keys() & found):
            option = f"--{twice[0].replace('_', '-')}"
            raise ValueError(f"{option} is given, and the tuned settings have their own; leave one of them out")
        return _study(plan, self.out, self.executor, again=self.again, force=self.force)


@dataclass
class TuneCommand:
    """Search the learning rate and the scale of mappings on a validation mesh, for ff3d benchmark --tuned."""

    EXAMPLES: ClassVar = (
        "bracket --mappings hash --rates 0.004 0.016 --steps 50",
        "bracket --mappings none basic --rates 0.002 0.01 --steps 20 --out runs/rates",
    )

    meshes: ManyMeshes
    settings: Settings
    executor: Annotated[Executor, arg(name="")]
    mappings: tuple[MappingName, ...] = PAPER_MAPPINGS
    """the mappings to tune"""
    seeds: tuple[int, ...] = (0,)
    """seeds of frequencies, weights and samples; --seed is not used"""
    rates: tuple[float, ...] = (1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2)
    """learning rates to try"""
    scales: tuple[float, ...] = (3.0, 6.0, 12.0, 24.0, 48.0, 96.0)
    """scales to try, cycles per unit (gaussian, lecture: standard deviation; positional: highest frequency)"""
    out: Path = Path("runs/tune")
    """results folder; the same command again resumes it"""
    force: bool = False
    """replace files that ff3d has not made"""

    def __call__(self) -> int:  # noqa: D102  (the class says it)
        self.executor.start()
        from ff3d.shapes.sources import find_shapes
        from ff3d.studies.tuning import tune
        from ff3d.views.html import write_page
        from ff3d.views.markdown import write_report

        settings = _without_mapping(given(self.settings), "tune")
        settings.pop("seed", None)
        best, studies = tune(
            find_shapes(self.meshes),
            self.mappings,
            self.seeds,
            settings,
            self.out,
            rates=self.rates,
            scales=self.scales,
            workers=self.executor.workers_for(make_config(**settings | {"mapping": it}) for it in self.mappings),
            command=typed_command(),
            progress_bar=True,
            force=self.force,
        )
        pages = []
        for study in studies:
            write_report(study, pictures=False)
            pages.append(write_page(study))
        for mapping, found in best.items():
            say(f"{mapping}: " + "  ".join(f"{name} {value:g}" for name, value in found.items()))
        if not best:
            say("interrupted; the same command resumes it")
        say(f"results: {self.out / 'tuned.json' if best else self.out}   reports: {'  '.join(map(str, pages))}")
        return 0 if best else 128 + Interrupt.last


def _study(
    plan: Plan,
    out: str,
    executor: Executor,
    *,
    again: bool = False,
    force: bool = False,
    watch: Watch | None = None,
) -> int:
    """Run a study, write its reports and say what came of it."""
    from ff3d.studies.study import run_study
    from ff3d.views.html import write_page
    from ff3d.views.markdown import write_report
    from ff3d.views.tables import text_table

    say(f"{plan}")
    command = typed_command()
    workers = executor.workers_for(task.config for task in plan.tasks())
    if watch:
        workers = replace(workers, watch=lambda task: watch.begin(task.variant, task.config))
    study = run_study(plan, out, workers=workers, again=again, command=command, progress_bar=True, force=force)
    write_report(study, progress_bar=True)
    page = write_page(study)
    say("\n" + text_table(study) + "\n")
    failed = [row for row in study.rows if row.failure]
    for row in failed:
        say(f"{row.mesh}, {row.arm}, seed {row.seed} failed: {row.failure}")
    if study.best:
        say(f"best near the surface: {study.best}")
    if study.missing:
        say(f"interrupted, {study.missing} fits are missing or cut short; the same command resumes it")
    say(f"{plan.fits - study.missing} of {plan.fits} fits done, {len(failed)} failed")
    say(f"results: {out}   report: {page.name if study.storage.remote else page}")
    return 128 + Interrupt.last if study.missing else int(not any(row.iou for row in study.rows))


def _without_mapping(settings: dict[str, Any], command: str) -> dict[str, Any]:
    """The settings given; ValueError where one mapping was named instead of several."""
    if "mapping" in settings:
        raise ValueError(f"{command} takes --mappings (several), not --mapping")
    return settings


def _varied(entries: Sequence[str]) -> dict[str, list[Any]]:
    """The settings and values of scale=4,8,12: numbers where they are numbers."""
    varied: dict[str, list[Any]] = {}
    for entry in entries:
        name, _, values = entry.partition("=")
        if not name or not values:
            raise ValueError(f"--vary takes SETTING=VALUE,VALUE,..., got {entry!r}")
        name = name.replace("-", "_")
        if name in varied:
            raise ValueError(f"--vary has {name} twice; give its values at once: {name}=VALUE,VALUE,...")
        varied[name] = [number_or_text(value) for value in values.split(",")]
    return varied
