"""A fit's rows, pictures and mesh for TensorBoard, through torch's own writer."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ff3d.fitting import Observer
from ff3d.surfaces.grid_levels import ExtractionError
from ff3d.views.rendering import default_camera, render

if TYPE_CHECKING:
    from ff3d.fields.checkpoint import Progress
    from ff3d.fields.field import LatticeField, OccupancyField

PICTURE, CELLS = 256, 64  # pixels of a picture; cells along the longest side of what it shows
MESH_CELLS = 128  # of the mesh


def check_tensorboard(command: str) -> None:
    """Raise ValueError, with what to install, if there is no TensorBoard for a command."""
    try:
        import torch.utils.tensorboard  # noqa: F401
    except ImportError as error:
        reason = "" if error.name == "tensorboard" else f" ({error})"
        raise ValueError(
            f"{command} needs the package tensorboard: pip install 'ff3d[tensorboard]'; metrics.jsonl holds the "
            f"numbers in any case{reason}"
        ) from None


class TensorBoard(Observer):
    """Writes event files into a folder: loss, IoU and seconds by step, a picture an evaluation, and at the end a mesh.

    Rows that are there before, of a fit that is resumed, are not written again. None of its time is the budget's.
    """

    def __init__(self, folder: str | Path, *, known: int = 0):
        self._folder, self._known = str(folder), known

    @cached_property
    def _writer(self) -> Any:
        """The files, which are made when there is something to write: a fit may be refused before."""
        from torch.utils.tensorboard import SummaryWriter

        return SummaryWriter(self._folder)

    def evaluated(self, field: OccupancyField | LatticeField, progress: Progress) -> None:
        """Write the rows that are new, and a picture of the field."""
        for row in progress.history[self._known :]:
            for name, value in _flat(row).items():
                self._writer.add_scalar(name, value, row["step"])
        self._known = len(progress.history)
        try:
            mesh = field.extract_mesh(CELLS)
        except ExtractionError:  # nothing is inside yet
            return
        size = (PICTURE, PICTURE)
        picture = render(mesh, default_camera(mesh, size), size=size)
        self._writer.add_image("shape", picture, progress.step, dataformats="HWC")
        self._writer.flush()

    def finished(self, field: OccupancyField | LatticeField, progress: Progress) -> None:
        """Write the mesh of the finished field."""
        try:
            mesh = field.extract_mesh(MESH_CELLS)
        except ExtractionError:
            return
        vertices, faces = (
            np.asarray(mesh.vertices, dtype=np.float32)[None],
            np.asarray(mesh.faces, dtype=np.int32)[None],
        )
        self._writer.add_mesh("mesh", vertices, faces=faces, global_step=progress.step)

    def close(self) -> None:
        """Finish the files."""
        if "_writer" in vars(self):
            self._writer.close()


def _flat(row: dict[str, Any]) -> dict[str, float]:
    """The numbers of a row of metrics.jsonl by name; a score's is iou/KIND."""
    scores = {f"iou/{kind}": score for kind, score in row["iou"].items()}
    return {name: float(value) for name, value in row.items() if name not in ("step", "iou")} | scores
