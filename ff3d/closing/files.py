"""Closed meshes to files, one or many: each with a row that says how it came out, or why it did not."""

from __future__ import annotations

import importlib
import json
import logging
import math
import multiprocessing
import os
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from ff3d.checks import one_line
from ff3d.closing.config import RESOLUTION, ClosingConfig
from ff3d.closing.watertight import Closed, close, largest_distance
from ff3d.files import append_row, check_output, file_sha256, locked, read_rows
from ff3d.geometry.arrays import Floats
from ff3d.geometry.coordinates import grown_box
from ff3d.geometry.cores import threads
from ff3d.geometry.triangles import HalfEdges, signed_volume
from ff3d.surfaces.export import check_ending, check_samples, check_voxels, save_surface, save_voxels

if TYPE_CHECKING:
    import trimesh

log = logging.getLogger("ff3d")

ROWS = "watertight.jsonl"


@dataclass(frozen=True)
class Job:
    """A shape to close and where its result goes.

    points: in an .xyz.  max_memory: bytes.
    """

    source: Path
    output: Path
    config: ClosingConfig
    points: int = 100_000
    max_memory: int | None = None

    def __post_init__(self) -> None:
        check_ending(self.output)
        if self.points < 1:
            raise ValueError(f"points must be at least 1, got {self.points}")

    @property
    def identity(self) -> dict[str, Any]:
        """What a row must say for its file to be the result of this job."""
        extra = {"points": self.points} if self.output.suffix.lower() == ".xyz" else {}
        return {"file": self.output.name, "sha256": file_sha256(self.source), "options": asdict(self.config) | extra}

    def run(self, *, progress: bool = False) -> dict[str, Any]:
        """Close the shape and write the result; return its row.

        faces, volume; volume_before: of the file's faces as they are, whether they are closed or not; to_result,
        to_input: the largest distance seen from the input's surface to the result and back, input units (the second is
        large where a hole was closed); closed: checked; resolution; cell, input units; notes; seconds.
        Raises as `close` does.
        """
        from ff3d.shapes.point_cloud import load_shape

        begun = time.perf_counter()
        shape: Any = load_shape(self.source)
        if self.output.suffix.lower() == ".xyz":
            check_samples(self.points, self.max_memory)
        if self.output.suffix.lower() == ".npz" and hasattr(shape, "bounds") and self.config.error is None:
            check_voxels(np.asarray(shape.bounds), self.config.resolution or RESOLUTION, self.max_memory)
        before = signed_volume(shape) if hasattr(shape, "faces") else None
        closed = close(shape, self.config, max_memory=self.max_memory, progress=progress)
        save(closed, self.output, points=self.points, max_memory=self.max_memory, progress=progress)
        return {
            "faces": len(closed.mesh.faces),
            "volume": signed_volume(closed.mesh),
            "volume_before": before,
            "to_result": largest_distance(closed.surface, closed.mesh),
            "to_input": largest_distance(closed.mesh, closed.surface),
            "closed": is_closed(closed.mesh),
            "resolution": closed.resolution,
            "cell": closed.cell,
            "notes": list(closed.notes),
            "seconds": time.perf_counter() - begun,
        }


def save(
    closed: Closed, path: Path, *, points: int = 100_000, max_memory: int | None = None, progress: bool = False
) -> None:
    """Write a closed mesh by the ending: its voxels to an .npz, else as `save_surface`."""
    if path.suffix.lower() != ".npz":
        save_surface(closed.mesh, path, points=points)
        return
    from ff3d.labels.winding_number import WindingNumberOracle

    oracle = WindingNumberOracle(closed.mesh)
    bounds = grown_box(closed.mesh, closed.cell)
    resolution = round(float((bounds[1] - bounds[0]).max()) / closed.cell)

    def logits(points: Floats) -> Floats:
        return oracle.winding_number(points) - 0.5

    save_voxels(logits, bounds, path, resolution=resolution, max_memory=max_memory, progress=progress)


def is_closed(mesh: trimesh.Trimesh) -> bool:
    """Whether each edge has two faces that run along it in opposite directions, and the faces look outward."""
    edges = HalfEdges.of(np.asarray(mesh.faces, dtype=np.int64), len(mesh.vertices))
    return bool(len(edges.count) and (edges.count == 2).all() and not edges.balance.any() and signed_volume(mesh) > 0)


def close_many(
    jobs: Sequence[Job],
    rows: Path,
    *,
    workers: int = 0,
    timeout: float | None = None,
    progress: bool = False,
    force: bool = False,
) -> list[dict[str, Any]]:
    """Run the jobs; append a row for each to a .jsonl file as it comes; return the rows in the jobs' order.

    A job whose row is there already, with its file, is not run again. One that fails is a row with its `failure`, tried
    again next time; of two rows of one file the last counts.
    workers: processes beside this one, in which a mesh that crashes or takes longer than `timeout` seconds is a row
    too; 0: this process.
    force: replace files of these names that ff3d has not made. Raises FolderError without, if there are such files, or
    if another process writes there.
    """
    if workers < 0 or (timeout is not None and not 0 < timeout < math.inf):
        raise ValueError(f"workers must be 0 or more and timeout positive, got {workers} and {timeout}")
    with locked(rows.parent):
        return _close_waiting(jobs, rows, workers=workers, timeout=timeout, progress=progress, force=force)


def _close_waiting(
    jobs: Sequence[Job], rows: Path, *, workers: int, timeout: float | None, progress: bool, force: bool
) -> list[dict[str, Any]]:
    known = read_rows(rows)
    for job in jobs:
        check_output(job.output, force=force or job.output.name in known, inputs=[job.source])
    done: dict[int, dict[str, Any]] = {}
    for number, job in enumerate(jobs):
        row = known.get(job.output.name)
        if row and job.output.is_file() and _same(row, job):
            done[number] = row
    waiting = [number for number in range(len(jobs)) if number not in done]
    outcomes = _in_processes(jobs, waiting, workers, timeout) if workers else _in_turn(jobs, waiting)
    with tqdm(total=len(jobs), initial=len(done), desc="watertight", unit=" meshes", disable=not progress) as bar:
        for number, row in outcomes:
            if "failure" in row:
                log.warning("%s: %s", jobs[number].source, row["failure"])
            done[number] = row
            append_row(rows, row)
            bar.update()
    return [done[number] for number in sorted(done)]


def _same(row: dict[str, Any], job: Job) -> bool:
    """Whether a row is of this job, and a success."""
    try:
        identity = json.loads(json.dumps(job.identity))
    except OSError:
        return False
    return "failure" not in row and row | identity == row


def _row(job: Job) -> dict[str, Any]:
    """Run a job: its row, whatever happens."""
    row: dict[str, Any] = {"mesh": str(job.source), "file": job.output.name}
    try:
        row |= job.identity
        return row | job.run()
    except Exception as error:  # whatever it trips over, the other meshes follow
        return row | {"failure": one_line(error)}


def _in_turn(jobs: Sequence[Job], waiting: Sequence[int]) -> Iterator[tuple[int, dict[str, Any]]]:
    for number in waiting:
        yield number, _row(jobs[number])


def _in_processes(
    jobs: Sequence[Job], waiting: Sequence[int], workers: int, timeout: float | None
) -> Iterator[tuple[int, dict[str, Any]]]:
    from pebble import ProcessExpired, ProcessPool

    share = max(1, threads() // workers)
    context = multiprocessing.get_context("spawn")
    with ProcessPool(workers, initializer=_begin, initargs=(share,), context=context) as pool:
        futures: dict[Any, int] = {pool.schedule(_row, (jobs[number],), timeout=timeout): number for number in waiting}
        try:
            for future in as_completed(futures):
                number = futures[future]
                try:
                    row = future.result()
                except TimeoutError:
                    row = _failed(jobs[number], f"no end after {timeout:g} s; see --timeout")
                except ProcessExpired as error:
                    row = _failed(jobs[number], f"the process that closed it ended with code {error.exitcode}")
                yield number, row
        except BaseException:
            pool.stop()
            raise


def _failed(job: Job, reason: str) -> dict[str, Any]:
    return {"mesh": str(job.source), "file": job.output.name, "failure": reason}


def _begin(share: int) -> None:
    """What a worker does first: it takes its share of the cores, and ends when this process does, even by a kill.

    The libraries are loaded now, so that a mesh's time is its own.
    """
    os.environ["OMP_NUM_THREADS"] = str(share)
    for name in ("igl", "scipy.ndimage", "scipy.sparse.csgraph", "skimage.measure", "trimesh"):
        importlib.import_module(name)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
