"""Long work: signals that end it after the step in hand, and a bar that shows how far it is."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

SIGNALS = tuple(  # by which work is ended; the last is not there on Windows
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)


def block_signals() -> None:
    """Leave `SIGNALS` to the parent: this thread, and those that it starts, do not hear them any more.

    For worker processes, where the system has a way to do it.
    """
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)


class Ended(KeyboardInterrupt):
    """SIGTERM or SIGHUP, on its way as Ctrl-C is, so that what is open is closed and temporary files are removed."""

    def __init__(self, number: int):
        super().__init__(number)
        self.number = number


@contextmanager
def signals_as_interrupts() -> Iterator[None]:
    """Within it SIGTERM and SIGHUP raise `Ended`, where nobody else has taken them. For commands."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def receive(number: int, frame: Any) -> None:
        raise Ended(number)

    taken = [number for number in SIGNALS if signal.getsignal(number) is signal.SIG_DFL]
    for number in taken:
        signal.signal(number, receive)
    try:
        yield
    finally:
        for number in taken:
            signal.signal(number, signal.SIG_DFL)


class Interrupt:
    """Ctrl-C, SIGTERM and SIGHUP end the loop after the step in hand, so that all files are complete.

    A second Ctrl-C breaks in at once. signal: the number of what came, 0 for nothing.  last: what any of these heard.
    Python delivers signals to the main thread alone: in another one, this does nothing.
    """

    last: ClassVar[int] = signal.SIGINT

    def __init__(self) -> None:
        self.signal = 0
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Interrupt:
        if threading.current_thread() is threading.main_thread():
            heard = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]  # nohup's stay so
            self._previous = {number: signal.signal(number, self._receive) for number in heard}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _receive(self, number: int, frame: Any) -> None:
        previous = self._previous.get(number)
        if self.signal and callable(previous):
            previous(number, frame)
        self.signal = Interrupt.last = number


class ProgressBar:
    """A tqdm bar over `total` of a unit, with scores behind it."""

    def __init__(self, total: float, unit: str, title: str):
        from tqdm.auto import tqdm

        self._total, self._shown = total, 0.0
        layout = "{desc}: {percentage:3.0f}%|{bar}| {n:.0f}/{total:.0f}{unit} [{elapsed}{postfix}]"
        self._bar = tqdm(total=total, desc=title, unit=unit, bar_format=layout)

    def show(self, done: float, scores: dict[str, float] | None = None) -> None:
        """Move to `done`, at most five times a second; scores are shown until the next ones."""
        if scores:
            self._bar.set_postfix({name: f"{score:.4f}" for name, score in scores.items()}, refresh=False)
        now = time.perf_counter()
        if scores or now - self._shown > 0.2:
            self._bar.n = min(done, self._total)
            self._bar.refresh()
            self._shown = now

    def close(self) -> None:
        """Leave the bar on the screen as it is."""
        self._bar.close()
