"""Training as a film: the field is noted as it is fitted, and drawn when the fit is done."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from tqdm.auto import tqdm

from ff3d.fields.checkpoint import Progress
from ff3d.fields.field import LatticeField, OccupancyField
from ff3d.fitting import Observer
from ff3d.surfaces.grid_levels import ExtractionError
from ff3d.viewer.turntable import check_film, name_band, write_pictures
from ff3d.views.rendering import Picture, default_camera, render

if TYPE_CHECKING:
    from trimesh import Trimesh

    from ff3d.fields.config import Budget

FRAMES, MEMORY = 48, 2**29  # moments of a fit, and the bytes that what is noted of them may take
SLOWEST, RATE, SECONDS, HELD = 2.0, 8.0, 4.0, 2.0  # frames a second; seconds that few of them take, and the last one
SIZE, RESOLUTION = 480, 128  # pixels, and cells along the longest side of the meshes that are drawn


class Film(Observer):
    """Notes the field at moments of a fit, more of them at its beginning; `write` draws them.

    Noting a network copies its numbers, some milliseconds; all else comes after the fit.  reference: what is fitted,
    for the view.  budget: the fit's.
    """

    def __init__(self, reference: Trimesh, budget: Budget):
        self._camera = default_camera(reference, (SIZE, SIZE))
        self._budget, self._due = budget, 0.0  # the share of it at which the field is noted next
        self._noted: list[tuple[str, LatticeField | dict[str, torch.Tensor]]] = []

    @staticmethod
    def check(path: Path) -> None:
        """Raise ValueError, before the work, for a path that no film can be written to."""
        if path.suffix.lower() == ".png":
            raise ValueError(f"{path}: a film is a .gif or an .mp4")
        check_film(path)

    def paused(self, field: OccupancyField | LatticeField, progress: Progress) -> bool:
        """Note the field, if its moment has come."""
        if isinstance(field, LatticeField):
            self._noted.append((f"{field.parameter_count:,} numbers", field))
            return False
        share = self._budget.share(progress.step, progress.seconds)
        if share >= self._due:
            state = {name: tensor.detach().cpu().clone() for name, tensor in field.state_dict().items()}
            self._noted.append((f"step {progress.step:,}, {progress.seconds:.1f} s", state))
            frames = max(2, min(FRAMES, MEMORY // sum(tensor.nbytes for tensor in state.values())))
            self._due = ((math.floor(frames * math.sqrt(share)) + 1) / frames) ** 2
        return False

    def write(self, field: OccupancyField | LatticeField, path: Path, *, progress: bool = False) -> int:
        """Draw what was noted and at last the finished field; return the number of moments."""
        count = len(self._noted) + 1
        rate = max(SLOWEST, min(RATE, count / SECONDS))
        held = round(HELD * rate)
        pictures = self._pictures(field, held)
        bar = tqdm(pictures, total=count + held - 1, desc="film", unit=" frames", disable=not progress)
        write_pictures(bar, path, rate)
        return count

    def _pictures(self, field: OccupancyField | LatticeField, held: int) -> Iterator[Picture]:
        for text, noted in self._noted:
            if isinstance(noted, LatticeField):
                yield self._picture(noted, text)
                continue
            assert isinstance(field, OccupancyField)
            finished = {name: tensor.clone() for name, tensor in field.state_dict().items()}
            field.load_state_dict(noted)
            try:
                picture = self._picture(field, text)
            finally:
                field.load_state_dict(finished)
            yield picture
        last = self._picture(field, "finished")
        for _ in range(held):
            yield last

    def _picture(self, field: OccupancyField | LatticeField, text: str) -> Picture:
        try:
            picture = render(field.extract_mesh(RESOLUTION), self._camera, size=(SIZE, SIZE))
        except ExtractionError:  # nothing is inside yet
            picture, text = np.full((SIZE, SIZE, 3), 255, dtype=np.uint8), f"{text}: nothing is inside yet"
        return np.concatenate([picture, name_band(text, SIZE)])
