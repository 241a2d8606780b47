"""Many jobs, each with rows that say what came of it: in this process, in processes beside it, or on a Ray cluster."""

from __future__ import annotations

import importlib
import logging
import math
import multiprocessing
import os
import socket
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import as_completed
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from tqdm.auto import tqdm

from ff3d.checks import one_line
from ff3d.files import FolderError, append_row, file_sha256, read_rows
from ff3d.geometry.cores import available_memory, configure_process, threads
from ff3d.progress import block_signals

log = logging.getLogger("ff3d")

Row = dict[str, Any]  # with its `mesh` and `file`, and its `failure` if it is one
AHEAD = 1000  # jobs that a cluster is given before the first are back
RETRIES = 5  # of a job whose node died
LISTENING = 0.1  # seconds between looks of a worker at what its parent has heard
CONNECTING = 10.0  # seconds in which the head of a cluster must take a connection
LIBRARIES = ("igl", "scipy.ndimage", "scipy.sparse.csgraph", "skimage.measure", "trimesh")  # that jobs import


class Job(Protocol):
    """One piece of work. Jobs are sent to other processes and machines."""

    def rows(self) -> list[Row]:
        """Do the work; the rows of what came of it. What goes wrong is a row with its `failure`, not an exception."""

    def lost(self, reason: str) -> list[Row]:
        """The rows if the process that did it was lost."""

    def done(self, known: dict[str, Row]) -> list[Row] | None:
        """Its rows if it need not be done again, going by the known ones by their `file`; else None."""


@dataclass(frozen=True)
class Executor:
    """Where jobs run.

    workers: processes beside this one, so that a job that crashes or hangs is a row and stops nothing; 0: this process.
    timeout: seconds after which a job is given up; only with workers or a cluster.
    ray: a cluster's address, "auto" for the one around, "local" for one on this machine.
    """

    workers: int = 0
    timeout: float | None = None
    ray: str | None = None

    def __post_init__(self) -> None:
        if self.workers < 0 or (self.timeout is not None and not 0 < self.timeout < math.inf):
            raise ValueError(f"workers must be 0 or more and timeout positive, got {self.workers} and {self.timeout}")
        if self.timeout is not None and not (self.workers or self.ray):
            raise ValueError("--timeout needs --workers or --ray: a job can be given up in a process of its own alone")

    @property
    def memory(self) -> int | None:
        """Bytes for each job where several share this machine's memory; None: what is available where it runs."""
        return available_memory() // self.workers if self.workers > 1 and self.ray is None else None

    def outcomes(self, jobs: Sequence[Job]) -> Iterator[tuple[int, list[Row]]]:
        """Do the jobs: the number and the rows of each, as they come."""
        if self.ray is not None:
            alone = Executor(1, self.timeout)
            for number, outcome in on_cluster(partial(_apart, alone), jobs, self.ray):
                lost = isinstance(outcome, BaseException)
                yield number, jobs[number].lost(cluster_failure(outcome)) if lost else outcome
        elif self.workers:
            yield from self._in_processes(jobs)
        else:
            for number, job in enumerate(jobs):
                yield number, job.rows()

    def _in_processes(self, jobs: Sequence[Job]) -> Iterator[tuple[int, list[Row]]]:
        from pebble import ProcessPool

        share = max(1, threads() // self.workers)
        context = multiprocessing.get_context("spawn")
        with ProcessPool(self.workers, initializer=_prepare, initargs=(share,), context=context) as pool:
            futures: dict[Any, int] = {
                pool.schedule(_rows, (job,), timeout=self.timeout): number for number, job in enumerate(jobs)
            }
            try:
                for future in as_completed(futures):
                    number = futures[future]
                    reason = why_lost(future.exception(), self.timeout)
                    yield number, jobs[number].lost(reason) if reason else future.result()
            except BaseException:
                pool.stop()
                raise


HERE = Executor()


def run_to_rows(
    jobs: Sequence[Job],
    rows: Path,
    executor: Executor = HERE,
    *,
    title: str,
    unit: str,
    progress: bool = False,
    written: Callable[[], None] | None = None,
    replaced: Callable[[Row, Row], None] | None = None,
) -> list[Row]:
    """Do those jobs that are not done; append their rows to a .jsonl file as they come; all rows, in the jobs' order.

    Of two rows of one file the last counts.  title, unit: of the progress bar.  written: called after rows are.
    replaced: called with a known row and the one that is about to take its place.
    """
    known = read_rows(rows)
    found = {number: old for number, job in enumerate(jobs) if (old := job.done(known)) is not None}
    waiting = [number for number in range(len(jobs)) if number not in found]
    with tqdm(total=len(jobs), initial=len(found), desc=title, unit=f" {unit}", disable=not progress) as bar:
        for place, new in executor.outcomes([jobs[number] for number in waiting]):
            found[waiting[place]] = new
            for row in new:
                if "failure" in row:
                    log.warning("%s: %s", row["mesh"], row["failure"])
                if replaced is not None and row["file"] in known:
                    replaced(known[row["file"]], row)
                append_row(rows, row)
            if written is not None:
                written()
            bar.update()
    return [row for number in sorted(found) for row in found[number]]


def check_same_meshes(sources: Iterable[tuple[Path, str]], known: dict[str, Row], folder: str | Path) -> None:
    """Raise FolderError for a file that holds the result of another mesh, which is still there.

    sources: meshes, each with the `file` of its row.  folder: that of the rows.
    """
    for source, file in sources:
        row = known.get(file, {"failure": "not run"})
        other = Path(row.get("mesh") or source)
        if "failure" in row or not (other.is_file() and source.is_file()) or other.samefile(source):
            continue
        if row.get("sha256") != file_sha256(source):
            raise FolderError(
                f"{folder}: has {file} of another mesh, {other}; name another folder, or give --force to replace it"
            )


def on_cluster(
    function: Callable[[Any], Any], items: Sequence[Any], address: str, *, cpus: int = 1, gpus: float = 0.0
) -> Iterator[tuple[int, Any]]:
    """function(item) of each item on the nodes of a Ray cluster: its number and the result, or the RayError.

    In the order in which they come. On nodes that have the folder of this process, paths are relative to it there too.
    address: of the cluster, "auto" for the one around, "local" for one on this machine.
    Raises ValueError if the package ray is missing, or no cluster answers.
    """
    if address == "local":  # read when ray is imported: then its ports are on loopback
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    try:
        import ray
    except ImportError:
        raise ValueError("--ray needs the package ray: pip install 'ff3d[ray]'") from None
    try:
        _check_reachable(address)
        ray.init(
            address=address,  # local: never one that RAY_ADDRESS or `ray start` names
            include_dashboard=False,
            log_to_driver=False,
            ignore_reinit_error=True,
        )
    except (OSError, OverflowError, RuntimeError) as error:
        raise ValueError(f"--ray {address}: no cluster there ({one_line(error)}); start one, or give local") from error
    remote = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=RETRIES)(_call)
    waiting = iter(enumerate(items))
    pending: dict[Any, int] = {}
    while True:
        for number, item in islice(waiting, AHEAD - len(pending)):
            pending[remote.remote(os.getcwd(), function, item)] = number
        if not pending:
            return
        finished, _ = ray.wait(list(pending), num_returns=1)
        for reference in finished:
            number = pending.pop(reference)
            try:
                yield number, ray.get(reference)
            except ray.exceptions.RayError as error:
                yield number, error


def why_lost(error: BaseException | None, timeout: float | None) -> str | None:
    """Why a pool of processes has no result of a task; None if it has one, or an exception that the task raised."""
    from pebble import ProcessExpired

    if isinstance(error, ProcessExpired):
        ended = f"signal {-error.exitcode}" if error.exitcode < 0 else f"code {error.exitcode}"
        return f"its process ended with {ended}" + ", out of memory?" * (error.exitcode == -9)
    # a task's own, of a network say, comes with the traceback of its process
    if isinstance(error, TimeoutError) and error.__cause__ is None:
        return f"no end after {timeout:g} s; see --timeout"
    return None


def cluster_failure(error: BaseException) -> str:
    """Why a cluster did not do a job."""
    return f"the cluster could not do it: {one_line(getattr(error, 'cause', None) or error)}"


def _check_reachable(address: str) -> None:
    """Raise OSError or OverflowError if nothing is at [ray://]HOST:PORT: Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECTING).close()


def _call(folder: str, function: Callable[[Any], Any], item: Any) -> Any:
    with suppress(OSError):  # a node that has no such folder
        os.chdir(folder)
    return function(item)


def _rows(job: Job) -> list[Row]:
    return job.rows()


def _apart(alone: Executor, job: Job) -> list[Row]:
    """A job on a node of a cluster, in a process of its own: what it leaves behind, or breaks, is gone with it."""
    ((_, rows),) = alone.outcomes([job])
    return rows


def _prepare(share: int) -> None:
    """What a worker does first. The libraries are loaded now, so that a job's time is its own."""
    begin_worker(share)
    for name in LIBRARIES:
        importlib.import_module(name)


def begin_worker(share: int, ended: Callable[[], bool] | None = None) -> None:
    """Take a share of the cores, leave signals to the parent, and end when it does, even by a kill.

    ended: called every `LISTENING` seconds in a thread beside the work; True ends this process too.
    """
    configure_process(share)
    block_signals()
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        while parent.is_alive() and not (ended and ended()):
            parent.join(LISTENING if ended else None)
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
