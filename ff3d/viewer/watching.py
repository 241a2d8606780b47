"""Fits that are watched in the browser: a shape, or a picture, as it forms; they can be stopped there."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ff3d.fields.config import LATTICE_MAPPINGS
from ff3d.fitting import Observer, settings_for
from ff3d.surfaces.grid_levels import ExtractionError
from ff3d.theory.images import ImageObserver, predict, to_bytes
from ff3d.viewer.gallery import Gallery
from ff3d.viewer.items import Item, field_item, shape_item_of
from ff3d.viewer.live import Live, Scores
from ff3d.viewer.page import FIELD_OF_VIEW, LOOPBACK, PORT, Page

if TYPE_CHECKING:
    from ff3d.fields.checkpoint import Progress
    from ff3d.fields.field import LatticeField, OccupancyField
    from ff3d.fields.network import Network
    from ff3d.labels.oracles import LabelledShape
    from ff3d.settings import FitConfig
    from ff3d.theory.images import ImageConfig
    from ff3d.theory.pictures import Picture

TITLE = "ff3d watch"
COARSEST, FINEST = 32, 192  # cells along the longest side, of the first surface, and at the end
COARSEST_PICTURE = 64  # pixels along the longest side, of the first
WIDE, CAPTION = 1.5, 0.09  # a page of pictures: its width over its height; what is below each, of its longest side
UPRIGHT = (0.0, 1.0, 0.0, 0.0)  # half a turn about x: in viser the rows of a picture run along y, which is up


class Watch(Live, Observer):
    """A page that shows a shape beside what is fitted to it, one or several after one another.

    names: of the fits. Each begins with `begin`, and ends with `finished`; it is closed at the end.
    Pictures are made between training steps, at growing resolution, as often as their share of the seconds allows.
    """

    def __init__(self, surface: LabelledShape, names: Sequence[str], *, host: str = LOOPBACK, port: int = PORT):
        self._surface = surface
        truth = shape_item_of(surface)
        self._names = list(names)
        empty = [Item(name, truth.box, fitted=True, make_values=_nothing) for name in names]
        self.gallery = Gallery([truth, *empty], host=host, port=port, title=TITLE)
        for index in range(len(empty)):
            self.gallery.hide(index + 1)
        kinds = {"uniform": "uniform", "boundary_face": "boundary"}
        super().__init__(self.gallery.page, Scores("IoU", kinds, 4), "nothing is inside yet")
        self._index = 1
        self._config: FitConfig | None = None

    def begin(self, name: str, config: FitConfig) -> Watch:
        """The fit of this name begins, by the settings given; returns itself."""
        config, _ = settings_for(config, self._surface)
        self._index, self._config = self._names.index(name) + 1, config
        stoppable = config.mapping.name not in LATTICE_MAPPINGS
        self.start(name, config.budget, COARSEST, FINEST, stoppable=stoppable)
        return self

    def paused(self, field: OccupancyField | LatticeField, progress: Progress) -> bool:
        """Show the field, if that is due; whether somebody wants to stop."""
        return self.step(progress, lambda resolution: self._show(field, resolution))

    def evaluated(self, field: OccupancyField | LatticeField, progress: Progress) -> None:
        """Show the scores, and the field once more when its budget is spent."""
        spent = self._config is not None and self._config.budget.share(progress.step, progress.seconds) >= 1
        if spent or progress.finished:
            self.draw(lambda resolution: self._show(field, resolution))
        self.tell(progress)

    def finished(self, field: OccupancyField | LatticeField) -> None:
        """Show what came of the fit, finely."""
        self._panel.end()
        self.draw(lambda resolution: self._show(field, resolution), FINEST)

    def _show(self, field: OccupancyField | LatticeField, resolution: int) -> bool:
        try:
            item = field_item(self._names[self._index - 1], field, resolution, levels=False)
        except ExtractionError:  # nothing is inside yet
            return False
        self.gallery.replace(self._index, item)
        return True


def _nothing() -> Any:
    raise ValueError("nothing yet")


class ImageWatch(Live, ImageObserver):
    """A page that shows a picture beside what is fitted to it under each mapping, in rows, all of them in view."""

    def __init__(self, *, host: str = LOOPBACK, port: int = PORT):
        page = Page(TITLE, host=host, port=port)
        super().__init__(page, Scores("PSNR", {"psnr_train": "train", "psnr_test": "test"}, 1), "no picture yet")
        self._size = (1, 1)  # of the pictures: height, width
        self._title = ""  # of the fit that goes on
        self._tiles: list[tuple[Any, Any]] = []  # each picture and what stands below it
        page.server.initial_camera.position = (0.0, 0.0, _away(WIDE))
        page.server.initial_camera.look_at = (0.0, 0.0, 0.0)
        page.server.on_client_connect(self._connected)

    def begin(self, truth: Picture, config: ImageConfig) -> None:
        """A fit begins: a place for it, after those before."""
        if not self._tiles:
            self._size = truth.pixels.shape[0], truth.pixels.shape[1]
            self._add("ground truth", to_bytes(truth.pixels))
        self._title = config.title
        self._add(self._title, np.full((1, 1, 3), 235, dtype=np.uint8))
        self.start(self._title, config.budget, COARSEST_PICTURE, max(self._size))

    def paused(self, network: Network, progress: Progress) -> bool:
        """Show what the network gives, if that is due; whether somebody wants to stop."""

        def show(resolution: int) -> bool:
            height, width = (max(1, round(it * resolution / max(self._size))) for it in self._size)
            return self._show(to_bytes(predict(network, (height, width))))

        return self.step(progress, show)

    def evaluated(self, pixels: NDArray[np.uint8], progress: Progress) -> None:
        """Show the picture as it was scored, and the scores."""
        scores = progress.history[-1]["iou"]
        self._tiles[-1][1].text = f"{self._title}: {scores.get('psnr_test', scores['psnr_train']):.1f} dB"
        self.draw(lambda resolution: self._show(pixels))
        self.tell(progress)

    def _show(self, pixels: NDArray[np.uint8]) -> bool:
        self._tiles[-1][0].image = pixels
        return True

    def _add(self, title: str, pixels: NDArray[np.uint8]) -> None:
        """Another picture, for which the others make room."""
        scene, number = self.page.server.scene, len(self._tiles)
        height, width = (it / max(self._size) for it in self._size)
        shown = {"jpeg_quality": 92, "cast_shadow": False, "receive_shadow": False, "wxyz": UPRIGHT}
        picture = scene.add_image(f"/{number}", pixels, width, height, **shown)
        self._tiles.append((picture, scene.add_label(f"/title {number}", title, anchor="top-center")))
        count, right, down = number + 1, 1.05 * width, height + CAPTION
        scale, columns = max((min(WIDE / (it * right), 1 / (-(-count // it) * down)), it) for it in range(1, count + 1))
        rows = -(-count // columns)
        with self.page.server.atomic():
            for index, (picture, words) in enumerate(self._tiles):
                across, below = index % columns - (columns - 1) / 2, index // columns - (rows - 1) / 2
                x, y = scale * across * right, scale * (CAPTION / 2 - below * down)
                picture.scale, picture.position = scale, (x, y, 0.0)
                words.position = (x, y - scale * (height / 2 + 0.01), 0.0)

    def _connected(self, client: Any) -> None:
        """Everything in view of a browser, whatever its window is like."""
        with client.atomic():
            client.camera.position = (0.0, 0.0, _away(client.camera.aspect))
            client.camera.look_at = (0.0, 0.0, 0.0)


def _away(aspect: float) -> float:
    """How far the eye must be to have the page in view; aspect: width over height of the canvas."""
    return 1.1 / 2 * max(1.0, WIDE / aspect) / math.tan(math.radians(FIELD_OF_VIEW) / 2)
