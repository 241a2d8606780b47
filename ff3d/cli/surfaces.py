"""ff3d fit, extract and evaluate: one field; view and render: what there is to be seen."""

from __future__ import annotations

import json
import logging
import shlex
import time
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from tyro.conf import Positional, arg

from ff3d.checks import check_seed
from ff3d.cli.options import (
    Output,
    PageOptions,
    RunName,
    ServedPage,
    Settings,
    ShapeName,
    bytes_of,
    load_field_of,
    say,
    scores_in_words,
    typed_command,
)
from ff3d.cli.settings import given
from ff3d.files import check_folder, check_output
from ff3d.progress import Interrupt
from ff3d.settings import make_config

if TYPE_CHECKING:
    from ff3d.fitting import Fit
    from ff3d.labels.oracles import LabelledShape
    from ff3d.runs import Run
    from ff3d.settings import FitConfig
    from ff3d.viewer.film import Film
    from ff3d.viewer.tensorboard import TensorBoard
    from ff3d.viewer.watching import Watch

log = logging.getLogger("ff3d")


@dataclass
class FitCommand:
    """Fit one field to a mesh or a point cloud, and keep it in a run folder."""

    EXAMPLES: ClassVar = ("bunny --seconds 5 --out runs/bunny", "bracket --bytes 5k --out runs/small")

    mesh: ShapeName
    settings: Settings
    out: Path | None = None
    """run folder; the same command again resumes an unfinished fit (default: runs/MESH-MAPPING)"""
    watch: bool = False
    """show the shape as it forms, in the browser, with curves; it can be stopped there"""
    page: ServedPage = field(default_factory=PageOptions)
    tensorboard: bool = False
    """write loss, scores, pictures and the mesh for TensorBoard, into RUN/tensorboard"""
    film: Path | None = None
    """a .gif, or with the extra video an .mp4, of the shape as it forms; drawn after the fit"""
    force: bool = False
    """replace files that ff3d has not made"""

    def __call__(self) -> int:  # noqa: D102  (the class says it)
        from ff3d.labels.oracles import load_timed
        from ff3d.runs import MeshSource, Run, new_folder

        if self.watch:
            from ff3d.viewer.page import check_viser

            check_viser("ff3d fit --watch")
        if self.tensorboard:
            from ff3d.viewer.tensorboard import check_tensorboard

            check_tensorboard("ff3d fit --tensorboard")
        if self.film:
            from ff3d.viewer.film import Film

            Film.check(self.film)
            check_output(self.film, force=self.force)
        if self.out is None or not Run(self.out).finished:
            check_folder(self.out or Path("runs"))
        surface, seconds = load_timed(self.mesh)
        source = MeshSource(surface.name, surface.sha256 or "")
        config = make_config(**{"preset": None} | given(self.settings))

        def unfinished(folder: Path) -> bool:
            run = Run(folder)
            return run.config_path.exists() and not run.finished and run.matches(config, source)

        folder = self.out or new_folder(Path("runs"), f"{surface.stem}-{config.mapping.name}", reusable=unfinished)
        run = Run(folder)
        with ExitStack() as stack:
            watch = self._watch(stack, surface, config) if self.watch else None
            board = self._board(stack, run) if self.tensorboard and not run.finished else None
            film = self._film(surface, config) if self.film and not run.finished else None
            fit = run.fit(
                surface.mesh,
                config,
                source,
                command=typed_command(),
                oracle=surface.oracle,
                spent=seconds,
                progress_bar=True,
                observers=[it for it in (watch, board, film) if it],
                force=self.force,
            )
            code = self._say(fit, folder)
            if board:
                board.finished(fit.field, fit.progress)
                say(f"TensorBoard: tensorboard --logdir {folder}")
            if self.film:
                count = film.write(fit.field, self.film, progress=True) if film else 0
                say(f"film: {self.film}, {count} moments" if film else "no film: the fit was finished already")
            if watch:
                watch.finished(fit.field)
                say(f"watching took {watch.share:.1%} of the seconds")
                watch.linger(say)
        return code

    def _film(self, surface: LabelledShape, config: FitConfig) -> Film:
        """What notes the field as it forms."""
        from ff3d.fitting import settings_for
        from ff3d.viewer.film import Film

        return Film(surface.mesh, settings_for(config, surface)[0].budget)

    def _board(self, stack: ExitStack, run: Run) -> TensorBoard:
        """What writes for TensorBoard, closed with the stack."""
        from ff3d.viewer.tensorboard import TensorBoard

        return stack.enter_context(closing(TensorBoard(run.folder / "tensorboard", known=len(run.history()))))

    def _watch(self, stack: ExitStack, surface: LabelledShape, config: FitConfig) -> Watch:
        """The page of the fit, closed with the stack."""
        from ff3d.viewer.watching import Watch

        name = config.mapping.name
        watch = stack.enter_context(closing(Watch(surface, [name], host=self.page.host, port=self.page.port)))
        watch.announce(say, browser=not self.page.no_open)
        return watch.begin(name, config)

    def _say(self, fit: Fit, folder: Path) -> int:
        """What came of the fit; the exit code."""
        for note in fit.notes:
            say(note)
        steps = f"{fit.progress.step:,} steps" if fit.progress.step else "fitted without a network"
        say(f"{steps} in {fit.progress.seconds:.1f} s")
        if fit.progress.history:
            say("held-out IoU: " + (scores_in_words(fit.progress.history[-1]["iou"]) or "none"))
        for remark in fit.remarks:
            say(remark)
        if fit.progress.interrupted:
            say("interrupted; the field so far is saved, and the same command resumes it")
            if self.out is None:
                say(f"(with --out {folder})")
        elif fit.nothing is None:
            say(f"next: ff3d extract {shlex.quote(str(folder))} makes its mesh, ff3d evaluate measures it")
        say(f"results: {folder}")
        return 128 + fit.progress.signal if fit.progress.signal else int(fit.nothing is not None)


@dataclass
class ExtractCommand:
    """Extract a run's surface as a watertight mesh in the input's coordinates; or points on it, or voxels."""

    EXAMPLES: ClassVar = (
        "runs/bunny --resolution 512 -o bunny.ply",
        "runs/small --resolution 96 --refine 3 -o small.glb",
    )

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
    """vertex normals from the field's gradient, not from the faces around; six queries for each vertex"""
    points: int = 100_000
    """points in an .xyz"""
    method: Literal["sparse", "dense"] = "sparse"
    """dense: evaluate every grid point, to be sure that no part is missed"""
    max_memory: float | None = None
    """gigabytes that may be used (default: what is available)"""
    device: str = "auto"
    """auto, cpu, cuda or mps"""
    force: bool = False
    """replace files that ff3d has not made"""

    def __call__(self) -> int:  # noqa: D102  (the class says it)
        begun = time.perf_counter()
        output = self.output or (self.run if self.run.is_dir() else self.run.parent) / "mesh.ply"
        memory = bytes_of(self.max_memory)
        in_run = self.output is None and self.run.is_dir()  # mesh.ply there is ff3d's own
        check_output(output, force=self.force or in_run, inputs=[self.run])
        done = load_field_of(self.run, self.device).export(
            output,
            resolution=self.resolution,
            method=self.method,
            refine=self.refine,
            max_memory=memory,
            drop_floaters=self.drop_floaters,
            simplify=self.simplify,
            simplify_error=self.simplify_error,
            smooth_normals=self.smooth_normals,
            points=self.points,
            progress=True,
        )
        seconds = time.perf_counter() - begun
        if done.inside is None:
            say(f"{done.faces:,} faces, closed, volume {done.volume:.6g}, {seconds:.1f} s")
        else:
            say(f"{done.inside:.2%} of the voxels are inside, {seconds:.1f} s")
        say(f"results: {output}")
        return 0


@dataclass
class EvaluateCommand:
    """Measure a run: IoU of the field; Chamfer, F-score and normal consistency of its mesh."""

    EXAMPLES: ClassVar = ("runs/bunny --mesh bunny", "runs/small --mesh bracket --resolution 96 --json")

    run: RunName
    mesh: str | None = None
    """the reference, a mesh or a point cloud; its test points are drawn anew from --seed"""
    testset: Path | None = None
    """a .npz of frozen test points: uniform, uniform_inside, boundary_face, ... (IoU only)"""
    resolution: int | None = None
    """grid cells along the longest side of the extracted mesh (default: 256, or more where the reference is thin)"""
    seed: int = 0
    """seed of the test points"""
    device: str = "auto"
    """auto, cpu, cuda or mps"""
    as_json: Annotated[bool, arg(name="json")] = False
    """print one line of JSON"""

    def __call__(self) -> int:  # noqa: D102  (the class says it)
        from ff3d.labels.oracles import load_surface
        from ff3d.metrics import remarks
        from ff3d.points.test_sets import load_test_sets
        from ff3d.studies.measurement import Measurement, measure, overlaps_of

        if (self.mesh is None) == (self.testset is None):
            raise ValueError("give one of --mesh MESH and --testset FILE.npz")
        if self.resolution is not None and self.resolution < 1:
            raise ValueError(f"--resolution must be at least 1, got {self.resolution}")
        check_seed(self.seed)
        field = load_field_of(self.run, self.device)
        if self.testset is not None:
            overlaps = overlaps_of(field.contains, load_test_sets(self.testset), progress_bar=True)
            found = Measurement(overlaps, notes=tuple(remarks(overlaps)))
        else:
            reference = load_surface(str(self.mesh))
            log.info("labelling the test points")
            found = measure(field, reference, resolution=self.resolution, seed=self.seed, progress_bar=not self.as_json)
        result = found.to_json()
        if self.as_json:
            say(json.dumps(result))
        else:
            say("IoU  " + scores_in_words(result["iou"]))
            for name, value in asdict(found.surface).items() if found.surface else ():
                say(f"{name}  {value:.6g}")
            for note in found.notes:
                say(f"- {note}")
            say(f"measured: {self.run}")
        return int(all(score is None for score in result["iou"].values()))


ShownPaths = Annotated[
    Positional[tuple[str, ...]],
    arg(
        metavar="PATHS",
        help="meshes, scans, fields, labelled points (.npz), folders of fit, compare, benchmark, watertight, "
        "prepare; what is fitted is compared with the mesh before it",
    ),
]


@dataclass
class ViewCommand:
    """Show meshes, scans, fields and results in the browser: turn, compare, cut and colour them."""

    EXAMPLES: ClassVar = ("bunny runs/bunny", "runs/compare --port 0 --no-open")

    paths: ShownPaths
    resolution: int = 128
    """grid cells along the longest side of a field's surface"""
    up: Literal["y", "z"] = "y"
    """the axis that points up"""
    page: ServedPage = field(default_factory=PageOptions)
    device: str = "auto"
    """auto, cpu, cuda or mps"""

    def __call__(self) -> int:  # noqa: D102  (the class says it)
        from ff3d.viewer.page import check_viser, open_browser

        check_viser("ff3d view")
        if self.resolution < 1:
            raise ValueError(f"--resolution must be at least 1, got {self.resolution}")
        from ff3d.viewer.gallery import Gallery
        from ff3d.viewer.items import load_items

        items = load_items(self.paths, resolution=self.resolution, device=self.device)
        with (
            closing(Gallery(items, host=self.page.host, port=self.page.port, up=self.up)) as gallery,
            Interrupt() as interrupt,
        ):
            say(f"{len(items)} shown at {gallery.address}   (Ctrl-C ends it)")
            if not self.page.no_open:
                open_browser(gallery.address)
            while not interrupt.signal:
                time.sleep(0.1)
        return 0


@dataclass
class RenderCommand:
    """Draw a shape, or several side by side, as it turns: a film or an animated picture, without OpenGL."""

    EXAMPLES: ClassVar = (
        "runs/bunny --frames 12 --size 160 -o turn.gif",
        "bunny runs/bunny --side-by-side -o both.png",
    )

    paths: ShownPaths
    output: Annotated[Path, arg(aliases=["-o"])]
    """.mp4: a film; .gif; .png: a still picture"""
    side_by_side: bool = False
    """everything that is there, with names: the truth and each fit; otherwise one shape alone"""
    resolution: int = 192
    """grid cells along the longest side of a field's surface"""
    frames: int = 72
    """pictures of a turn"""
    rate: float = 24.0
    """of them a second"""
    size: int = 480
    """pixels, the side of each shape's part"""
    elevation: float = 20.0
    """degrees that the eye is above the shape"""
    up: Literal["y", "z"] = "y"
    """the axis that points up"""
    device: str = "auto"
    """auto, cpu, cuda or mps"""
    force: bool = False
    """replace a file that ff3d has not made"""

    def __call__(self) -> int:  # noqa: D102  (the class says it)
        from ff3d.viewer.items import load_items
        from ff3d.viewer.turntable import check_film, save_turntable

        check_film(self.output)
        check_output(self.output, force=self.force, inputs=[Path(path) for path in self.paths])
        if self.resolution < 1:
            raise ValueError(f"--resolution must be at least 1, got {self.resolution}")
        items = [it for it in load_items(self.paths, resolution=self.resolution, device=self.device) if len(it.faces)]
        if not items:
            raise ValueError("nothing with a surface to draw; points are shown by ff3d view")
        if len(self.paths) > 1 and not self.side_by_side:
            raise ValueError(f"{len(self.paths)} paths, expected one; or give --side-by-side")
        shapes = [(item.name, item.mesh) for item in (items if self.side_by_side else items[-1:])]
        save_turntable(
            shapes,
            self.output,
            frames=self.frames,
            rate=self.rate,
            size=self.size,
            elevation=self.elevation,
            up=self.up,
            progress=True,
        )
        say(f"results: {self.output}")
        return 0
