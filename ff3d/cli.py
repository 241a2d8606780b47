"""The commands. Each parses its options, calls what does the work, and ends by saying where its results lie."""

from __future__ import annotations

import json
import logging
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union

import tyro
from tyro.conf import FlagCreatePairsOff, OmitArgPrefixes, Positional, arg, subcommand

from ff3d.settings import PAPER_MAPPINGS, PRESETS, FitConfig, MappingName, make_config, starting_point

if TYPE_CHECKING:
    from ff3d.field import OccupancyField
    from ff3d.plan import Plan

log = logging.getLogger("ff3d")

MeshName = Annotated[Positional[str], arg(metavar="MESH", help="a mesh file, or the name of one in meshes/")]
RunName = Annotated[Positional[Path], arg(metavar="RUN", help="the folder of a fit, or a field's .safetensors file")]
ManyMeshes = Annotated[
    Positional[tuple[str, ...]],
    arg(
        metavar="MESHES",
        help="mesh files, folders, globs, lists of them (.lst), names: a sample, armadillo, dragon, ...",
    ),
]
ShapeName = Annotated[Positional[str], arg(metavar="MESH", help="a mesh or point cloud file, or the name of a sample")]
OracleName = Literal["auto", "winding", "rays", "open3d", "warp"]
Output = Annotated[Path | None, arg(aliases=["-o"])]
Settings = Annotated[FitConfig, arg(name="")]


@dataclass
class FitCommand:
    """Fit one field to a mesh or a point cloud, and keep it in a run folder."""

    mesh: ShapeName
    settings: Settings
    out: Path | None = None
    """run folder; the same command again goes on with an unfinished fit (default: runs/MESH-MAPPING)"""

    def __call__(self) -> int:  # noqa: D102  (the class says it)
        from ff3d.data import find_shape
        from ff3d.occupancy import load_surface
        from ff3d.runs import MeshSource, Run, new_folder

        path = find_shape(self.mesh)
        (mesh, oracle), source = load_surface(path), MeshSource.of(path)
        config = make_config(**asdict(self.settings))

        def unfinished(folder: Path) -> bool:
            run = Run(folder)
            return run.config_path.exists() and not run.finished and run.belongs_to(config, source)

        folder = self.out or new_folder(Path("runs"), f"{path.stem}-{config.mapping}", reusable=unfinished)
        run = Run(folder)
        fit = run.fit(mesh, config, source, command=_command(), oracle=oracle, progress_bar=True)
        _say(f"{fit.progress.step:,} steps in {fit.progress.seconds:.1f} s")
        if fit.progress.history:
            _say("held-out IoU: " + _scores(fit.progress.history[-1]["iou"]))
        if fit.progress.interrupted:
            _say("interrupted; the field so far is saved, and the same command goes on from here")
            if self.out is None:
                _say(f"(with --out {folder})")
        _say(f"results: {folder}")
        return 130 if fit.progress.interrupted else 0


@dataclass
class Crew:
    """Who does the fits of a study, and where."""

    workers: int = 1
    """processes that fit at the same time, beside this one; 0: in this process"""
    threads: int | None = None
    """threads of each (default: the cores shared out)"""
    timeout: float | None = None
    """seconds after which a fit is taken to hang, and is a failure (default: 600 and ten times its budget)"""
    ray: str | None = None
    """the address of a Ray cluster that does the fits: auto, local, or ray://HOST:PORT"""
    gpus: float = 0.0
    """GPUs that a fit on the cluster is given"""

    def made(self, seconds: float | None) -> Any:
        """The workers for fits of this budget."""
        from ff3d.workers import Workers

        timeout = self.timeout or (600 + 10 * seconds if seconds else None)
        return Workers(self.workers, self.threads, timeout, self.ray, self.gpus)


@dataclass
class CompareCommand:
    """Fit several mappings to a mesh on the same footing; extract, measure and picture each."""

    mesh: MeshName
    settings: Settings
    mappings: tuple[MappingName, ...] = PAPER_MAPPINGS
    """the mappings to compare"""
    resolution: int = 192
    """grid cells along the longest side of each extracted mesh"""
    out: Path | None = None
    """results folder; the same command again goes on where it was (default: runs/MESH)"""

    def __call__(self) -> int:  # noqa: D102  (the class says it)
        from ff3d.plan import holds, make_plan
        from ff3d.runs import new_folder

        settings = asdict(self.settings)
        seed = settings.pop("seed")
        settings.pop("mapping")
        plan = make_plan([self.mesh], self.mappings, (seed,), resolution=self.resolution, **settings)

        def unfinished(folder: Path) -> bool:
            return not (folder / "report.md").exists() and holds(folder, plan)

        folder = self.out or new_folder(Path("runs"), plan.meshes[0].stem, reusable=unfinished)
        return _study(plan, str(folder), Crew(0))


@dataclass
class BenchmarkCommand:
    """Fit every mapping with every seed on every mesh, measure each, and report means with intervals over seeds."""

    meshes: ManyMeshes
    settings: Settings
    crew: Annotated[Crew, arg(name="")]
    mappings: tuple[MappingName, ...] = PAPER_MAPPINGS
    """the mappings to compare"""
    seeds: tuple[int, ...] = (0, 1, 2)
    """seeds of frequencies, weights and samples; --seed is not used"""
    vary: tuple[str, ...] = ()
    """settings to vary: scale=4,8,12 width=64,256; each combination is fitted"""
    tuned: Path | None = None
    """a tuned.json of ff3d tune: learning rates and scales to take"""
    testsets: Path | None = None
    """a folder of frozen test points, MESH.npz; by default they are drawn from the mesh"""
    resolution: int = 192
    """grid cells along the longest side of each extracted mesh"""
    plan: Path | None = None
    """a YAML file with meshes, mappings, seeds, vary, tuned, testsets, resolution and settings, in place of MESHES"""
    again: bool = False
    """do once more what failed"""
    out: str = "runs/benchmark"
    """results folder, or an fsspec address (s3://...); the same command again goes on where it was"""

    def __call__(self) -> int:  # noqa: D102  (the class says it)
        from ff3d.plan import make_plan, read_plan

        settings = {name: value for name, value in asdict(self.settings).items() if name not in ("mapping", "seed")}
        usual: dict[str, Any] = {
            "mappings": self.mappings,
            "seeds": self.seeds,
            "resolution": self.resolution,
        } | settings
        usual |= {"vary": _varied(self.vary), "tuned": self.tuned, "testsets": self.testsets}
        if bool(self.meshes) == (self.plan is not None):
            raise ValueError("give MESHES, or --plan FILE.yaml with the meshes in it")
        plan = read_plan(self.plan, **usual) if self.plan else make_plan(self.meshes, **usual)
        return _study(plan, self.out, self.crew, again=self.again)


@dataclass
class TuneCommand:
    """Search the learning rate and the scale of mappings on a validation mesh, for ff3d benchmark --tuned."""

    meshes: ManyMeshes
    settings: Settings
    crew: Annotated[Crew, arg(name="")]
    mappings: tuple[MappingName, ...] = PAPER_MAPPINGS
    """the mappings to tune"""
    seeds: tuple[int, ...] = (0,)
    """seeds of frequencies, weights and samples; --seed is not used"""
    rates: tuple[float, ...] = (1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2)
    """learning rates to try"""
    scales: tuple[float, ...] = (3.0, 6.0, 12.0, 24.0, 48.0, 96.0)
    """scales to try, cycles per unit (gaussian, lecture: standard deviation; positional: highest frequency)"""
    out: Path = Path("runs/tune")
    """results folder; the same command again goes on where it was"""

    def __call__(self) -> int:  # noqa: D102  (the class says it)
        from ff3d.data import find_shapes
        from ff3d.page import write_page
        from ff3d.report import write_report
        from ff3d.tuning import tune

        config = make_config(**asdict(self.settings))
        best, studies = tune(
            find_shapes(self.meshes),
            self.mappings,
            self.seeds,
            config,
            self.out,
            rates=self.rates,
            scales=self.scales,
            workers=self.crew.made(config.seconds),
            command=_command(),
            progress_bar=True,
        )
        pages = []
        for study in studies:
            write_report(study, pictures=False)
            pages.append(write_page(study))
        for mapping, found in best.items():
            _say(f"{mapping}: " + "  ".join(f"{name} {value:g}" for name, value in found.items()))
        if not best:
            _say("interrupted; the same command goes on from here")
        _say(f"results: {self.out / 'tuned.json' if best else self.out}   reports: {'  '.join(map(str, pages))}")
        return 0 if best else 130


@dataclass
class ExtractCommand:
    """Extract a run's surface as a watertight mesh in the input's coordinates; or points on it, or voxels."""

    run: RunName
    resolution: int = 256
    """grid cells along the longest side of the field's box"""
    output: Output = None
    """.ply, .obj, .stl, .glb: the mesh; .xyz: points with normals; .npz: voxels (default: mesh.ply beside the field)"""
    refine: int = 0
    """steps of root finding for each vertex, instead of linear interpolation along its edge of the grid"""
    drop_floaters: float | None = None
    """drop parts of less than this share of the volume"""
    simplify: int | None = None
    """simplify to about so many faces"""
    simplify_error: float | None = None
    """simplify as far as the surface moves by less than this, input units"""
    smooth_normals: bool = False
    """vertex normals from the field's gradient, not from the faces around; asks it six times for each vertex"""
    points: int = 100_000
    """points in an .xyz"""
    method: Literal["sparse", "dense"] = "sparse"
    """dense: ask about every grid point, to be sure that no part is missed"""
    max_memory: float | None = None
    """gigabytes that may be used (default: what is available)"""
    device: str = "auto"
    """auto, cpu, cuda or mps"""

    def __call__(self) -> int:  # noqa: D102  (the class says it)
        from ff3d.cleaning import drop_floaters, simplify, smooth_normals
        from ff3d.exporting import save_points, save_voxels
        from ff3d.formats import WRITERS
        from ff3d.mesh import save_mesh, signed_volume

        begun = time.perf_counter()
        output = self.output or (self.run if self.run.is_dir() else self.run.parent) / "mesh.ply"
        ending = output.suffix.lower()
        if ending not in (*WRITERS, ".xyz", ".npz"):
            raise ValueError(f"{output}: cannot write {ending!r}; known endings: {', '.join(WRITERS)}, .xyz, .npz")
        cleaning = self.drop_floaters, self.simplify, self.simplify_error
        if ending == ".npz" and (self.refine or self.smooth_normals or cleaning != (None, None, None)):
            raise ValueError(
                f"{output}: voxels have no vertices to refine, simplify or clean; leave these out, or give .ply"
            )
        if self.points < 1:
            raise ValueError(f"--points must be at least 1, got {self.points}")
        field = _load(self.run, self.device)
        if ending == ".npz":
            inside = save_voxels(field.logits, field.bounds, output, resolution=self.resolution, progress=True)
            _say(f"{inside:.2%} of the voxels are inside, {time.perf_counter() - begun:.1f} s")
            _say(f"results: {output}")
            return 0
        memory = None if self.max_memory is None else round(self.max_memory * 1e9)
        shape = field.extract_mesh(
            self.resolution, method=self.method, refine=self.refine, max_memory=memory, progress=True
        )
        if self.drop_floaters is not None:
            shape = drop_floaters(shape, self.drop_floaters)
        if self.simplify is not None or self.simplify_error is not None:
            shape = simplify(shape, faces=self.simplify, error=self.simplify_error)
        if self.smooth_normals:
            cell = float((field.bounds[1] - field.bounds[0]).max()) / self.resolution
            shape.vertex_normals = smooth_normals(shape, field.logits, cell / 2)  # type: ignore[method-assign]
        if ending == ".xyz":
            save_points(shape, output, count=self.points)
        else:
            save_mesh(shape, output)
        volume = signed_volume(shape)
        took = time.perf_counter() - begun
        _say(f"{len(shape.faces):,} faces, closed, volume {volume:.6g}, {took:.1f} s")
        _say(f"results: {output}")
        return 0


@dataclass
class EvaluateCommand:
    """Measure a run: IoU of the field; Chamfer, F-score and normal consistency of its mesh."""

    run: RunName
    mesh: str | None = None
    """the reference mesh; its test points are drawn anew from --seed"""
    testset: Path | None = None
    """a .npz of frozen test points: uniform, uniform_inside, boundary_face, ... (IoU only)"""
    resolution: int = 256
    """grid cells along the longest side of the extracted mesh"""
    seed: int = 0
    """seed of the test points"""
    device: str = "auto"
    """auto, cpu, cuda or mps"""
    as_json: Annotated[bool, arg(name="json")] = False
    """print one line of JSON"""

    def __call__(self) -> int:  # noqa: D102  (the class says it)
        from ff3d.benchmark import evaluate
        from ff3d.data import find_shape
        from ff3d.mesh import load_mesh
        from ff3d.metrics import surface_distances
        from ff3d.sampling import TEST_KINDS, load_test_sets, test_points

        if (self.mesh is None) == (self.testset is None):
            raise ValueError("give one of --mesh MESH and --testset FILE.npz")
        field = _load(self.run, self.device)
        result: dict[str, Any]
        if self.testset is not None:
            result = {"iou": evaluate(field.contains, load_test_sets(self.testset), progress_bar=True)}
        else:
            reference = load_mesh(find_shape(str(self.mesh)))
            log.info("labelling the test points")
            tests = {kind: test_points(reference, kind, seed=self.seed) for kind in TEST_KINDS}
            result = {"iou": evaluate(field.contains, tests, progress_bar=True)}
            shape = field.extract_mesh(self.resolution, progress=not self.as_json)
            result |= asdict(surface_distances(shape, reference, seed=self.seed))
        if self.as_json:
            _say(json.dumps(result))
        else:
            _say("IoU  " + _scores(result.pop("iou")))
            for name, value in result.items():
                _say(f"{name}  {value:.6g}")
            _say(f"measured: {self.run}")
        return 0


@dataclass
class LabelCommand:
    """Label points inside (True) or outside (False) a shape: a mesh, or a point cloud (.ply without faces, .xyz)."""

    mesh: ShapeName
    points: Annotated[Positional[Path], arg(metavar="POINTS.npy", help="(n, 3) numbers, input coordinates")]
    output: Annotated[Path, arg(aliases=["-o"])]
    """where the labels go: a .npy of bool (n,)"""
    oracle: OracleName = "auto"
    """who says so: auto takes the winding number"""

    def __call__(self) -> int:  # noqa: D102  (the class says it)
        from ff3d.data import find_shape
        from ff3d.labelling import label_file
        from ff3d.occupancy import make_oracle
        from ff3d.pointcloud import load_shape

        oracle = make_oracle(load_shape(find_shape(self.mesh)), self.oracle)
        inside, count = label_file(oracle, self.points, self.output, progress=True)
        _say(f"{inside:,} of {count:,} points are inside")
        _say(f"results: {self.output}")
        return 0


@dataclass
class PrepareCommand:
    """Write labelled samples of many meshes, for use elsewhere; a mesh that fails is a row with its reason."""

    meshes: ManyMeshes
    out: Path
    """folder for NAME.npz and prepared.jsonl; what is there already is kept"""
    points: int = 100_000
    """points of each mesh"""
    uniform: float = FitConfig.uniform
    """share of the points that are uniform in the box; the rest lie near the surface"""
    widths: tuple[float, ...] = FitConfig.widths
    """standard deviations of the points near the surface, units (shares of the cube's side)"""
    margin: float = FitConfig.margin
    """how far the box reaches past the mesh, units"""
    seed: int = 0
    """seed of the points"""

    def __call__(self) -> int:  # noqa: D102  (the class says it)
        from ff3d.data import find_shapes
        from ff3d.labelling import prepare
        from ff3d.sampling import SampleMix

        positive = self.points > 0 and all(it > 0 for it in self.widths)
        if not (positive and self.margin >= 0 and 0 <= self.uniform <= 1):
            raise ValueError("--points and --widths must be positive, --margin not negative, --uniform within 0 and 1")
        rows = prepare(
            find_shapes(self.meshes),
            self.out,
            count=self.points,
            mix=SampleMix(self.uniform, self.widths),
            margin=self.margin,
            seed=self.seed,
            progress=True,
        )
        failed = sum("failure" in row for row in rows)
        _say(f"{len(rows) - failed} of {len(rows)} meshes prepared, {self.points:,} points each")
        _say(f"results: {self.out}")
        return int(failed == len(rows))


@dataclass
class InspectCommand:
    """Say what a mesh is made of, what is wrong with it, what ff3d does about that, and where labels are not sure."""

    mesh: MeshName
    check: bool = False
    """label 100,000 points by a second, independent oracle too, and say where the two disagree"""
    picture: Path | None = None
    """a .png: three cuts through the place where labels are least sure"""

    def __call__(self) -> int:  # noqa: D102  (the class says it)
        from ff3d.checking import UNSURE, doubt, second_opinion
        from ff3d.data import find_shape
        from ff3d.figure import cross_sections
        from ff3d.mesh import inspect_mesh, load_mesh
        from ff3d.occupancy import REFUSED, WindingNumberOracle
        from ff3d.rendering import save_picture
        from ff3d.sampling import grown_box

        path = find_shape(self.mesh)
        mesh = load_mesh(path)
        _say(f"{path}\n{inspect_mesh(mesh)}")
        oracle = WindingNumberOracle(mesh)
        for note in oracle.notes:
            _say(f"- {note}")
        found = doubt(mesh, oracle)
        if found.unsettled > REFUSED:
            _say(f"labels  refused: an open surface, {found.unsettled:.0%} of it has outside on both sides")
        else:
            _say(f"labels  not sure in {found.share:.2%} of the box{' at' * bool(found.places)}")
        _list(found.places)
        if self.check and found.unsettled <= REFUSED:
            other = second_opinion(mesh, oracle, progress=True)
            where = " at" * bool(other.places)
            _say(f"check   {other.share:.4%} of {other.points:,} points differ from {other.second}{where}")
            _list(other.places)
        if self.picture is not None:
            low, high = grown_box(mesh, 0.02 * oracle.cube.scale)
            center = found.places[0].center if found.places else tuple((low + high) / 2)
            title = f"{path.name}: labels not sure in {found.share:.2%} of the box"
            cuts = cross_sections(oracle.winding_number, (low, high), center, unsure=UNSURE, title=title)
            save_picture(cuts, self.picture)
            _say(f"results: {self.picture}")
        return 0


@dataclass
class SamplesCommand:
    """Write the sample shapes: bunny, knot, gyroid, bracket and soup."""

    directory: Annotated[Positional[Path], arg(metavar="DIR")] = Path("meshes")
    """where to"""

    def __call__(self) -> int:  # noqa: D102  (the class says it)
        from ff3d.samples import write_samples

        for path in write_samples(self.directory, progress=True):
            _say(str(path))
        _say(f"results: {self.directory}")
        return 0


def main(argv: Sequence[str] | None = None, *, prog: str = "ff3d", only: str | None = None) -> int:
    """Run one command; return 0, or a non-zero code after one clear line (a traceback with --debug).

    only: the one command that a script of this name offers; its arguments then do not name it.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    arguments = [it for it in arguments if it != "--debug"]
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        return _parse(arguments, prog, only)()
    except KeyboardInterrupt:
        log.error("%s: interrupted", prog)
        return 130
    except Exception as error:
        if debug:
            raise
        log.error("%s: error: %s", prog, (str(error) or type(error).__name__).splitlines()[0])
        return 1


def _parse(arguments: list[str], prog: str, only: str | None) -> Callable[[], int]:
    """The command that the arguments describe. --preset decides what the other settings start from."""
    command = only or (arguments or [""])[0]
    preset, seconds = _given(arguments, "--preset"), _number(_given(arguments, "--seconds") or "")
    if preset not in PRESETS:  # if it is there at all, the parser says what is wrong with it
        preset = None if command == "fit" else "plain"
    settings = starting_point(preset, _given(arguments, "--mapping"), None if isinstance(seconds, str) else seconds)
    if command in ("compare", "benchmark", "tune") and any(it.split("=")[0] == "--mapping" for it in arguments):
        raise ValueError(f"{command} takes --mappings (several), not --mapping")
    missing: Any = tyro.MISSING
    commands = {
        "fit": FitCommand(missing, settings),
        "compare": CompareCommand(missing, settings),
        "benchmark": BenchmarkCommand((), settings, Crew()),
        "tune": TuneCommand(missing, settings, Crew()),
        "extract": ExtractCommand(missing),
        "evaluate": EvaluateCommand(missing),
        "label": LabelCommand(missing, missing, missing),
        "prepare": PrepareCommand(missing, missing),
        "inspect": InspectCommand(missing),
        "samples": SamplesCommand(),
    }
    config: Any = (OmitArgPrefixes, FlagCreatePairsOff)
    if only:
        kind: Any = type(commands[only])
        alone: Callable[[], int] = tyro.cli(kind, default=commands[only], args=arguments, prog=prog, config=config)
        return alone
    # mypy cannot follow a Union that is put together at run time
    choice: Any = Union[  # noqa: UP007
        tuple(
            Annotated[type(command), subcommand(name, default=command, description=type(command).__doc__)]
            for name, command in commands.items()
        )
    ]
    about = (
        "ff3d: meshes to compact neural shapes. Each command has its own --help; --debug shows an error's traceback."
    )
    picked: Callable[[], int] = tyro.cli(choice, args=arguments, prog=prog, description=about, config=config)
    return picked


def _given(arguments: Sequence[str], flag: str) -> str | None:
    """The value that a flag is given, the last one, before the arguments are parsed."""
    apart = [value for it, value in pairwise([*arguments, ""]) if it == flag]
    values = apart + [it.partition("=")[2] for it in arguments if it.startswith(f"{flag}=")]
    return values[-1] if values else None


def _load(run: Path, device: str) -> OccupancyField:
    """The field of a run's folder, or of a field's file."""
    from ff3d.field import load_field
    from ff3d.runs import Run

    return load_field(run, device=device) if run.suffix == ".safetensors" else Run(run).load(device=device)


def _study(plan: Plan, out: str, crew: Crew, *, again: bool = False) -> int:
    """Run a study, write its reports and say what came of it."""
    from ff3d.page import write_page
    from ff3d.report import text_table, write_report
    from ff3d.study import run_study

    _say(f"{plan}")
    command = _command()
    workers = crew.made(plan.config.seconds)
    study = run_study(plan, out, workers=workers, again=again, command=command, progress_bar=True)
    write_report(study, progress_bar=True)
    page = write_page(study)
    _say("\n" + text_table(study) + "\n")
    failed = [row for row in study.rows if row.failure]
    for row in failed:
        _say(f"{row.mesh}, {row.arm}, seed {row.seed} failed: {row.failure}")
    if study.best:
        _say(f"best near the surface: {study.best}")
    if study.missing:
        _say(f"interrupted, {study.missing} fits are missing or cut short; the same command goes on from here")
    _say(f"{plan.fits - study.missing} of {plan.fits} fits done, {len(failed)} failed")
    _say(f"results: {out}   report: {page.name if study.storage.remote else page}")
    return 130 if study.missing else int(study.best is None)


def _command() -> str:
    """The command as it was typed, but for the folder of the program."""
    return shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])


def _varied(entries: Sequence[str]) -> dict[str, list[Any]]:
    """The settings and values of scale=4,8,12: numbers where they are numbers."""
    varied: dict[str, list[Any]] = {}
    for entry in entries:
        name, _, values = entry.partition("=")
        if not name or not values:
            raise ValueError(f"--vary takes SETTING=VALUE,VALUE,..., got {entry!r}")
        varied[name.replace("-", "_")] = [_number(value) for value in values.split(",")]
    return varied


def _number(text: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _list(places: Sequence[object]) -> None:
    for place in places:
        _say(f"        {place}")


def _scores(scores: dict[str, float]) -> str:
    return "  ".join(f"{kind} {score:.4f}" for kind, score in scores.items())


def _say(text: str) -> None:
    """Results go to standard output; the log and the bars to standard error."""
    print(text, flush=True)  # noqa: T201  (this is the command line)


if __name__ == "__main__":
    sys.exit(main())
