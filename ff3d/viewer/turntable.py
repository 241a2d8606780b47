"""Turntables: shapes that turn once, as a film or an animated picture, drawn without OpenGL."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from tqdm.auto import tqdm

from ff3d.files import MARK, write_atomically
from ff3d.geometry.arrays import Floats
from ff3d.views.rendering import Camera, Picture, render, save_picture

if TYPE_CHECKING:
    from trimesh import Trimesh

ENDINGS = (".mp4", ".gif", ".png")
BAND = 30  # pixels below each shape for its name
ALIKE = 1.5  # times: sizes of shapes that are seen from the same distance
RINGS, RING = 48, 24  # points of a shape's outline as it turns: along the axis, and around it


def check_film(path: Path) -> None:
    """Raise ValueError, before the work, for a path that no turntable can be written to."""
    if path.suffix.lower() not in ENDINGS:
        raise ValueError(f"{path}: cannot write {path.suffix!r}; known endings: {', '.join(ENDINGS)}")
    if path.suffix.lower() == ".mp4":
        try:
            import imageio_ffmpeg  # noqa: F401
        except ImportError:
            raise ValueError(
                f"{path}: a film needs the package imageio-ffmpeg: pip install 'ff3d[video]'; or name a .gif"
            ) from None


def save_turntable(
    shapes: Sequence[tuple[str, Trimesh]],
    path: str | Path,
    *,
    frames: int = 72,
    rate: float = 24.0,
    size: int = 480,
    elevation: float = 20.0,
    up: str = "y",
    progress: bool = False,
) -> None:
    """Write shapes side by side that turn once about the axis that points up; names below, where there are several.

    path: .mp4: a film; .gif; .png: a still picture, the first frame.  frames: of the turn, shown at `rate` a second.
    size: pixels, the side of each shape's part.  elevation: degrees that the eye is above them.
    Each turns about its own middle; those of about the same size are seen from the same distance.
    Raises ValueError for another ending, no shapes, or numbers out of range.
    """
    path = Path(path)
    check_film(path)
    if not shapes or frames < 1 or not 1 <= rate <= 100 or not 16 <= size <= 4096 or not -90 < elevation < 90:
        raise ValueError(
            "a turntable has at least one shape and frame, a rate of 1 to 100, a size of 16 to 4096 pixels and an "
            f"elevation between -90 and 90 degrees, got {len(shapes)}, {frames}, {rate:g}, {size}, {elevation:g}"
        )
    size += size % 2  # films have even sides
    count = 1 if path.suffix.lower() == ".png" else frames
    pictures = _pictures(shapes, count, size, elevation, up)
    bar = tqdm(pictures, total=count, desc="turntable", unit=" frames", disable=not progress)
    write_pictures(bar, path, rate)


def write_pictures(pictures: Iterable[Picture], path: Path, rate: float) -> None:
    """Write pictures of one size as a film or an animated picture, by the ending; .png takes a single one."""
    {".mp4": _write_film, ".gif": _write_gif, ".png": _write_still}[path.suffix.lower()](pictures, path, rate)


def _pictures(
    shapes: Sequence[tuple[str, Trimesh]], count: int, size: int, elevation: float, up: str
) -> Iterator[Picture]:
    cameras = [_camera(mesh, elevation, up) for _, mesh in shapes]
    widths = [camera.width for camera in cameras]
    if max(widths) <= ALIKE * min(widths):
        widths = [max(widths)] * len(widths)
    labels = [name_band(name, size) for name, _ in shapes]
    for number in range(count):
        azimuth = np.radians(35.0 + 360.0 * number / count)
        row = []
        for (_, mesh), camera, width, label in zip(shapes, cameras, widths, labels, strict=True):
            turned = replace(camera, direction=_direction(azimuth, elevation, up), width=width)
            picture = render(mesh, turned, size=(size, size))
            row.append(np.concatenate([picture, label]) if len(shapes) > 1 else picture)
        yield np.concatenate(row, axis=1)


def _direction(azimuth: float, elevation: float, up: str) -> tuple[float, float, float]:
    """From the shape to the eye, radians and degrees; as of `Camera.framing`."""
    height = np.radians(elevation)
    x, y, z = np.sin(azimuth) * np.cos(height), np.sin(height), np.cos(azimuth) * np.cos(height)
    return (float(x), float(y), float(z)) if up == "y" else (float(x), float(-z), float(y))


def _camera(mesh: Trimesh, elevation: float, up: str) -> Camera:
    """The camera that has all of a shape in view however it turns."""
    axis = 1 if up == "y" else 2
    others = [i for i in range(3) if i != axis]
    vertices: Floats = np.asarray(mesh.vertices, dtype=np.float64)[np.unique(mesh.faces)]
    middle = (vertices.min(axis=0) + vertices.max(axis=0)) / 2
    radius = np.linalg.norm((vertices - middle)[:, others], axis=1)
    low, high = vertices[:, axis].min(), vertices[:, axis].max()
    ring = np.minimum(((vertices[:, axis] - low) / ((high - low) or 1.0) * RINGS).astype(int), RINGS - 1)
    reach = np.zeros(RINGS)
    np.maximum.at(reach, ring, radius)
    turn = 2 * np.pi * np.arange(RING) / RING
    edges = np.linspace(low, high, RINGS + 1)
    points = np.empty((RINGS, 2, RING, 3))
    points[..., axis] = np.stack([edges[:-1], edges[1:]], axis=1)[..., None]
    for i, wave in zip(others, (np.cos, np.sin), strict=True):
        points[..., i] = middle[i] + reach[:, None, None] * wave(turn)
    upward = (0.0, 1.0, 0.0) if up == "y" else (0.0, 0.0, 1.0)
    return Camera.framing(points.reshape(-1, 3), azimuth=0.0, elevation=elevation, up=upward)


def name_band(name: str, size: int) -> Picture:
    """A shape's name on a band that goes below it."""
    from PIL import Image, ImageDraw, ImageFont

    image = Image.new("RGB", (size, BAND), "white")
    font = ImageFont.load_default(18)
    ImageDraw.Draw(image).text((size / 2, BAND / 2), name, fill=(97, 97, 107), font=font, anchor="mm")
    return np.asarray(image)


def _write_still(pictures: Iterable[Picture], path: Path, rate: float) -> None:
    (picture,) = pictures
    save_picture(picture, path)


def _write_gif(pictures: Iterable[Picture], path: Path, rate: float) -> None:
    from PIL import Image

    images = [Image.fromarray(picture).quantize(128) for picture in pictures]
    with write_atomically(path) as temporary:
        images[0].save(
            temporary, append_images=images[1:], duration=round(1000 / rate), loop=0, comment=MARK, save_all=True
        )


def _write_film(pictures: Iterable[Picture], path: Path, rate: float) -> None:
    import imageio_ffmpeg

    with write_atomically(path) as temporary:
        writer = None
        for picture in pictures:
            if writer is None:
                height, width = picture.shape[:2]
                writer = imageio_ffmpeg.write_frames(
                    str(temporary), (width, height), fps=rate, quality=8, macro_block_size=2
                )
                writer.send(None)
            writer.send(np.ascontiguousarray(picture))
        if writer is not None:
            writer.close()
        with temporary.open("ab") as file:  # a box that players skip: by it ff3d knows the file as its own
            file.write(struct.pack(">I4s", 8 + len(MARK), b"free") + MARK)
