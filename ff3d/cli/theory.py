"""ff3d ntk, image, signal and lecture: why mappings differ."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from tyro.conf import Positional, arg

from ff3d.checks import check_seed
from ff3d.cli.options import PageOptions, ServedPage, bytes_of, say, typed_command
from ff3d.fields.config import PAPER_MAPPINGS, MappingName
from ff3d.files import FolderError, check_folder, check_output, check_unmade, is_marked, locked
from ff3d.progress import Interrupt

if TYPE_CHECKING:
    from ff3d.theory.shapes import ShapeKernels
    from ff3d.theory.signals import SignalFit
    from ff3d.viewer.watching import ImageWatch


@dataclass
class NtkCommand:
    """Predict, before any training, how fast each mapping learns a shape or picture, from its neural tangent kernel."""

    EXAMPLES: ClassVar = ("bunny --points 1000", "astronaut --points 1000 --mappings none gaussian --out runs/kernels")

    mesh: Annotated[
        Positional[str],
        arg(metavar="MESH", help="a mesh, point cloud or picture file, or a name: a sample, dragon, astronaut, text-0"),
    ]
    mappings: tuple[MappingName, ...] = PAPER_MAPPINGS
    """the mappings to compare; those with trained tables have no such kernel"""
    points: int = 2000
    """pixels, or points half uniform in the box and half near the surface; 8,192 at most, for a dense kernel, which is
    0.5 GB then and takes some 5 GB while it is worked out"""
    depth: int | None = None
    """hidden layers of the network of infinite width (default: 4; 3 for a picture)"""
    scale: float | None = None
    """of gaussian, learned, lecture and positional, cycles per unit (default: each mapping's own)"""
    fit_steps: int | None = None
    """also predict fits of so many steps (plain; of a picture fast): their order, and the best of --scales"""
    scales: tuple[float, ...] = (2.0, 4.0, 8.0, 16.0, 32.0)
    """scales of gaussian to predict with --fit-steps"""
    places: int = 6
    """places of the surface or picture, at which --fit-steps predicts"""
    size: int | None = None
    """pixels along a picture's longest side, at most (default: 512)"""
    seed: int = 0
    """seed of the points and frequencies"""
    out: Path | None = None
    """a folder for the pictures, a page and rows.json (default: none are made)"""
    force: bool = False
    """replace such files there that ff3d has not made"""
    as_json: Annotated[bool, arg(name="json")] = False
    """print one line of JSON"""

    def __call__(self) -> int:  # noqa: D102  (the class says it)
        from ff3d.theory.shapes import STEPS

        predict, page = self._prediction(), None
        if self.out:
            from ff3d.views.kernels import write_kernel_report

            pictures = ("eigenvectors.png", "frequencies.png")
            inputs = [Path(self.mesh)]
            check = partial(_check_report, self.out, b'"points": ', pictures, force=self.force, inputs=inputs)
            check()
            with _locked_report(self.out, check):
                kernels = predict()
                page = write_kernel_report(kernels, self.out, command=typed_command())
        else:
            kernels = predict()
        if self.as_json:
            found = kernels.to_json()
            kept = ("points", "steps", "learned", *(("fit_steps", "predicted", "best_scale") * bool(self.fit_steps)))
            say(json.dumps({name: found[name] for name in kept}))
            return 0
        say(
            f"{kernels.name}: share of the labels' energy at {kernels.count:,} points "
            "that is learned after so many steps"
        )
        say(f"{'mapping':12}" + "".join(f"{step:>10,}" for step in STEPS))
        for name, shares in kernels.learned().items():
            say(f"{name:12}" + "".join(f"{share:10.3f}" for share in shares))
        for it in kernels.predicted:
            say(f"{it.name:14} predicted {kernels.said(it)}")
        if (best := kernels.best_scale()) is not None:
            say(f"predicted best scale of gaussian: {best:.3g}")
        if page:
            say(f"results: {self.out}   report: {page}")
        say(f"predicted order, slowest first: {' < '.join(kernels.order())}")
        return 0

    def _prediction(self) -> Callable[[], ShapeKernels]:
        """What predicts, its settings checked and the mesh or picture loaded."""
        from ff3d.geometry.cores import available_memory
        from ff3d.labels.oracles import load_surface
        from ff3d.theory.pictures import is_picture, load_picture
        from ff3d.theory.shapes import check_kernels, ntk, ntk_picture

        check_seed(self.seed)
        flat = is_picture(self.mesh)
        if self.size is not None and not flat:
            raise ValueError("--size is for pictures; leave it out for a mesh")
        settings: dict[str, Any] = {"points": self.points, "scale": self.scale, "places": self.places}
        settings |= {"fit_steps": self.fit_steps, "scales": self.scales}
        settings |= {name: value for name in ("depth", "size") if (value := getattr(self, name)) is not None}
        check_kernels(self.mappings, dimension=2 if flat else 3, **settings)
        settings |= {"slices": 64 if self.out else 0, "seed": self.seed}
        if flat:
            return partial(
                ntk_picture, load_picture(self.mesh, max_memory=available_memory()), self.mappings, **settings
            )
        return partial(ntk, load_surface(self.mesh), self.mappings, **settings)


@dataclass
class ImageCommand:
    """Fit a network of (x, y) to a picture under several mappings: what each can show, and what it misses."""

    EXAMPLES: ClassVar = (
        "astronaut --seconds 1 --size 128",
        "text-0 --preset lecture --steps 50 --size 128 --out runs/text",
    )

    picture: Annotated[
        Positional[str],
        arg(metavar="PICTURE", help="a picture file, or a name: astronaut, camera, coffee, ..., text-0, text-1, ..."),
    ]
    mappings: tuple[MappingName, ...] = ()
    """the mappings to compare (default: the paper's four, and with fast hash; with lecture none and lecture)"""
    scales: tuple[float, ...] = (1.0, 10.0, 100.0)
    """standard deviations of frequencies to try too, cycles per picture, for gaussian, lecture and learned"""
    preset: Literal["fast", "paper", "lecture"] = "fast"
    """fast: ff3d's own, 20 s a fit; paper: Tancik et al. 2020 to the letter, 20 minutes a fit on a
    core; lecture: two layers under sin(2 pi s x b)"""
    steps: int | None = None
    """steps of each fit (paper, lecture: 2,000)"""
    seconds: float | None = None
    """seconds of each fit, in place of --steps (fast: 20)"""
    kind: Literal["auto", "natural", "text"] = "auto"
    """which of the paper's settings and published numbers to take: those of natural pictures or of text"""
    size: int | None = None
    """pixels along the longest side, at most (default: 512); paper: of the middle square"""
    precision: Literal["auto", "float32", "bfloat16"] | None = None
    """what products run in (default: auto; paper: float32)"""
    seed: int = 0
    """seed of frequencies, weights and batches"""
    device: str = "auto"
    """auto, cpu, cuda or mps"""
    max_memory: float | None = None
    """gigabytes that may be used (default: what is available)"""
    out: Path | None = None
    """results folder (default: runs/PICTURE-image)"""
    watch: bool = False
    """show the picture as it forms under each mapping, in the browser, with curves; it can be stopped there"""
    page: ServedPage = field(default_factory=PageOptions)
    force: bool = False
    """replace files that ff3d has not made"""

    def __call__(self) -> int:  # noqa: D102  (the class says it)
        from ff3d.geometry.cores import available_memory
        from ff3d.runs import new_folder
        from ff3d.theory.images import ImageFit, fit_images, plan_images, planned_fits
        from ff3d.theory.pictures import load_picture
        from ff3d.views.theory import image_rows, write_image_report

        if self.watch:
            from ff3d.viewer.page import check_viser

            check_viser("ff3d image --watch")
        memory = bytes_of(self.max_memory) or available_memory()
        picture = load_picture(self.picture, max_memory=memory)
        check_seed(self.seed)
        planned = planned_fits(self.mappings, self.scales, self.preset)
        names = [name if scale is None else f"{name}-{scale:g}" for name, scale in planned]
        pictures = [f"{name}.png" for name in ("truth", *names)]
        plan = plan_images(
            picture,
            planned,
            preset=self.preset,
            kind=self.kind,
            steps=self.steps,
            seconds=self.seconds,
            size=self.size,
            precision=self.precision,
            seed=self.seed,
            device=self.device,
            max_memory=memory,
        )
        folder = self.out or new_folder(Path("runs"), f"{picture.name}-image")
        inputs = [Path(self.picture)]
        check = partial(_check_report, folder, b'"picture": ', pictures, force=self.force, inputs=inputs)
        check()
        command = typed_command()

        def save(fits: list[ImageFit]) -> None:
            write_image_report(fits, folder, command=command, kind=self.kind, page=False)

        with ExitStack() as stack:
            watch = self._watch(stack) if self.watch else None
            with _locked_report(folder, check, new=not self.out):
                fits = fit_images(plan, on_fit=save, progress_bar=True, observer=watch)
                page = write_image_report(fits, folder, command=command, kind=self.kind)
            for note in fits[0].picture.notes:
                say(note)
            say("\n" + image_rows(fits) + "\n")
            end = fits[-1].progress
            if end.interrupted:
                say("interrupted; what is done so far is saved")
            say(f"results: {folder}   report: {page}")
            if watch:
                watch.linger(say)
        return 128 + end.signal if end.signal else 0

    def _watch(self, stack: ExitStack) -> ImageWatch:
        """The page of the fits, closed with the stack."""
        from ff3d.viewer.watching import ImageWatch

        watch = stack.enter_context(closing(ImageWatch(host=self.page.host, port=self.page.port)))
        watch.announce(say, browser=not self.page.no_open)
        return watch


@dataclass
class SignalCommand:
    """Fit networks to a signal of one dimension by gradient descent: which frequencies are learned when, and why."""

    EXAMPLES: ClassVar = (
        "--steps 100 --falloffs 0 1 none --stds 8 32",
        "--power 0.5 --falloffs 0.5 inf --steps 100 --stds 8 --out runs/half",
    )

    power: float = 1.0
    """the signal's amplitudes fall as 1 / f^power"""
    falloffs: tuple[str, ...] = ("0", "0.5", "1", "1.5", "2", "inf", "none")
    """mappings: amplitudes that fall as 1 / f^p for each p, inf for the lowest frequency alone, none for no mapping"""
    steps: int = 2000
    """steps of each (the paper: 50,000)"""
    stds: tuple[float, ...] = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0)
    """standard deviations of sixteen random frequencies, tried with four distributions of them"""
    seed: int = 0
    """seed of the signal, weights and frequencies"""
    out: Path | None = None
    """results folder (default: runs/signal)"""
    force: bool = False
    """replace files that ff3d has not made"""

    def __call__(self) -> int:  # noqa: D102  (the class says it)
        from ff3d.progress import ProgressBar
        from ff3d.runs import new_folder
        from ff3d.theory.signals import (
            DISTRIBUTIONS,
            check_signal_fits,
            fit_signal,
            fit_sparse,
            predicted_by_falloff,
            random_signal,
        )
        from ff3d.views.theory import signal_rows, write_signal_report

        falloffs = [_falloff(text) for text in self.falloffs]
        if not falloffs:
            raise ValueError("--falloffs needs at least one of 0, 0.5, 1, ..., inf, none")
        check_seed(self.seed)
        check_signal_fits(falloffs, self.stds, self.steps)
        signal = random_signal(self.power, seed=self.seed)
        dense = random_signal(self.power, seed=self.seed, trained=256, step=2)
        chosen = predicted_by_falloff(self.power)
        folder = self.out or new_folder(Path("runs"), "signal")
        check = partial(_check_report, folder, b'"falloffs"', force=self.force)
        check()
        fits: list[SignalFit] = []
        sparse: list[dict[str, Any]] = []
        with _locked_report(folder, check, new=not self.out):
            for falloff in falloffs:
                fits.append(fit_signal(falloff, signal=signal, steps=self.steps, seed=self.seed, progress_bar=True))
                write_signal_report(fits, sparse, chosen, folder, page=False)
                if fits[-1].interrupted:
                    break
            interrupted = fits[-1].interrupted
            todo = [(name, std) for std in self.stds for name in DISTRIBUTIONS] * (not interrupted)
            bar = ProgressBar(float(len(todo)), " fits", "distributions") if todo else None
            for done, (name, std) in enumerate(todo):
                found, fit = fit_sparse(name, std, signal=dense, seed=self.seed)
                sparse.append({"distribution": name, "std": found, "wanted": std, "test": fit.test[-1]})
                write_signal_report(fits, sparse, chosen, folder, page=False)
                interrupted = fit.interrupted
                if bar:
                    bar.show(done + 1)
                if interrupted:
                    break
            if bar:
                bar.close()
            page = write_signal_report(fits, sparse, chosen, folder, command=typed_command())
        say("\n" + signal_rows(fits) + "\n")
        best_falloff, error = min(chosen, key=lambda it: it[1])
        say(f"the theory chooses p = {best_falloff:g}: predicted test MSE {error:.3g}, trained to the end")
        for name in DISTRIBUTIONS if sparse else ():
            best = min(
                (row for row in sparse if row["distribution"] == name), key=lambda row: row["test"], default=None
            )
            if best:
                say(f"{name}: best at a standard deviation of {best['std']:.3g} cycles, test MSE {best['test']:.3g}")
        if interrupted:
            say("interrupted; what is done so far is saved")
        say(f"results: {folder}   report: {page}")
        return 128 + Interrupt.last if interrupted else 0


def _check_report(
    folder: Path, mark: bytes, pictures: Sequence[str] = (), *, force: bool, inputs: Sequence[Path] = ()
) -> None:
    """Raise FolderError if the folder cannot be written, or holds such a report's files and no rows of one.

    pictures: the files that are written there beside rows and page.  inputs: files that none of them may be.
    """
    check_folder(folder)
    rows = folder / "rows.json"
    known = force or (rows.exists() and is_marked(rows, mark))
    for path in (rows, *(folder / name for name in ("report.html", *pictures))):
        check_output(path, force=True, inputs=inputs)
        if not known:
            check_unmade(path)


@contextmanager
def _locked_report(folder: Path, check: Callable[[], None], *, new: bool = False) -> Iterator[None]:
    """Hold the folder of a report, and check it again: meanwhile another run may have written to it.

    new: whether it was chosen because it was not there.
    """
    with locked(folder):
        if new and (folder / "rows.json").exists():
            raise FolderError(f"{folder}: another run has just taken it; run the same command again")
        check()
        yield


@dataclass
class LectureCommand:
    """Make all figures of the lecture in one folder: a picture, a signal, a shape's kernels, and the shape itself."""

    EXAMPLES: ClassVar = (
        "--out lecture --effort 0.02",
        "--mesh bracket --picture camera --effort 0.01 --out lecture-bracket",
    )

    out: Path
    """results folder; what it already has of the shape is not done again"""
    mesh: str = "bunny"
    """a mesh, as of ff3d compare"""
    picture: str = "astronaut"
    """a picture, as of ff3d image"""
    effort: float = 1.0
    """multiplies the seconds and steps of every fit; 1 takes under 5 minutes on two cores"""

    def __call__(self) -> int:  # noqa: D102  (the class says it)
        from ff3d.cli.settings import Settings
        from ff3d.cli.studies import CompareCommand

        if not self.effort > 0:
            raise ValueError(f"--effort must be positive, got {self.effort}")
        steps, places = max(1, round(200 * self.effort)), max(1, round(6 * self.effort))
        parts: dict[str, Callable[[], int]] = {
            "image": ImageCommand(self.picture, seconds=5 * self.effort, size=256, out=self.out / "image"),
            "signal": SignalCommand(
                falloffs=("0", "1", "inf", "none"), steps=steps, stds=(2.0, 8.0, 32.0), out=self.out / "signal"
            ),
            "kernels": NtkCommand(self.mesh, points=1000, fit_steps=steps, places=places, out=self.out / "kernels"),
            "shape": CompareCommand(self.mesh, Settings(steps=steps), resolution=96, out=self.out / "shape"),
        }
        for part, command in parts.items():
            say(f"\n{part}")
            if code := command():
                return code
        return 0


def _falloff(text: str) -> float | None:
    """The falloff that a text stands for, None for `none`."""
    if text == "none":
        return None
    try:
        return float(text)
    except ValueError as error:
        raise ValueError(f"falloffs must be numbers, inf or none, got {text!r}") from error
