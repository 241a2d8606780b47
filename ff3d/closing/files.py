"""Closed meshes to files, one or many: each with a row that says how it came out, or why it did not."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ff3d.checks import one_line
from ff3d.closing.config import RESOLUTION, ClosingConfig
from ff3d.closing.watertight import Closed, close, largest_distance
from ff3d.files import check_output, file_sha256, is_marked, locked, read_rows
from ff3d.geometry.arrays import Floats
from ff3d.geometry.coordinates import grown_box
from ff3d.geometry.triangles import HalfEdges, signed_volume
from ff3d.jobs import HERE, Executor, check_same_meshes, run_to_rows
from ff3d.surfaces.export import check_ending, check_samples, check_voxels, save_surface, save_voxels

if TYPE_CHECKING:
    import trimesh

ROWS = "watertight.jsonl"
RESULT = "result_sha256"  # of the file that was written; rows of earlier versions have none


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

    def rows(self) -> list[dict[str, Any]]:
        """The job's row, whatever happens: what `run` says, and the sha256 of the file."""
        row: dict[str, Any] = {"mesh": str(self.source), "file": self.output.name}
        try:
            row |= self.identity
            row |= self.run()
            row[RESULT] = file_sha256(self.output)
        except Exception as error:  # whatever it trips over, the other meshes follow
            row["failure"] = one_line(error)
        return [row]

    def lost(self, reason: str) -> list[dict[str, Any]]:
        """The row if the process that ran it was lost."""
        return [{"mesh": str(self.source), "file": self.output.name, "failure": reason}]

    def done(self, known: dict[str, dict[str, Any]]) -> list[dict[str, Any]] | None:
        """Its row, if that is a success of this job whose file is there."""
        row = known.get(self.output.name, {"failure": "not run"})
        try:
            same = "failure" not in row and row | json.loads(json.dumps(self.identity)) == row
        except OSError:
            return None
        return [row] if same and self.made(row) else None

    def made(self, row: dict[str, Any]) -> bool:
        """Whether the file is there, and is the one that a row is of."""
        if "failure" in row or not self.output.is_file():
            return False
        return RESULT not in row or row[RESULT] == file_sha256(self.output)

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
        row = {
            "faces": len(closed.mesh.faces),
            "volume": signed_volume(closed.mesh),
            "volume_before": before,
            "to_result": largest_distance(closed.surface, closed.mesh),
            "to_input": largest_distance(closed.mesh, closed.surface),
            "closed": is_closed(closed.mesh),
            "resolution": closed.resolution,
            "cell": closed.cell,
            "notes": list(closed.notes),
        }
        save(closed, self.output, points=self.points, max_memory=self.max_memory, progress=progress)
        return row | {"seconds": time.perf_counter() - begun}


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
        return np.where(oracle(points), 1.0, -1.0)

    save_voxels(logits, bounds, path, resolution=resolution, max_memory=max_memory, progress=progress)


def is_closed(mesh: trimesh.Trimesh) -> bool:
    """Whether each edge has two faces that run along it in opposite directions, and the faces look outward."""
    edges = HalfEdges.of(np.asarray(mesh.faces, dtype=np.int64), len(mesh.vertices))
    return bool(len(edges.count) and (edges.count == 2).all() and not edges.balance.any() and signed_volume(mesh) > 0)


def close_many(
    jobs: Sequence[Job],
    rows: Path,
    executor: Executor = HERE,
    *,
    progress: bool = False,
    force: bool = False,
) -> list[dict[str, Any]]:
    """Run the jobs; append a row for each to a .jsonl file as it comes; return the rows in the jobs' order.

    A job whose row is there already, with its file, is not run again. One that fails is a row with its `failure`, tried
    again next time; of two rows of one file the last counts.
    executor: where they run. On a cluster, its nodes must see the files under the same paths. Workers
    beside this process share out the memory that is available, where a job has no `max_memory`.
    force: replace files of these names that ff3d has not made, or of another mesh. Raises FolderError without, if there
    are such files, or if another process writes there.
    """
    with locked(rows.parent):
        known = read_rows(rows)
        for job in jobs:
            # a file whose mark can be seen need not be read whole
            unmarked = not force and job.output.is_file() and not is_marked(job.output)
            made = unmarked and job.made(known.get(job.output.name, {"failure": "not run"}))
            check_output(job.output, force=force or made, inputs=[job.source])
        if not force:
            there = [(job.source, job.output.name) for job in jobs if job.output.exists()]
            check_same_meshes(there, known, rows.parent)
        if (share := executor.memory) is not None:
            jobs = [replace(job, max_memory=job.max_memory or share) for job in jobs]
        return run_to_rows(jobs, rows, executor, title="watertight", unit="meshes", progress=progress)
