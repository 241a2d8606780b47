"""Where the fits of a study are done: in this process, in processes beside it, or on the nodes of a Ray cluster."""

from __future__ import annotations

import _thread
import logging
import math
import multiprocessing
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, wait
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ff3d.checks import one_line
from ff3d.files import LOCK, write_text
from ff3d.geometry.cores import limited_threads, threads
from ff3d.jobs import begin_worker, cluster_failure, on_cluster, why_lost
from ff3d.progress import Interrupt
from ff3d.storage import Storage

if TYPE_CHECKING:
    from ff3d.fitting import Observer
    from ff3d.studies.task import Row, Task

log = logging.getLogger("ff3d")

END_AT_ONCE = 2  # presses of Ctrl-C
SENDING = 10.0  # seconds between looks at whether there is a new checkpoint to be sent
CHECKPOINT, FIELD = "checkpoint.safetensors", "field.safetensors"
UNFINISHED = ("config.json", "metrics.jsonl", CHECKPOINT, FIELD)  # of a fit; a field without a checkpoint is finished


@dataclass(frozen=True)
class Workers:
    """Who does the fits.

    processes: beside this one, so that a fit that hangs or dies is a row, and stops nothing; 0: this process itself.
    threads: of each of them; None shares out the cores.  timeout: seconds after which a fit is taken to hang.
    ray: a cluster's address, "auto" for the one around, "local" for one on this machine.
    gpus: of each task on a cluster, may be a fraction.
    watch: called with each task that begins in this process itself; what it returns is told how the fit goes.
    """

    processes: int = 0
    threads: int | None = None
    timeout: float | None = None
    ray: str | None = None
    gpus: float = 0.0
    watch: Callable[[Task], Observer] | None = None

    def __post_init__(self) -> None:
        if self.processes < 0 or (self.threads is not None and self.threads < 1) or not 0 <= self.gpus < math.inf:
            raise ValueError("workers and gpus must be 0 or more, and threads at least 1")
        if self.timeout is not None and not 0 < self.timeout < math.inf:
            raise ValueError(f"timeout must be positive, got {self.timeout}")
        if self.timeout is not None and not (self.processes or self.ray):
            raise ValueError("--timeout needs --workers or --ray: a fit can be given up in a process of its own alone")

    def rows(
        self,
        tasks: Sequence[Task],
        out: str,
        command: str = "",
        *,
        scratch: Path | None = None,
        progress_bar: bool = False,
    ) -> Iterator[tuple[Task, Row, bool]]:
        """Do the tasks, each in its folder under `out`: the task, its row and whether it is done, as they come.

        scratch: for the files that processes keep of what lies at an address; whoever calls removes it.

        After Ctrl-C the fits in hand are ended, kept and measured, and come as rows that are not done; no more follow.
        On a cluster it is raised, and what is in hand there ends without a row.
        """
        if self.ray is not None:
            return self._on_ray(tasks, out, command, scratch)
        if self.processes:
            return self._in_processes(tasks, out, command, scratch)
        return self._here(tasks, out, command, progress_bar)

    def _here(
        self, tasks: Sequence[Task], out: str, command: str, progress_bar: bool
    ) -> Iterator[tuple[Task, Row, bool]]:
        for task in tasks:
            with limited_threads(self.threads):
                observers = [self.watch(task)] if self.watch else []
                row, done = _kept(task, out, command, progress_bar=progress_bar, observers=observers)
            yield task, row, done
            if not done:
                return

    def _in_processes(
        self, tasks: Sequence[Task], out: str, command: str, scratch: Path | None
    ) -> Iterator[tuple[Task, Row, bool]]:
        from pebble import ProcessPool

        context = _context()
        presses = context.RawValue("i", 0)
        share = self.threads or max(1, threads() // self.processes)
        pool = ProcessPool(self.processes, initializer=_begin, initargs=(share, presses), context=context)
        waiting, interrupted = iter(tasks), False
        pending: dict[Any, Task] = {}
        with _Presses(presses):
            try:
                while True:
                    interrupted |= presses.value > 0
                    for task in islice(waiting, 0 if interrupted else self.processes - len(pending)):
                        pending[pool.schedule(_worked, (task, out, command, scratch), timeout=self.timeout)] = task
                    if not pending:
                        break
                    finished, _ = wait(pending, return_when=FIRST_COMPLETED)
                    for future in finished:
                        task = pending.pop(future)
                        outcome = self._outcome(task, out, future)
                        interrupted |= outcome is None or not outcome[1]
                        if outcome is not None:
                            yield task, *outcome
                pool.close()
            except BaseException:  # a second Ctrl-C too: what is in hand is broken off
                presses.value = END_AT_ONCE
                pool.stop()
                raise
            finally:
                pool.join()

    def _outcome(self, task: Task, out: str, future: Any) -> tuple[Row, bool] | None:
        """What became of a task in another process: its row and whether it is done; None if it ended without a row."""
        error = future.exception()
        if isinstance(error, KeyboardInterrupt):
            return None
        if reason := why_lost(error, self.timeout):
            (Storage(out).local / task.name / LOCK).unlink(missing_ok=True)  # its process is no more
            return _lost(task, out, reason), True
        outcome: tuple[Row, bool] | None = future.result()
        return outcome

    def _on_ray(
        self, tasks: Sequence[Task], out: str, command: str, scratch: Path | None
    ) -> Iterator[tuple[Task, Row, bool]]:
        assert self.ray is not None
        cpus = self.threads or 1
        # one process for each task: what a fit leaves behind, or breaks, is gone with it
        apart = partial(_apart, Workers(1, cpus, self.timeout), out=out, command=command, scratch=scratch)
        for number, row in on_cluster(apart, tasks, self.ray, cpus=cpus, gpus=self.gpus):
            task = tasks[number]
            yield task, _lost(task, out, cluster_failure(row)) if isinstance(row, BaseException) else row, True


def _lost(task: Task, out: str, reason: str) -> Row:
    """The row of a task of which nothing came back, kept as those are that a worker writes itself."""
    from ff3d.studies.task import ROW, Row

    row, storage = Row.failed(task, reason), Storage(out)
    log.error("%s: %s", task.name, reason)
    write_text(storage.local / task.name / ROW, row.to_json() + "\n")
    storage.send(f"{task.name}/{ROW}")
    return row


def _apart(alone: Workers, task: Task, out: str, command: str, scratch: Path | None) -> Row:
    """A task on a node of a cluster, in a process of its own."""
    ((_, row, _),) = alone.rows([task], out, command, scratch=scratch)
    return row


def _kept(
    task: Task,
    out: str,
    command: str,
    *,
    scratch: Path | None = None,
    progress_bar: bool = False,
    observers: Sequence[Observer] = (),
) -> tuple[Row, bool]:
    """Perform a task in its folder, here or at a remote address; its field and row.json are sent last.

    To an address the checkpoint is sent as the fit goes, so that another machine resumes it.
    """
    from ff3d.studies.task import ROW, perform

    storage, folder = Storage(out, scratch), task.name
    storage.fetch(f"{folder}/{ROW}", *(f"{folder}/{name}" for name in UNFINISHED))
    with _sent(storage, [f"{folder}/{name}" for name in UNFINISHED]):
        row, done = perform(
            task, storage.local / folder, command=command, progress_bar=progress_bar, observers=observers
        )
    if done:
        files = {path.name for path in (storage.local / folder).iterdir()}
        last = [name for name in (FIELD, ROW) if name in files]
        storage.send(*(f"{folder}/{name}" for name in [*sorted(files - {*last}), *last]))
        if storage.remote:
            storage.remove(f"{folder}/{CHECKPOINT}")
    return row, done


@contextmanager
def _sent(storage: Storage, names: Sequence[str]) -> Iterator[None]:
    """Within it, and at its end, files are sent to a remote address, in this order, when they have changed."""
    if not storage.remote:
        yield
        return
    stamps: dict[str, int] = {}
    ended = threading.Event()

    def send() -> None:
        for name in names:
            path = storage.local / name
            if path.exists() and stamps.get(name) != (stamp := path.stat().st_mtime_ns):
                storage.send(name)
                stamps[name] = stamp

    def follow() -> None:
        while not ended.wait(SENDING):
            try:
                send()
            except Exception as error:  # the address may be back the next time
                log.warning("%s: not sent: %s", storage.address, one_line(error))

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
    send()


def _context() -> Any:
    """How worker processes are started: forked by a server that has imported what they need, where that is safe."""
    if sys.platform != "linux":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["ff3d.studies.preload"])
    return context


def start_server() -> None:
    """Start the server that forks workers, which imports what they need while this process does what comes before."""
    if _context().get_start_method() == "forkserver":
        from multiprocessing import forkserver

        forkserver.ensure_running()


class _Presses(Interrupt):
    """Within it Ctrl-C and its kin are counted for the workers (in memory that they share), and raise from the second.

    The workers do not hear the system's signals (`block_signals`). So each hears one, however it was sent, whatever it
    is doing, and this process loses no row.
    """

    def __init__(self, presses: Any):
        super().__init__()
        self._presses = presses

    def _receive(self, number: int, frame: Any) -> None:
        self.signal = Interrupt.last = number
        self._presses.value += 1
        if self._presses.value >= END_AT_ONCE:
            raise KeyboardInterrupt


class _Interruption:
    """What a worker does about Ctrl-C: it is raised in the task in hand, once, and ends each task after that."""

    def __init__(self) -> None:
        self.heard, self.in_hand = False, False

    def hear(self, presses: Any) -> bool:
        """Look at what the parent has counted; True if this process is to end at once."""
        if presses.value and not self.heard:
            self.heard = True
            _thread.interrupt_main(signal.SIGINT)  # to the handler below, or that of the training loop
        return bool(presses.value >= END_AT_ONCE)

    def receive(self, number: int, frame: Any) -> None:
        if self.in_hand:
            raise KeyboardInterrupt


_interruption = _Interruption()


def _begin(count: int, presses: Any) -> None:
    """What a worker does first: it takes its share of the cores, and listens to this process."""
    signal.signal(signal.SIGINT, _interruption.receive)
    begin_worker(count, partial(_interruption.hear, presses))


def _worked(task: Task, out: str, command: str, scratch: Path | None) -> tuple[Row, bool] | None:
    """`_kept` in a worker; None if it was interrupted before there was a field to keep, or while that was measured."""
    try:
        _interruption.in_hand = True
        return None if _interruption.heard else _kept(task, out, command, scratch=scratch)
    except KeyboardInterrupt:
        return None
    finally:
        _interruption.in_hand = False
