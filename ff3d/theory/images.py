"""A network fitted to a picture: (x, y) -> RGB, under each mapping. Tancik et al. 2020, arXiv:2006.10739, section 6.1.

The shortest way to see why a mapping matters: the same network, with raw coordinates, gives a blurred picture.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  (torch's own name for it)
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from ff3d.checks import check_settings
from ff3d.fields.checkpoint import Progress
from ff3d.fields.config import (
    GRID_MAPPINGS,
    PAPER_MAPPINGS,
    TABLE_LIMITS,
    Budget,
    MappingConfig,
    MappingName,
    NetworkConfig,
    OptimiserConfig,
    Schedule,
)
from ff3d.fields.mapping import InputMapping, Mapping, RawCoordinates, build_mapping
from ff3d.fields.network import Network, resolve_device
from ff3d.fields.optimise import Draw, Pool, optimise
from ff3d.geometry.arrays import Singles
from ff3d.geometry.cores import available_memory
from ff3d.theory.pictures import Picture, PictureError, fitted_shape, fitted_to, load_picture, psnr, ssim

Preset = Literal["paper", "lecture", "fast"]
Kind = Literal["auto", "natural", "text"]
BATCH = 2**13
BLOCK = 2**15  # pixels predicted at once
EVERY_BATCH = 10**9  # passes over the one pool that holds all training pixels
EVEN, ODD = (slice(0, None, 2),) * 2, (slice(1, None, 2),) * 2  # pixels trained on, and held out, where some are
KEPT_BYTES = 42  # of a pixel, of each fit: ten snapshots, and the picture at the end as float32
PAGE_BYTES = 160  # of a pixel, while the report is made: spectra in complex128
MOMENTS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0)  # shares of the budget
SCALED: tuple[MappingName, ...] = ("gaussian", "lecture", "learned")  # mappings whose scale is a standard deviation
# What Tancik et al. 2020 report, table 1: mean PSNR in dB over 16 images each
PUBLISHED = {
    "natural": {"none": 19.3, "basic": 21.7, "positional": 25.0, "gaussian": 25.6},
    "text": {"none": 18.4, "basic": 20.5, "positional": 27.6, "gaussian": 30.5},
}


@dataclass(frozen=True)
class ImageConfig:
    """How a picture is fitted; `image_config` makes one from a preset."""

    preset: Preset = "fast"
    mapping: MappingConfig = field(default_factory=MappingConfig)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    budget: Budget = field(default_factory=Budget)
    learning_rate: float | None = None
    """Adam's at the start; None for the mapping's own"""
    schedule: Schedule = "cosine"
    batch_size: int | None = BATCH
    """pixels in a step; None, or more than there are, for all"""
    held_out: bool = True
    """train on the even pixels alone (every second of every second row), and test on the odd ones"""
    notebook: bool = False
    """features as in the authors' notebook: x itself for none, sines and cosines not divided by sqrt(m)"""
    size: int = 512
    """pixels along the longest side, at most"""
    square: bool = False
    """the picture's middle, square, of exactly `size`"""
    seed: int = 0
    device: str = "auto"

    def __post_init__(self) -> None:
        check_settings(self, positive=("size", "batch_size", "learning_rate"))

    @property
    def title(self) -> str:
        """The mapping, with its scale."""
        return self.mapping.name + (f" {self.mapping.scale:g}" if self.mapping.scale else "")


@dataclass(frozen=True, eq=False)
class ImagePlan:
    """What `plan_images` returns. picture: as it is fitted.  configs: of each fit, in their order."""

    picture: Picture
    configs: tuple[ImageConfig, ...]


class ImageObserver:
    """What is told how fits to a picture go; a subclass shows it."""

    def begin(self, truth: Picture, config: ImageConfig) -> None:
        """A fit begins, to the picture as it is fitted."""

    def paused(self, network: Network, progress: Progress) -> bool:
        """Between two steps, four times a second, on the budget's time; True ends the fit as Ctrl-C does."""
        return False

    def evaluated(self, pixels: NDArray[np.uint8], progress: Progress) -> None:
        """The picture (h, w, 3) after each evaluation, the last row of `progress.history`; not on the budget's time."""


@dataclass(frozen=True, eq=False)
class Snapshot:
    """The picture at a moment of the fit: bytes (h, w, 3), and its row of scores."""

    pixels: NDArray[np.uint8]
    row: dict[str, float]


@dataclass(frozen=True, eq=False)
class ImageFit:
    """What `fit_image` returns. picture: the truth, as fitted.  snapshots: at `MOMENTS`, the last one at the end."""

    picture: Picture
    network: Network
    config: ImageConfig
    progress: Progress
    snapshots: tuple[Snapshot, ...]

    @cached_property
    def pixels(self) -> Singles:
        """The fitted picture (h, w, 3)."""
        return predict(self.network, self.picture.pixels.shape[:2])

    @property
    def scale(self) -> float | None:
        """The mapping's scale in cycles per longest side, None where it has none."""
        return self.config.mapping.scale

    @property
    def title(self) -> str:
        """The mapping, with its scale."""
        return self.config.title

    def to_json(self) -> dict[str, Any]:
        """A row: settings, scores at the end, and at each moment."""
        last = self.snapshots[-1].row
        return {
            "picture": self.picture.name,
            "size": [self.picture.pixels.shape[1], self.picture.pixels.shape[0]],
            "preset": self.config.preset,
            "mapping": self.config.mapping.name,
            "scale": self.scale,
            "seed": self.config.seed,
            "parameters": self.network.parameter_count,
            "precision": self.network.precision,
            **last,
            "ssim": round(ssim(self.pixels, self.picture.pixels), 5),
            "finished": self.progress.finished,
            "curve": [snapshot.row for snapshot in self.snapshots],
        }


def image_config(
    preset: Preset = "fast", mapping: MappingName | None = None, *, kind: Kind = "natural", **settings: Any
) -> ImageConfig:
    """The settings of a preset, and what is given beside it.

    - `paper`: Tancik et al. 2020, sections 6.1 and E.1, and their notebook: the middle square at 512^2, trained on the
      even pixels, all in each step, tested on the odd ones; 3 hidden layers of 256; Adam at 1e-3 (natural: none and
      basic 1e-2) for 2,000 steps; float32. Positional: 128 frequencies an axis to 2^6 - 1 (text: 2^5 - 1); Gaussian:
      256 of standard deviation 10 (text: 14).
    - `lecture`: two hidden layers of 256 under sin(2 pi s x b), s = 10, for 2,000 steps, on random batches of all
      pixels; nothing is held out.
    - `fast`: trained and tested on the pixels that `paper` does, but of any shape, in random batches, with ff3d's own
      learning rates, in bfloat16, for 20 s.

    settings: scale, steps, seconds, size, seed, device, and learning_rate, batch_size, frequencies, width, depth,
    precision.
    Raises ValueError for an unknown preset or setting, or one out of range.
    """
    text = kind == "text"
    name = mapping or ("lecture" if preset == "lecture" else "gaussian")
    usual: dict[str, Any]
    if preset == "paper":
        usual = {"steps": 2000, "learning_rate": 1e-2 if not text and name in ("none", "basic") else 1e-3}
        usual |= {"depth": 3, "precision": "float32", "batch_size": None, "schedule": "constant"}
        usual |= {"notebook": True, "square": True}
        usual["scale"] = {"positional": 32.0 if text else 64.0, "gaussian": 14.0 if text else 10.0}.get(name)
    elif preset == "lecture":
        usual = {"steps": 2000, "depth": 2, "held_out": False}
    elif preset == "fast":
        usual = {"seconds": 20.0, "depth": None if name in GRID_MAPPINGS else 3}
    else:
        raise ValueError(f"unknown preset {preset!r}; known: paper, lecture, fast")
    if unknown := sorted(set(settings) - set(SETTINGS)):
        raise ValueError(f"unknown setting {', '.join(unknown)}; known: {', '.join(SETTINGS)}")
    given = {key: value for key, value in settings.items() if value is not None}
    if {"steps", "seconds"} & set(given):
        usual = {key: value for key, value in usual.items() if key not in ("steps", "seconds")}
    chosen = {"scale": 10.0 if name in SCALED else None} | usual | given
    parts: dict[str, dict[str, Any]] = {"mapping": {}, "network": {}, "budget": {}, "": {}}
    for key, value in chosen.items():
        parts[SETTINGS.get(key, "")][key] = value
    parts["mapping"] |= {"name": name, "notebook": preset == "paper"}
    if name in GRID_MAPPINGS and name != "planes":
        finest = min(max(16, chosen.get("size", 512) // 2), TABLE_LIMITS["finest"])
        parts["mapping"] |= {"levels": 6, "coarsest": 16, "finest": finest}
    return ImageConfig(
        preset,
        MappingConfig(**parts["mapping"]),
        NetworkConfig(**parts["network"]),
        Budget(**parts["budget"]),
        **parts[""],
    )


# What `image_config` takes, and the part of `ImageConfig` it belongs to.
SETTINGS = {"scale": "mapping", "frequencies": "mapping", "steps": "budget", "seconds": "budget"}
SETTINGS |= {"width": "network", "depth": "network", "precision": "network"}
SETTINGS |= dict.fromkeys(("learning_rate", "batch_size", "size", "seed", "device"), "")


def mappings_of(preset: str) -> tuple[MappingName, ...]:
    """The mappings that a preset compares unless others are named."""
    if preset == "lecture":
        return "none", "lecture"
    return (*PAPER_MAPPINGS, "hash") if preset == "fast" else PAPER_MAPPINGS


def planned_fits(
    mappings: Sequence[MappingName], scales: Sequence[float], preset: str
) -> list[tuple[MappingName, float | None]]:
    """The mappings and scales (None: the mapping's own) that `fit_images` fits, in its order."""
    names = tuple(mappings) or mappings_of(preset)
    fits: list[tuple[MappingName, float | None]] = [(name, None) for name in names]
    return fits + [(name, float(scale)) for name in names if name in SCALED for scale in scales]


def coordinates(height: int, width: int) -> Singles:
    """(x, y) of each pixel, rows from the top, over the longest side: (h w, 2) float32 in [0, 1)."""
    longest = max(height, width)
    x, y = np.meshgrid(np.arange(width) / longest, np.arange(height) / longest)
    return np.stack([x, y], axis=-1).reshape(-1, 2).astype(np.float32)


@torch.no_grad()
def predict(network: Network, shape: tuple[int, int]) -> Singles:
    """The picture (h, w, 3) that a network of pixel coordinates gives."""
    points = torch.from_numpy(coordinates(*shape))
    blocks = [network(block.to(network.device)).sigmoid().cpu() for block in points.split(BLOCK)]
    return torch.cat(blocks).reshape(*shape, 3).numpy()


def memory_needed(height: int, width: int, config: ImageConfig, fits: int = 1) -> int:
    """Bytes that so many fits take, about: the pixels, what is kept of each fit, and a step's numbers or the page's."""
    pixels = height * width
    trained = pixels // 4 if config.held_out else pixels
    batch = max(min(config.batch_size or trained, trained), BLOCK)
    depth, wide = config.network.hidden_layers(config.mapping.name), config.network.width or 256
    features = 3 * 4 * (2 * config.mapping.frequencies + (depth + 1) * wide)  # and gradients, and what products need
    return pixels * (4 * 3 * 4 + 2 * 4 * 2 + KEPT_BYTES * fits) + max(batch * features, pixels * PAGE_BYTES)


def fit_image(
    picture: Picture | str | Path | ArrayLike,
    mapping: MappingName | None = None,
    *,
    preset: Preset = "fast",
    kind: Kind = "auto",
    max_memory: int | None = None,
    progress_bar: bool = False,
    observer: ImageObserver | None = None,
    **settings: Any,
) -> ImageFit:
    """Fit a network to a picture: `ff3d.fit_image("astronaut", "gaussian", scale=10, steps=2000)`.

    picture: what `load_picture` takes.  mapping: any but planes; by default gaussian, and lecture under that preset.
    preset and settings: those of `image_config`.  kind: which of the paper's two sets a picture is like, whose settings
    `paper` takes; auto: text for ff3d's own text.
    max_memory: bytes; by default what is available. Compared before the work begins.  observer: see `ImageObserver`.
    Raises PictureError for a picture that cannot be used, ValueError for settings, FitError if the loss diverges.
    """
    settings |= {"preset": preset, "kind": kind, "max_memory": max_memory}
    plan = plan_images(picture, [(mapping, settings.pop("scale", None))], **settings)
    return _fitted(plan.picture, plan.configs[0], progress_bar, observer)


def plan_images(
    picture: Picture | str | Path | ArrayLike,
    fits: Sequence[tuple[MappingName | None, float | None]],
    *,
    preset: Preset = "fast",
    kind: Kind = "auto",
    max_memory: int | None = None,
    **settings: Any,
) -> ImagePlan:
    """Fits of these mappings and scales, once each, all settings and the device checked. Raises as `fit_image`."""
    available = available_memory() if max_memory is None else max_memory
    truth = picture if isinstance(picture, Picture) else load_picture(picture, max_memory=available)
    kind = kind_of(truth, kind)
    first = image_config(preset, fits[0][0], kind=kind, **settings)
    height, width = fitted_shape(truth, first.size, square=first.square)
    size = max(height, width)  # of a small picture less than is given, and its tables are no finer
    configs: dict[tuple[str, float | None], ImageConfig] = {}
    for mapping, scale in fits:
        config = image_config(preset, mapping, kind=kind, scale=scale, **settings | {"size": size})
        configs.setdefault((config.mapping.name, config.mapping.scale), config)
    needed = max(memory_needed(height, width, config, len(configs)) for config in configs.values())
    if needed > available:
        series = f"a series of {len(configs)} fits" if len(configs) > 1 else "a fit"
        raise PictureError(
            f"{truth.name}: {series} of {height * width / 1e6:.1f} megapixels takes about {needed / 1e9:.1f} GB, and "
            f"{available / 1e9:.1f} GB are available; give a smaller size (now {size}) or batch size"
        )
    for config in configs.values():
        mapping_of(config)
        resolve_device(config.device, config.network)
    return ImagePlan(fitted_to(truth, size, square=first.square), tuple(configs.values()))


def _fitted(truth: Picture, config: ImageConfig, progress_bar: bool, observer: ImageObserver | None) -> ImageFit:
    """A network fitted to a picture that has the size of the settings."""
    height, width = truth.pixels.shape[:2]
    device, precision = resolve_device(config.device, config.network)
    mapped = mapping_of(config)
    network = Network(
        mapped,
        width=config.network.hidden_width(mapped.name, mapped.features),
        depth=config.network.hidden_layers(mapped.name),
        outputs=3,
        activation=config.network.activation,
        initialisation=config.network.initialisation,
        precision=precision,
        seed=config.seed,
    ).to(device)
    pixels, optimiser = _training_pixels(truth.pixels, config)
    snapshots: list[Snapshot] = []
    watching = observer or ImageObserver()
    watching.begin(truth, config)

    def evaluate() -> dict[str, float]:
        pixels = predict(network, (height, width))
        scores = {"psnr_train": psnr(*(_even(it, config) for it in (pixels, truth.pixels)))}
        if config.held_out:
            scores["psnr_test"] = psnr(pixels[ODD], truth.pixels[ODD])
        snapshots.append(Snapshot(to_bytes(pixels), scores))
        return scores

    progress = optimise(
        network,
        pixels,
        optimiser,
        config.budget,
        loss=half_square,
        evaluate=evaluate,
        evaluations=MOMENTS,
        on_evaluation=lambda progress: watching.evaluated(snapshots[-1].pixels, progress),
        on_pause=lambda progress: watching.paused(network, progress),
        title=config.mapping.name if progress_bar else "",
    )
    if not progress.finished:
        progress.record(optimiser.batch_size, evaluate())
        watching.evaluated(snapshots[-1].pixels, progress)
    taken = [
        replace(it, row={"step": at["step"], "seconds": at["seconds"], "loss": at["loss"]} | it.row)
        for it, at in zip(snapshots, progress.history, strict=True)
    ]
    return ImageFit(truth, network, config, progress, tuple(taken))


def fit_images(
    picture: Picture | str | Path | ArrayLike | ImagePlan,
    mappings: Sequence[MappingName] = (),
    scales: Sequence[float] = (),
    *,
    preset: Preset = "fast",
    on_fit: Callable[[list[ImageFit]], None] | None = None,
    progress_bar: bool = False,
    observer: ImageObserver | None = None,
    **settings: Any,
) -> list[ImageFit]:
    """`fit_image` for several mappings, by default the preset's, and for each of `SCALED` among them at these scales.

    picture: or a plan, in place of all settings.  on_fit: called with the fits so far after each.  An interrupted fit
    is the last.  All settings are checked before the first fit; raises as `fit_image`.
    """
    planned = planned_fits(mappings, scales, preset)
    plan = picture if isinstance(picture, ImagePlan) else plan_images(picture, planned, preset=preset, **settings)
    fits: list[ImageFit] = []
    for config in plan.configs:
        fits.append(_fitted(plan.picture, config, progress_bar, observer))
        if on_fit:
            on_fit(fits)
        if fits[-1].progress.interrupted:
            break
    return fits


def kind_of(picture: Picture, kind: Kind) -> Kind:
    """Whether a picture is natural or text, where `auto` leaves that open."""
    return kind if kind != "auto" else "text" if picture.is_text else "natural"


def half_square(outputs: Tensor, targets: Tensor) -> Tensor:
    """Half the mean square error of sigmoid(outputs), the paper's loss."""
    return 0.5 * F.mse_loss(outputs.sigmoid(), targets)


def to_bytes(pixels: Singles) -> NDArray[np.uint8]:
    """Pixels in [0, 1] to 0..255; what is not a number, of a fit that diverges, is black."""
    return np.rint(np.clip(np.nan_to_num(pixels), 0, 1) * 255).astype(np.uint8)


def mapping_of(config: ImageConfig) -> Mapping:
    """The mapping of a picture's coordinates. Raises ValueError for planes."""
    if config.mapping.name == "planes":
        raise ValueError("planes are of three dimensions; take grid or hash for pictures")
    if config.notebook and config.mapping.name == "none":
        return RawCoordinates(2)
    mapping = build_mapping(config.mapping, seed=config.seed, dimension=2)
    if config.notebook and isinstance(mapping, InputMapping):
        mapping.amplitudes = torch.ones(len(mapping.frequencies))
    return mapping


def _even(pixels: Singles, config: ImageConfig) -> Singles:
    """The pixels that are trained on."""
    return pixels[EVEN] if config.held_out else pixels


def optimiser_of(config: ImageConfig, trained: int) -> OptimiserConfig:
    """The optimiser's settings for so many pixels to be trained on: all of them in a step, or random batches."""
    rate, schedule, batch = config.learning_rate, config.schedule, config.batch_size
    if batch is None or batch >= trained:
        return OptimiserConfig(trained, rate, schedule, pool_size=trained, passes=EVERY_BATCH)
    return OptimiserConfig(batch, rate, schedule, pool_size=64 * batch, passes=1)


def _training_pixels(pixels: Singles, config: ImageConfig) -> tuple[Draw, OptimiserConfig]:
    """What draws pools for `optimise`, and its settings."""
    places = _even(coordinates(*pixels.shape[:2]).reshape(*pixels.shape[:2], 2), config).reshape(-1, 2)
    whole = Pool(np.ascontiguousarray(places), np.ascontiguousarray(_even(pixels, config).reshape(-1, 3)))
    optimiser = optimiser_of(config, len(places))

    def draw(index: int, count: int) -> Pool:
        chosen = np.random.default_rng([config.seed, index]).integers(0, len(places), count)
        return Pool(whole.points[chosen], whole.targets[chosen])

    return (lambda _, __: whole) if optimiser.passes == EVERY_BATCH else draw, optimiser
