"""What pages of fits share: when they draw, how far the fit is, curves, a button that stops it, and their end."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ff3d.progress import Interrupt
from ff3d.viewer.page import Page, open_browser

if TYPE_CHECKING:
    from ff3d.fields.checkpoint import Progress
    from ff3d.fields.config import Budget

SHARE = 0.05  # of a fit's seconds that pictures may take
CREDIT, CREDIT_SHARE = 0.2, 0.01  # seconds that they may be ahead of that, and the share of the budget: the first ones
FINER, EVERY = 1.5, 3.0  # times finer than the last, if a picture comes every so many seconds still
CURVE = 400  # points of a curve at most
COLORS = ("#1f6fd0", "#d0641f")

Draw = Callable[[int], bool]  # shows a picture of this resolution; whether there was anything to show


class Pace:
    """When pictures of a fit are drawn, and how finely: they take `SHARE` of its seconds, at the beginning more.

    budget: seconds of the fit, None where it is in steps.  resolution: of the next picture, `coarsest` to `finest`;
    the work grows with its square.  spent: seconds so far.
    """

    def __init__(self, budget: float | None, coarsest: int, finest: int):
        self.resolution, self.spent = coarsest, 0.0
        self._coarsest, self._finest = coarsest, finest
        self._cost, self._seconds = 0.1, 0.0  # of the next picture; of the fit
        self._credit = min(CREDIT, CREDIT_SHARE * budget) if budget else CREDIT

    def due(self, seconds: float) -> bool:
        """Whether there is time for the next picture, so many seconds of the fit being gone."""
        self._seconds = seconds
        return self.spent + self._cost <= SHARE * seconds + self._credit

    def drawn(self, seconds: float) -> None:
        """The last picture took so many seconds: how fine the next one is, and what it will take."""
        affordable = math.sqrt(SHARE * EVERY / max(seconds, 1e-3)) * self.resolution
        finer = round(max(self._coarsest, min(self._finest, FINER * self.resolution, affordable)))
        self._cost = seconds * max(finer / self.resolution, 1.0) ** 2
        self.resolution = finer

    @property
    def share(self) -> float:
        """Of the fit's seconds, what pictures took."""
        return self.spent / self._seconds if self._seconds else 0.0


@dataclass(frozen=True)
class Scores:
    """What fits are scored by: a measure, the keys of a row's scores and how they are called, and digits."""

    measure: str
    kinds: dict[str, str]
    digits: int

    def text(self, kind: str, score: float) -> str:
        """A score in words."""
        return f"{self.measure} {self.kinds.get(kind, kind)} {score:.{self.digits}f}"


class Live:
    """A page that shows fits as they go on, one after another.

    nothing: what is said until there is a first picture.
    """

    def __init__(self, page: Page, scores: Scores, nothing: str):
        self.page, self._nothing = page, nothing
        self._panel = Panel(page.server.gui, scores)
        self._pace, self._begun = Pace(None, 1, 1), 0.0
        self._budget: Budget | None = None
        self.first: float | None = None  # seconds from the beginning of the fit to its first picture

    @property
    def address(self) -> str:
        """What to type into a browser."""
        return self.page.address

    @property
    def share(self) -> float:
        """Which share of the last fit's seconds the pictures took."""
        return self._pace.share

    def announce(self, say: Callable[[str], None], *, browser: bool = True) -> None:
        """Say where it is to be seen; browser: open it where there is a display."""
        say(f"watch it at {self.address}")
        if browser:
            open_browser(self.address)

    def start(self, name: str, budget: Budget, coarsest: int, finest: int, *, stoppable: bool = True) -> None:
        """A fit of this name begins."""
        self._pace, self._budget = Pace(budget.seconds, coarsest, finest), budget
        self._begun, self.first = time.perf_counter(), None
        self._panel.begin(name, stoppable=stoppable)

    def step(self, progress: Progress, draw: Draw) -> bool:
        """Draw, if that is due; whether somebody wants the fit to stop."""
        begun = time.perf_counter()
        if self._pace.due(progress.seconds):
            self.draw(draw)
            self._pace.drawn(time.perf_counter() - begun)
        self.tell(progress)
        self._pace.spent += time.perf_counter() - begun
        return self._panel.stopping.is_set()

    def draw(self, draw: Draw, resolution: int | None = None) -> None:
        """Draw at this resolution, by default as finely as is due."""
        if draw(resolution or self._pace.resolution) and self.first is None:
            self.first = time.perf_counter() - self._begun

    def tell(self, progress: Progress) -> None:
        """Say how far the fit is."""
        note = self._nothing if self.first is None else f"pictures take {self.share:.0%} of the seconds"
        if self._budget:
            self._panel.show(progress, self._budget, note)

    def linger(self, say: Callable[[str], None]) -> None:
        """Stay until Ctrl-C or the page's button, as long as a browser shows the page."""
        self._panel.end()
        if self.page.viewers:
            say("the page stays open: close it, press its button, or Ctrl-C")
        with Interrupt() as interrupt:
            while self.page.viewers and not interrupt.signal and not self._panel.stopping.is_set():
                time.sleep(0.1)

    def close(self) -> None:
        """Stop serving."""
        self.page.close()


class Panel:
    """How far the fit is: in words, as a bar, as curves; and a button that stops it, which sets `stopping`."""

    def __init__(self, gui: Any, scores: Scores):
        self.stopping = threading.Event()
        self._measured = scores
        with gui.add_folder("Fit", order=-1.0):
            self._words = gui.add_markdown("")
            self._bar = gui.add_progress_bar(0.0)
            self._loss = gui.add_uplot(*_chart(["loss"]), height=130, **_axes(logarithmic=True))
            self._scores = gui.add_uplot(*_chart([*scores.kinds.values()]), height=130, **_axes())
            self._stop = gui.add_button("Stop and keep")
        self._stop.on_click(lambda _: self.stopping.set())
        self._name, self._losses = "", [(0.0, math.nan)]

    def begin(self, name: str, *, stoppable: bool) -> None:
        """A fit of this name begins."""
        self._name, self._losses = name, []
        self._words.content = f"**{name}**: preparing"
        self._bar.value = 0.0
        self._stop.visible = stoppable
        self._loss.visible = stoppable
        self._scores.visible = False

    def show(self, progress: Progress, budget: Budget, note: str) -> None:
        """How far it is."""
        share = min(1.0, budget.share(progress.step, progress.seconds))
        left = progress.seconds * (1 / share - 1) if share > 0 else math.inf
        words = [f"**{self._name}**", f"{progress.seconds:.1f} s"]
        words += [f"{left:.0f} s left"] if math.isfinite(left) and not progress.finished else []
        words += [f"{progress.step:,} steps", f"loss {progress.loss:.4g}"] if progress.step else []
        if progress.history:
            words += [self._measured.text(*score) for score in progress.history[-1]["iou"].items()]
        self._words.content = ", ".join(words) + f"  \n*{note}*"
        self._bar.value = 100 * share
        if progress.step and math.isfinite(progress.loss):
            self._losses.append((progress.seconds, progress.loss))
            if len(self._losses) > CURVE:
                self._losses = self._losses[::2]
            self._loss.data = tuple(np.array(self._losses).T)
        kinds = self._measured.kinds
        rows = [row for row in progress.history if kinds.keys() & row["iou"].keys()]
        if len(rows) > 1:
            table = [(row["seconds"], *(row["iou"].get(kind, math.nan) for kind in kinds)) for row in rows]
            self._scores.data = tuple(np.array(table).T)
            self._scores.visible = True

    def end(self) -> None:
        """Nothing more comes: the button closes the page."""
        if self._stop.label == "Close":
            return
        self._bar.value = 100.0
        self._words.content += "  \nfinished"
        self.stopping.clear()
        self._stop.label, self._stop.visible = "Close", True


def _chart(names: Sequence[str]) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """Empty data of a chart over seconds, and its lines."""
    data = tuple(np.array([0.0, 1.0]) if index == 0 else np.full(2, np.nan) for index in range(len(names) + 1))
    lines = [{"label": name, "stroke": color, "width": 2} for name, color in zip(names, COLORS, strict=False)]
    return data, ({"label": "s"}, *lines)


def _axes(*, logarithmic: bool = False) -> dict[str, Any]:
    return {"padding": (12, 24, 0, 0), "scales": {"x": {"time": False}, "y": {"distr": 3 if logarithmic else 1}}}
