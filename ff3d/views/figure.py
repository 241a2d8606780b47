"""The figure of a comparison: ground truth and every reconstruction by one camera, and where each is wrong."""

from __future__ import annotations

import textwrap
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray
from tqdm.auto import tqdm

from ff3d.geometry.arrays import Inside
from ff3d.views.rendering import (
    GHOST,
    WHITE,
    Camera,
    Picture,
    Scene,
    Vector,
    View,
    clay_picture,
    default_camera,
    error_color,
    error_picture,
    to_pixels,
)

if TYPE_CHECKING:
    from trimesh import Trimesh

# Colours are sRGB in 0..1.
INK = (0.10, 0.10, 0.12)
GREY = (0.38, 0.38, 0.42)
PANEL = (0.955, 0.955, 0.96)
FRAME = (0.93, 0.55, 0.10)
CUT = (0.45, 0.56, 0.70)
# Characters that Pillow's default font lacks, in ones that it has: times, dashes, minus, sigma, gamma, squared
PLAIN = {0xD7: "x", 0x2013: "-", 0x2014: "-", 0x2212: "-", 0x3C3: "sigma", 0x3B3: "gamma", 0xB2: "^2"}


@dataclass(frozen=True)
class Entry:
    """One column of a comparison: a reconstruction, or None for its mesh and the reason why there is none."""

    name: str
    mesh: Trimesh | None
    caption: str = ""
    reason: str = "no surface"


def comparison_picture(
    reference: Trimesh,
    entries: Sequence[Entry],
    inside: Inside,
    *,
    title: str = "",
    subtitle: str = "",
    caption: str = "",
    camera: Camera | None = None,
    panel: int = 360,
    scale: float = 0.01,
    zoom: float = 3.0,
    region: tuple[float, float] | None = None,
    progress: bool = False,
) -> Picture:
    """The reference and each reconstruction side by side, from one camera: in full, close up, and with its errors.

    caption: below the reference; each entry has its own.  camera: None frames the reference.  panel: pixels, the side
    of each picture.  scale: see `render_error`.  zoom: of the close-up row; 0 leaves the row out.  region: the middle
    of the close-up, in view widths right and up of the camera's; None takes the most detailed part of the reference.
    progress: show a tqdm bar.
    Text is Latin: the font is Pillow's default, so that the picture is the same on every machine.
    Returns uint8 (height, width, 3); an entry without a mesh is an empty panel with its reason.
    Raises ValueError for a reference without faces, panel < 240, or 0 < zoom < 1.
    """
    if panel < 240:
        raise ValueError(f"panel must be at least 240 pixels, for the legend to be legible, got {panel}")
    if zoom and zoom < 1:
        raise ValueError(f"zoom must be 0, for no close-up, or at least 1, got {zoom}")
    size = (panel, panel)
    camera = camera or default_camera(reference, size)
    truth = Scene(reference, camera)
    columns = [truth, *(None if entry.mesh is None else Scene(entry.mesh, camera) for entry in entries)]
    names = [("Ground truth", caption), *((entry.name, entry.caption) for entry in entries)]
    gap, top = 16, 24 + 40 * bool(title) + 28 * bool(subtitle)
    lines = max(text.count("\n") + 1 for _, text in names)
    rows = [top + 34]
    rows.append(rows[0] + panel + 10 + 24 * lines + gap)
    if zoom:
        rows.append(rows[1] + panel + gap)
    sheet = _Sheet(gap + len(columns) * (panel + gap), rows[-1] + panel + gap)
    sheet.text(title, gap, 16, 30, room=sheet.width - 2 * gap)
    sheet.text(subtitle, gap, 16 + 40 * bool(title), 18, room=sheet.width - 2 * gap, fill=GREY)
    spot = region or (_detail(truth.view(camera, (96, 96)), zoom) if zoom else (0.0, 0.0))
    pairs = tqdm(list(zip(columns, names, strict=True)), desc="picture", unit=" columns", disable=not progress)
    for i, (scene, (name, below)) in enumerate(pairs):
        x = gap + i * (panel + gap)
        sheet.text(name, x + panel // 2, top, 22, room=panel, anchor="ma")
        sheet.text(below, x + panel // 2, rows[0] + panel + 8, 18, room=panel, anchor="ma", fill=GREY)
        if scene is None:
            for row in rows:
                sheet.note((entries[i - 1].reason or "no surface") if row == rows[0] else "", x, row, panel)
            continue
        sheet.paste(clay_picture(scene, scene.view(camera, size)), x, rows[0])
        if zoom:
            sheet.paste(clay_picture(scene, scene.view(camera.closeup(*spot, zoom), size)), x, rows[1])
            sheet.frame(x, rows[0], panel, spot, zoom)
        if i:
            sheet.paste(error_picture(scene, truth, size, inside, scale), x, rows[-1])
        else:
            sheet.legend(x, rows[-1], panel, scale)
    return np.asarray(sheet.image)


def cross_sections(
    winding_number: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    bounds: ArrayLike,
    center: ArrayLike,
    *,
    unsure: float,
    title: str = "",
    panel: int = 420,
) -> Picture:
    """Three cuts through `center` (3,), one across each axis: inside, outside, and where labels are not sure.

    winding_number: points (n, 3) -> (n,).  bounds: the box (2, 3) that is shown.  unsure: points whose number lies
    within it of 1/2 are drawn in orange, the stronger the nearer.  panel: pixels, the longest side of a cut.
    Returns uint8 (height, width, 3).
    """
    low, high = np.asarray(bounds, dtype=np.float64)
    gap, top = 24, 24 + 44 * bool(title)
    pixel = float((high - low).max()) / panel
    sheet = _Sheet(4 * gap + 3 * panel, top + panel + 84)
    sheet.text(title, gap, 16, 24, room=sheet.width - 2 * gap)
    for axis, across, up in ((0, 2, 1), (1, 0, 2), (2, 0, 1)):
        columns, rows = (max(1, round(float(high[k] - low[k]) / pixel)) for k in (across, up))
        points = np.empty((rows, columns, 3))
        points[..., axis] = np.asarray(center, dtype=np.float64)[axis]
        points[..., across] = low[across] + (np.arange(columns) + 0.5) * pixel
        points[..., up] = (high[up] - (np.arange(rows) + 0.5) * pixel)[:, None]
        number = winding_number(points.reshape(-1, 3)).reshape(rows, columns, 1)
        doubt = np.clip(1 - np.abs(number - 0.5) / unsure, 0, 1) ** 0.5
        colors = np.where(number > 0.5, np.array(CUT), np.array(PANEL))
        x = gap + axis * (panel + gap)
        picture = np.round(255 * (colors + (np.array(FRAME) - colors) * doubt)).astype(np.uint8)
        sheet.paste(picture, x + (panel - columns) // 2, top + (panel - rows) // 2)
        names = "xyz"
        words = f"{names[across]} to the right, {names[up]} up, at {names[axis]} = {points[0, 0, axis]:.4g}"
        sheet.text(words, x + panel // 2, top + panel + 8, 16, room=panel, anchor="ma", fill=GREY)
    for i, (color, words) in enumerate(((CUT, "inside"), (PANEL, "outside"), (FRAME, "not sure"))):
        x, y = gap + 160 * i, top + panel + 44
        sheet.draw.rectangle((x, y, x + 24, y + 18), fill=_bytes(color), outline=_bytes(GREY))
        sheet.text(words, x + 34, y - 1, 16, room=120)
    return np.asarray(sheet.image)


def section_picture(
    entries: Sequence[tuple[str, Inside]],
    inside: Inside,
    bounds: ArrayLike,
    *,
    axis: int | None = None,
    title: str = "",
    panel: int = 360,
) -> Picture:
    """A cut through the middle of the box: what is inside, by the reference and by each entry, and the errors of each.

    entries: names, and points (n, 3) -> bool (n,).  inside: the reference's.  bounds: the box (2, 3) that is shown.
    axis: which the cut is across; None takes the box's shortest side, whose cut is the largest.
    Colours are those of `comparison_picture`: blue is missing, red is extra.
    Returns uint8 (height, width, 3).
    """
    low, high = np.asarray(bounds, dtype=np.float64)
    axis = int(np.argmin(high - low)) if axis is None else axis
    across, up = ((2, 1), (0, 2), (0, 1))[axis]
    pixel = float((high - low)[[across, up]].max()) / panel
    columns, rows = (max(1, round(float(high[k] - low[k]) / pixel)) for k in (across, up))
    points = np.empty((rows, columns, 3))
    points[..., axis] = (low[axis] + high[axis]) / 2
    points[..., across] = low[across] + (np.arange(columns) + 0.5) * pixel
    points[..., up] = (high[up] - (np.arange(rows) + 0.5) * pixel)[:, None]
    gap, top = 16, 20 + 44 * bool(title)
    sheet = _Sheet(gap + (len(entries) + 1) * (panel + gap), top + 34 + rows + gap)
    sheet.text(title, gap, 14, 24, room=sheet.width - 2 * gap)
    missing, extra = (to_pixels(np.tile(error_color(np.array([sign])), (2, 2, 1)))[0, 0] for sign in (-1.0, 1.0))
    truth = inside(points.reshape(-1, 3)).reshape(rows, columns)
    for i, (name, contains) in enumerate([("Ground truth", None), *entries]):
        filled = truth if contains is None else contains(points.reshape(-1, 3)).reshape(rows, columns)
        picture = np.where(filled[..., None], np.array(_bytes(CUT)), np.array(_bytes(PANEL)))
        picture[truth & ~filled], picture[filled & ~truth] = missing, extra
        x = gap + i * (panel + gap) + (panel - columns) // 2
        sheet.text(name, gap + i * (panel + gap) + panel // 2, top, 22, room=panel, anchor="ma")
        sheet.paste(picture.astype(np.uint8), x, top + 34)
    return np.asarray(sheet.image)


def _detail(view: View, zoom: float) -> tuple[float, float]:
    """The middle of the close-up with the most detail: bends of the surface that are not outlines. In view widths."""
    rows, columns = view.mask.shape
    normals = np.zeros((rows, columns, 3))
    normals[view.mask] = view.normals
    depth = np.where(view.mask, view.depth, 0)
    bend = np.zeros((rows, columns))
    for axis in (0, 1):
        step = np.minimum(np.abs(normals - np.roll(normals, 1, axis)).sum(axis=2), 0.5)
        bend += step * (np.abs(depth - np.roll(depth, 1, axis)) < 0.02)
    width = max(1, min(columns, round(columns / zoom)))
    sums = np.pad((bend + 0.05) * view.mask, ((1, 0), (1, 0))).cumsum(axis=0).cumsum(axis=1)
    boxes = sums[width:, width:] - sums[:-width, width:] - sums[width:, :-width] + sums[:-width, :-width]
    row, column = np.unravel_index(int(boxes.argmax()), boxes.shape)
    return float((column + width / 2) / columns - 0.5), float(0.5 - (row + width / 2) / rows)


class _Sheet:
    """A white page with pictures, frames and text; positions in pixels from its top left."""

    def __init__(self, width: int, height: int):
        from PIL import Image, ImageDraw

        self.width = width
        self.image = Image.new("RGB", (width, height), _bytes(WHITE))
        self.draw = ImageDraw.Draw(self.image)

    def paste(self, picture: Picture, x: int, y: int) -> None:
        from PIL import Image

        self.image.paste(Image.fromarray(picture), (x, y))

    def text(
        self, text: str, x: float, y: float, size: int, *, room: int, anchor: str = "la", fill: Vector = INK
    ) -> None:
        """Write the text's lines; one that is wider than `room` gets smaller letters, and then an ellipsis."""
        from PIL import ImageFont

        letters = unicodedata.normalize("NFKD", text.translate(PLAIN))
        text = "".join(letter for letter in letters if not unicodedata.combining(letter))
        for i, line in enumerate(text.split("\n")):
            points, rest = size, line
            while self.draw.textlength(rest, ImageFont.load_default(points)) > room and rest:
                points, rest = (points - 1, line) if points > 12 else (points, rest.rstrip("…")[:-1] + "…")
            font = ImageFont.load_default(points)
            at = (x, y + i * size * 4 / 3 + (size - points) * 0.7)
            self.draw.text(at, rest, fill=_bytes(fill), font=font, anchor=anchor)

    def note(self, text: str, x: int, y: int, panel: int) -> None:
        """An empty panel with the reason."""
        box = (x + 8, y + 8, x + panel - 8, y + panel - 8)
        self.draw.rounded_rectangle(box, 12, fill=_bytes(PANEL))
        lines = textwrap.wrap(text, max(8, panel // 11), max_lines=max(1, panel // 40))
        y += panel // 2 - 12 * len(lines)
        self.text("\n".join(lines), x + panel // 2, y, 18, room=panel - 32, anchor="ma", fill=GREY)

    def frame(self, x: int, y: int, panel: int, spot: tuple[float, float], zoom: float) -> None:
        """Outline the part of the panel that the close-up shows."""
        left, top = (0.5 + spot[0] - 0.5 / zoom) * panel, (0.5 - spot[1] - 0.5 / zoom) * panel
        box = [min(max(value, 0), panel - 1) for value in (left, top, left + panel / zoom, top + panel / zoom)]
        self.draw.rectangle((x + box[0], y + box[1], x + box[2], y + box[3]), outline=_bytes(FRAME), width=2)

    def legend(self, x: int, y: int, panel: int, scale: float) -> None:
        """The key to the error colours."""
        left, width, top = x + panel // 12, panel - panel // 6, y + panel // 3
        self.text("Error of each surface", x + panel // 2, top - 52, 20, room=width, anchor="ma")
        bar = to_pixels(np.repeat(error_color(np.linspace(-1, 1, 2 * width))[None], 2 * 24, axis=0))
        self.paste(bar, left, top)
        percent = f"{100 * scale:.3g}%"
        for i, words in enumerate((f"-{percent}\nmissing", "0\ncorrect", f"+{percent}\nextra")):
            self.text(words, left + width * i / 2, top + 32, 17, room=width // 3, anchor=("la", "ma", "ra")[i])
        about = "signed distance to the ground truth,\nin % of its longest side"
        self.text(about, x + panel // 2, top + 92, 15, room=width, anchor="ma", fill=GREY)
        self.draw.rectangle((left, top + 150, left + 24, top + 168), fill=_bytes(GHOST))
        self.text("nothing there", left + 34, top + 149, 16, room=width - 34)


def _bytes(color: Vector) -> tuple[int, int, int]:
    red, green, blue = (round(255 * value) for value in color)
    return red, green, blue
