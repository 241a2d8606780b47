"""A fit that is watched in the browser: the shape as it forms, curves, the seconds left; it can be stopped there."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ff3d.fields.checkpoint import Progress
from ff3d.fields.config import LATTICE_MAPPINGS
from ff3d.fitting import Observer
from ff3d.progress import Interrupt
from ff3d.surfaces.grid_levels import ExtractionError
from ff3d.viewer.gallery import Gallery
from ff3d.viewer.items import Item, field_item, shape_item_of
from ff3d.viewer.page import LOOPBACK, PORT, open_browser

if TYPE_CHECKING:
    from collections.abc import Callable

    from ff3d.fields.field import LatticeField, OccupancyField
    from ff3d.labels.oracles import LabelledShape
    from ff3d.settings import FitConfig

SHARE = 0.07  # of a fit's seconds that pictures may take
CREDIT, CREDIT_SHARE = 0.3, 0.015  # seconds that they may be ahead of that, and the share of the budget: the first ones
COARSEST, FINEST = 32, 192  # cells along the longest side, of the first picture, and at the end
FINER, EVERY = 1.5, 3.0  # times finer than the last, if a picture comes every so many seconds still
CURVE = 400  # points of a curve at most


class Allowance:
    """The time that pictures of a fit may take: `SHARE` of its seconds, and a little ahead of that at the beginning.

    budget: of the fit, None where it is in steps.  spent: so far.  cost: what the next picture will take.
    """

    def __init__(self, budget: float | None):
        self.spent, self.cost, self.seconds = 0.0, 0.1, 0.0
        self._credit = min(CREDIT, CREDIT_SHARE * budget) if budget else CREDIT

    def due(self, seconds: float) -> bool:
        """Whether there is time for the next picture, so many seconds of the fit being gone."""
        self.seconds = seconds
        return self.spent + self.cost <= SHARE * seconds + self._credit

    @property
    def share(self) -> float:
        """Of the seconds, that pictures took."""
        return self.spent / self.seconds if self.seconds else 0.0


class Watch(Observer):
    """A page that shows a shape beside what is fitted to it, one or several after one another.

    names: of the fits. Each begins with `begin`, and ends with `finished`; it is closed at the end.
    Pictures are made between training steps, at growing resolution, as often as `SHARE` of the seconds allows.
    """

    def __init__(self, surface: LabelledShape, names: Sequence[str], *, host: str = LOOPBACK, port: int = PORT):
        truth = shape_item_of(surface)
        self._names = list(names)
        empty = [Item(name, truth.box, fitted=True, make_values=_nothing) for name in names]
        self.gallery = Gallery([truth, *empty], host=host, port=port, title="ff3d watch")
        for index in range(len(empty)):
            self.gallery.hide(index + 1)
        self._panel = _Panel(self.gallery.server.gui)
        self._allowance, self._begun = Allowance(None), 0.0
        self._index = 1
        self._config: FitConfig | None = None
        self._resolution = COARSEST
        self.first: float | None = None  # seconds from the beginning of the fit to its first picture

    @property
    def address(self) -> str:
        """What to type into a browser."""
        return self.gallery.address

    @property
    def share(self) -> float:
        """Which share of the last fit's seconds the pictures took."""
        return self._allowance.share

    def announce(self, say: Callable[[str], None]) -> None:
        """Say where it is to be seen, and open it where there is a display."""
        say(f"watch it at {self.address}")
        open_browser(self.address)

    def begin(self, name: str, config: FitConfig) -> Watch:
        """The fit of this name begins; returns itself."""
        self._index, self._config = self._names.index(name) + 1, config
        self._allowance, self._begun = Allowance(config.budget.seconds), time.perf_counter()
        self._resolution, self.first = COARSEST, None
        self._panel.begin(name, stoppable=config.mapping.name not in LATTICE_MAPPINGS)
        return self

    def paused(self, field: OccupancyField | LatticeField, progress: Progress) -> bool:
        """Show the field, if that is due; whether somebody wants to stop."""
        begun = time.perf_counter()
        if self._allowance.due(progress.seconds):
            self._show(field, self._resolution)
            seconds = time.perf_counter() - begun
            # the work grows with the square of the resolution
            affordable = math.sqrt(SHARE * EVERY / max(seconds, 1e-3)) * self._resolution
            finer = round(max(COARSEST, min(FINEST, FINER * self._resolution, affordable)))
            self._allowance.cost = seconds * max(finer / self._resolution, 1.0) ** 2
            self._resolution = finer
        self._panel.show(progress, self._config, self._note())
        self._allowance.spent += time.perf_counter() - begun
        return self._panel.stopping.is_set()

    def evaluated(self, field: OccupancyField | LatticeField, progress: Progress) -> None:
        """Show the scores, and the field once more when its budget is spent."""
        spent = self._config is not None and self._config.budget.share(progress.step, progress.seconds) >= 1
        if spent or progress.finished:
            self._show(field, self._resolution)
        self._panel.show(progress, self._config, self._note())

    def finished(self, field: OccupancyField | LatticeField) -> None:
        """Show what came of the fit, finely."""
        self._panel.end()
        self._show(field, FINEST)

    def _show(self, field: OccupancyField | LatticeField, resolution: int) -> None:
        try:
            self.gallery.replace(self._index, field_item(self._names[self._index - 1], field, resolution, levels=False))
        except ExtractionError:  # nothing is inside yet
            return
        if self.first is None:
            self.first = time.perf_counter() - self._begun

    def _note(self) -> str:
        if self.first is None:
            return "nothing is inside yet"
        return f"pictures take {self.share:.0%} of the seconds"

    def linger(self, say: Callable[[str], None]) -> None:
        """Stay until Ctrl-C or the page's button, as long as a browser shows the page."""
        self._panel.end()
        if self.gallery.page.viewers:
            say("the page stays open: close it, press its button, or Ctrl-C")
        with Interrupt() as interrupt:
            while self.gallery.page.viewers and not interrupt.signal and not self._panel.stopping.is_set():
                time.sleep(0.1)

    def close(self) -> None:
        """Stop serving."""
        self.gallery.close()


def _nothing() -> Any:
    raise ValueError("nothing yet")


class _Panel:
    """How far the fit is: in words, as a bar, as curves; and a button that stops it, which sets `stopping`."""

    def __init__(self, gui: Any):
        self.stopping = threading.Event()
        with gui.add_folder("Fit", order=-1.0):
            self._words = gui.add_markdown("")
            self._bar = gui.add_progress_bar(0.0)
            self._loss = gui.add_uplot(*_chart(["loss"]), height=130, **_axes(logarithmic=True))
            self._scores = gui.add_uplot(*_chart(["uniform", "boundary"]), height=130, **_axes())
            self._stop = gui.add_button("Stop and keep")
        self._stop.on_click(lambda _: self.stopping.set())
        self._name, self._losses = "", [(0.0, math.nan)]

    def begin(self, name: str, *, stoppable: bool) -> None:
        self._name, self._losses = name, []
        self._words.content = f"**{name}**: preparing labels"
        self._bar.value = 0.0
        self._stop.visible = stoppable
        self._loss.visible = stoppable
        self._scores.visible = False

    def show(self, progress: Progress, config: FitConfig | None, note: str) -> None:
        if config is None:
            return
        share = min(1.0, config.budget.share(progress.step, progress.seconds)) if config.budget else 0.0
        left = progress.seconds * (1 / share - 1) if share > 0 else math.inf
        words = [f"**{self._name}**", f"{progress.seconds:.1f} s"]
        words += [f"{left:.0f} s left"] if math.isfinite(left) and not progress.finished else []
        words += [f"{progress.step:,} steps", f"loss {progress.loss:.4g}"] if progress.step else []
        if progress.history:
            words += [f"IoU {kind} {score:.4f}" for kind, score in progress.history[-1]["iou"].items()]
        self._words.content = ", ".join(words) + f"  \n*{note}*"
        self._bar.value = 100 * share
        if progress.step and math.isfinite(progress.loss):
            self._losses.append((progress.seconds, progress.loss))
            if len(self._losses) > CURVE:
                self._losses = self._losses[::2]
            self._loss.data = tuple(np.array(self._losses).T)
        rows = [row for row in progress.history if {"uniform", "boundary_face"} <= row["iou"].keys()]
        if len(rows) > 1:
            table = [(row["seconds"], row["iou"]["uniform"], row["iou"]["boundary_face"]) for row in rows]
            self._scores.data = tuple(np.array(table).T)
            self._scores.visible = True

    def end(self) -> None:
        if self._stop.label == "Close":
            return
        self._bar.value = 100.0
        self._words.content += "  \nfinished"
        self.stopping.clear()
        self._stop.label, self._stop.visible = "Close", True


COLORS = ("#1f6fd0", "#d0641f")


def _chart(names: Sequence[str]) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """Empty data of a chart over seconds, and its lines."""
    data = tuple(np.array([0.0, 1.0]) if index == 0 else np.full(2, np.nan) for index in range(len(names) + 1))
    lines = [{"label": name, "stroke": color, "width": 2} for name, color in zip(names, COLORS, strict=False)]
    return data, ({"label": "s"}, *lines)


def _axes(*, logarithmic: bool = False) -> dict[str, Any]:
    return {"padding": (12, 24, 0, 0), "scales": {"x": {"time": False}, "y": {"distr": 3 if logarithmic else 1}}}
