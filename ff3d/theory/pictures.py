"""Pictures: read from files, taken from scikit-image, or rendered; how near two are, and what of a spectrum is missing.

Pixels are (h, w, 3) float32, sRGB as stored, in [0, 1].
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, replace
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ff3d.geometry.arrays import Floats, Singles

# Photographs inside scikit-image's wheel (its skimage/data/README.txt has the licences); nothing is downloaded.
PHOTOGRAPHS = (
    *("astronaut", "camera", "chelsea", "coffee", "motorcycle_left", "rocket"),
    *("brick", "grass", "gravel", "hubble_deep_field", "ihc", "moon", "retina"),
)
TEXTS = "text-0, text-1, ..."
ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".gif")  # by which a picture's file is known
SMALLEST = 8  # pixels a side: SSIM compares windows of 7
TEXT_SIZE = 512
LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"


class PictureError(ValueError):
    """A picture that cannot be used; the message says why, and what to do."""


@dataclass(frozen=True, eq=False)
class Picture:
    """pixels: (h, w, 3) float32 in [0, 1].  notes: what was changed to make them so.  is_text: ff3d rendered it."""

    name: str
    pixels: Singles
    notes: tuple[str, ...] = ()
    is_text: bool = False


def is_picture(source: str) -> bool:
    """Whether this is a name of a picture that `load_picture` knows, or of a file with a picture's ending."""
    return source in PHOTOGRAPHS or _is_text_name(source) or Path(source).suffix.lower() in ENDINGS


def _is_text_name(name: str) -> bool:
    """Whether this is text-SEED."""
    return name.startswith("text-") and name.removeprefix("text-").isdecimal()


def load_picture(source: str | Path | ArrayLike, *, max_memory: int | None = None) -> Picture:
    """A picture from a file that Pillow reads, by name (`PHOTOGRAPHS`, text-SEED), or from an array.

    An array is (h, w), (h, w, 1), (h, w, 3) or (h, w, 4): uint8, uint16, bool, or floating-point in [0, 1]. Grey
    becomes three equal channels, transparency is laid over white, 16 bits stay 16 bits where the file is grey (Pillow
    reads colours in 8), of an animation the first frame is taken; notes say so.
    max_memory: bytes that reading may take, compared before a pixel is decoded; None for no limit.
    Raises PictureError for what is no picture, a missing file, fewer than 8 pixels a side, values out of range, and
    more memory than that.
    """
    if not isinstance(source, str | Path):
        return _from_array(np.asarray(source), "array")
    name = str(source)
    if _is_text_name(name):
        return text_picture(int(name.removeprefix("text-")))
    if name in PHOTOGRAPHS:
        folder = files("skimage") / "data"
        for ending in ("png", "jpg"):
            if (folder / f"{name}.{ending}").is_file():
                with as_file(folder / f"{name}.{ending}") as path:
                    return replace(_from_file(path, max_memory), name=name)
        raise PictureError(f"{name}: this version of scikit-image does not ship it; give a file")
    path = Path(source)
    if not path.exists():
        raise PictureError(f"{name}: no such file; give a picture, or a name: {', '.join(PHOTOGRAPHS)}, {TEXTS}")
    return _from_file(path, max_memory)


def _from_file(path: Path, max_memory: int | None) -> Picture:
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            # of many pixels; here their memory is worked out before they are decoded
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                width, height = image.size
                needed = (60 if _is_transparent(image) else 24) * width * height  # decoded, and as float32
                if max_memory is not None and needed > max_memory:
                    raise PictureError(
                        f"{path}: {width * height / 1e6:.0f} megapixels take {needed / 1e9:.1f} GB to read, and "
                        f"{max_memory / 1e9:.1f} GB are available; make the picture smaller, or give more memory"
                    )
                notes = ["an animation: its first frame"] if getattr(image, "n_frames", 1) > 1 else []
                upright: Any = ImageOps.exif_transpose(image)
                array = _decoded(upright)
    except UnidentifiedImageError as error:
        raise PictureError(f"{path}: not a picture that Pillow reads; give a PNG, JPEG, TIFF, WebP, ...") from error
    except Image.DecompressionBombError as error:
        raise PictureError(f"{path}: {str(error).split(',', maxsplit=1)[0]}; make the picture smaller") from error
    except (OSError, SyntaxError, EOFError) as error:  # SyntaxError: what Pillow raises for some broken PNGs
        raise PictureError(f"{path}: cannot be read ({str(error).splitlines()[0]})") from error
    picture = _from_array(array, path.stem)
    return replace(picture, notes=(*notes, *picture.notes))


def _decoded(image: Any) -> NDArray[Any]:
    """The pixels of a Pillow image: grey, grey with alpha, RGB or RGBA."""
    if image.mode.startswith("I"):  # 16 bits a pixel; Pillow holds some of them in 32
        array = np.asarray(image)
        if array.min() < 0 or array.max() > 2**16 - 1:
            raise PictureError(f"values must be from 0 to 65,535, got {array.min()} to {array.max()}; store 16 bits")
        return array.astype(np.uint16)
    if image.mode == "F":
        return np.asarray(image)
    transparent = _is_transparent(image)
    if image.mode in ("1", "L") and not transparent:
        return np.asarray(image.convert("L"))
    return np.asarray(image.convert("RGBA" if transparent else "RGB"))


def _is_transparent(image: Any) -> bool:
    """Whether a Pillow image has an alpha channel, or a colour that stands for none."""
    return image.mode in ("LA", "PA", "RGBA", "RGBa", "La") or "transparency" in image.info


def _from_array(array: NDArray[Any], name: str) -> Picture:
    """A picture of an array of pixels. Raises as `load_picture`."""
    notes = []
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (3, 4)):
        raise PictureError(f"{name}: pixels must be (h, w), (h, w, 3) or (h, w, 4), got {array.shape}")
    if min(array.shape[:2]) < SMALLEST:
        shape = f"{array.shape[1]} x {array.shape[0]}"
        raise PictureError(f"{name}: a picture must have at least {SMALLEST} x {SMALLEST} pixels, got {shape}")
    if array.dtype.kind == "f":
        if not (np.isfinite(array).all() and array.min() >= 0 and array.max() <= 1):
            span = f"{array.min():g} to {array.max():g}"
            raise PictureError(f"{name}: floating-point pixels must be from 0 to 1, got {span}; scale them")
        values = array.astype(np.float32)
    elif array.dtype.kind in "ub" and array.dtype.itemsize <= 2:
        largest = 1 if array.dtype == bool else np.iinfo(array.dtype).max
        values = array.astype(np.float32) / np.float32(largest)
    else:
        raise PictureError(f"{name}: pixels must be uint8, uint16 or floating-point, got {array.dtype}")
    if array.dtype == np.uint16:
        notes.append("16 bits a channel")
    if values.ndim == 2:
        notes.append("grey: three equal channels")
        values = np.repeat(values[..., None], 3, axis=2)
    elif values.shape[2] == 4:
        if values[..., 3].min() < 1:
            notes.append("transparent pixels laid over white")
        values = values[..., :3] * values[..., 3:] + (1 - values[..., 3:])
    return Picture(name, values, tuple(notes))


def text_picture(seed: int, size: int = TEXT_SIZE) -> Picture:
    """Words of random letters, sizes, colours and places on one colour, after the text images of Tancik et al. 2020.

    By Pillow's own font; the same seed and Pillow give the same pixels.
    """
    from PIL import Image, ImageDraw, ImageFont

    rng = np.random.default_rng(seed)
    image = Image.new("RGB", (size, size), _color(rng))
    draw = ImageDraw.Draw(image)
    for _ in range(24):
        word = "".join(rng.choice(list(LETTERS), int(rng.integers(2, 10))))
        font = ImageFont.load_default(float(size * rng.uniform(0.03, 0.16)))
        draw.text((rng.uniform(-0.1, 0.9) * size, rng.uniform(-0.05, 0.95) * size), word, fill=_color(rng), font=font)
    return Picture(f"text-{seed}", np.asarray(image, dtype=np.float32) / np.float32(255), is_text=True)


def _color(rng: np.random.Generator) -> tuple[int, int, int]:
    red, green, blue = (int(it) for it in rng.integers(0, 256, 3))
    return red, green, blue


def fitted_shape(picture: Picture, size: int, *, square: bool) -> tuple[int, int]:
    """The height and width of `fitted_to` of these arguments."""
    height, width = (size, size) if square else picture.pixels.shape[:2]
    longest = max(height, width)
    if not square and longest <= size:
        return height, width
    return max(SMALLEST, round(height * size / longest)), max(SMALLEST, round(width * size / longest))


def fitted_to(picture: Picture, size: int, *, square: bool) -> Picture:
    """The picture with its longest side `size` pixels at most; or its middle, square, of exactly `size` a side."""
    height, width = picture.pixels.shape[:2]
    pixels, notes = picture.pixels, list(picture.notes)
    if square and height != width:
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        pixels = pixels[top : top + side, left : left + side]
        notes.append(f"its middle {side} x {side} of {width} x {height}")
    height, width = fitted_shape(picture, size, square=square)
    if (height, width) != pixels.shape[:2]:
        pixels = _resized(pixels, height, width)
        notes.append(f"resized to {width} x {height}")
    return replace(picture, pixels=pixels, notes=tuple(notes))


def _resized(pixels: Singles, height: int, width: int) -> Singles:
    """By Lanczos's filter, in floating point."""
    from PIL import Image

    planes = [Image.fromarray(np.ascontiguousarray(it)) for it in np.moveaxis(pixels, 2, 0)]
    planes = [it.resize((width, height), Image.Resampling.LANCZOS) for it in planes]
    return np.clip(np.stack([np.asarray(it) for it in planes], axis=2), 0, 1)


def psnr(picture: Singles, truth: Singles) -> float:
    """Peak signal-to-noise ratio of pixels in [0, 1], any shape, in decibels: -10 log10 of the mean square error."""
    error = float(np.mean((np.asarray(picture, dtype=np.float64) - truth) ** 2))
    return math.inf if error == 0 else -10 * math.log10(error)


def ssim(picture: Singles, truth: Singles) -> float:
    """Structural similarity of two pictures (h, w, 3), 1 if they are equal. Wang et al. 2004; scikit-image's, 7 x 7."""
    from skimage.metrics import structural_similarity

    return float(structural_similarity(picture, truth, channel_axis=2, data_range=1.0))


def power_spectrum(pixels: Singles) -> Floats:
    """|FFT|^2 of a picture (h, w, 3), its mean over the channels (h, w), frequency 0 in the middle.

    Parseval: its sum is h w times the sum of the squares of the pixels, over the three channels' number.
    """
    transforms = np.fft.fft2(np.asarray(pixels, dtype=np.float64), axes=(0, 1))
    return np.asarray(np.fft.fftshift((np.abs(transforms) ** 2).mean(axis=2)))


def missing_energy(picture: Singles, truth: Singles, rings: int = 24) -> tuple[Floats, Floats]:
    """Of each ring of frequencies: its middle, cycles along the longest side, and the error's energy over the truth's.

    0: that ring is right; 1: the picture has nothing there, or as much wrong as there is to find. Up to Nyquist's
    frequency, without frequency 0; rings in which the truth has no energy are left out.
    """
    height, width = truth.shape[:2]
    longest = max(height, width)
    rows, columns = (np.fft.fftshift(np.fft.fftfreq(count)) * longest for count in (height, width))
    radius = np.hypot(rows[:, None], columns)
    edges = np.geomspace(0.5, longest / 2, rings + 1)
    ring = np.digitize(radius, edges).ravel()
    error, actual = (np.bincount(ring, power_spectrum(it).ravel(), rings + 2)[1:-1] for it in (picture - truth, truth))
    there = actual > 1e-9 * actual.sum()
    return np.sqrt(edges[1:] * edges[:-1])[there], error[there] / actual[there]
