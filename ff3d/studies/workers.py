"""Where the fits of a study are done: in this process, in processes beside it, or on the nodes of a Ray cluster."""

from __future__ import annotations

import logging
import multiprocessing
import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, TimeoutError, wait
from dataclasses import dataclass
from itertools import islice
from typing import Any

from ff3d.files import write_text
from ff3d.studies.remote import Storage
from ff3d.studies.task import ROW, Row, Task, perform

log = logging.getLogger("ff3d")

AHEAD = 1000  # tasks that a cluster is given before the first are back
RETRIES = 5  # of a task whose node died


@dataclass(frozen=True)
class Workers:
    """Who does the fits.

    processes: beside this one, so that a fit that hangs or dies is a row, and stops nothing; 0: this process itself.
    threads: of each of them; None shares out the cores.  timeout: seconds after which a fit is taken to hang.
    ray: a cluster's address, "auto" for the one around, "local" for one on this machine.
    gpus: of each task on a cluster, may be a fraction.
    """

    processes: int = 0
    threads: int | None = None
    timeout: float | None = None
    ray: str | None = None
    gpus: float = 0.0

    def __post_init__(self) -> None:
        if self.processes < 0 or (self.threads is not None and self.threads < 1) or self.gpus < 0:
            raise ValueError("workers and gpus must be 0 or more, and threads at least 1")
        if self.timeout is not None and self.timeout <= 0:
            raise ValueError(f"timeout must be positive, got {self.timeout}")

    def rows(
        self, tasks: Sequence[Task], out: str, command: str = "", *, progress_bar: bool = False
    ) -> Iterator[tuple[Task, Row, bool]]:
        """Do the tasks, each in its folder under `out`: the task, its row and whether it is done, as they come.

        After Ctrl-C the fits in hand are ended, kept and measured, and come as rows that are not done; no more follow.
        """
        if self.ray is not None:
            return self._on_ray(tasks, out, command)
        if self.processes:
            return self._in_processes(tasks, out, command)
        return self._here(tasks, out, command, progress_bar)

    def _here(
        self, tasks: Sequence[Task], out: str, command: str, progress_bar: bool
    ) -> Iterator[tuple[Task, Row, bool]]:
        _set_threads(self.threads)
        for task in tasks:
            row, done = _kept(task, out, command, progress_bar)
            yield task, row, done
            if not done:
                return

    def _in_processes(self, tasks: Sequence[Task], out: str, command: str) -> Iterator[tuple[Task, Row, bool]]:
        from pebble import ProcessPool

        threads = self.threads or max(1, (os.cpu_count() or 1) // self.processes)
        context = multiprocessing.get_context("spawn")
        pool = ProcessPool(self.processes, initializer=_begin, initargs=(threads,), context=context)
        waiting = iter(tasks)
        with pool:
            asked: dict[Any, Task] = {}
            interrupted = False
            while True:
                try:
                    for task in islice(waiting, 0 if interrupted else self.processes - len(asked)):
                        asked[pool.schedule(_kept, (task, out, command), timeout=self.timeout)] = task
                    if not asked:
                        break
                    finished, _ = wait(asked, return_when=FIRST_COMPLETED)
                except KeyboardInterrupt:
                    if interrupted:
                        pool.stop()
                        raise
                    interrupted = True  # the workers heard it too: their fits end after the step in hand
                    continue
                for future in finished:
                    task = asked.pop(future)
                    row, done = self._outcome(task, out, future)
                    interrupted |= not done
                    yield task, row, done

    def _outcome(self, task: Task, out: str, future: Any) -> tuple[Row, bool]:
        """What became of a task in another process."""
        from pebble import ProcessExpired

        try:
            row, done = future.result()
            return row, done
        except TimeoutError:
            reason = f"no end after {self.timeout:g} s; see --timeout"
        except ProcessExpired as error:
            ended = f"signal {-error.exitcode}" if error.exitcode < 0 else f"code {error.exitcode}"
            reason = f"the process that fitted it ended with {ended}" + ", out of memory?" * (error.exitcode == -9)
        row = Row.failed(task, reason)
        log.error("%s: %s", task.name, reason)
        storage = Storage(out)
        write_text(storage.local / task.name / ROW, row.to_json() + "\n")
        storage.send(f"{task.name}/{ROW}")
        return row, True

    def _on_ray(self, tasks: Sequence[Task], out: str, command: str) -> Iterator[tuple[Task, Row, bool]]:
        try:
            import ray
        except ImportError:
            raise ValueError("--ray needs the package ray: pip install 'ff3d[ray]'") from None
        ray.init(
            address=None if self.ray == "local" else self.ray,
            include_dashboard=False,
            log_to_driver=False,
            ignore_reinit_error=True,
        )
        cpus = self.threads or 1
        # one process for each task: what a fit leaves behind, or breaks, is gone with it
        apart = ray.remote(num_cpus=cpus, num_gpus=self.gpus, max_retries=RETRIES)(_apart)
        alone = Workers(1, cpus, self.timeout)
        waiting = iter(tasks)
        asked: dict[Any, Task] = {}
        while True:
            for task in islice(waiting, AHEAD - len(asked)):
                asked[apart.remote(alone, task, out, command)] = task
            if not asked:
                return
            finished, _ = ray.wait(list(asked), num_returns=1)
            for reference in finished:
                task = asked.pop(reference)
                try:
                    row = ray.get(reference)
                except ray.exceptions.RayError as error:
                    row = Row.failed(task, f"the cluster could not do it: {str(error).splitlines()[0]}")
                yield task, row, True


def _apart(alone: Workers, task: Task, out: str, command: str) -> Row:
    """A task on a node of a cluster, in a process of its own."""
    ((_, row, _),) = alone.rows([task], out, command)
    return row


def _kept(task: Task, out: str, command: str, progress_bar: bool = False) -> tuple[Row, bool]:
    """Perform a task in its folder, here or at a remote address; row.json is sent last, when the rest is there."""
    storage = Storage(out)
    storage.fetch(f"{task.name}/{ROW}")
    folder = storage.local / task.name
    row, done = perform(task, folder, command=command, progress_bar=progress_bar)
    if done:
        files = sorted((path.name for path in folder.iterdir()), key=lambda name: (name == ROW, name))
        storage.send(*(f"{task.name}/{name}" for name in files))
    return row, done


def _begin(threads: int) -> None:
    """What a worker does first: it takes its share of the cores, and ends when this process does, even by a kill."""
    _set_threads(threads)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def _set_threads(threads: int | None) -> None:
    if threads is not None:
        import torch

        torch.set_num_threads(threads)
