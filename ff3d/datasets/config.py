"""What a training set holds: its layout, its sets of points and their numbers, and what is known of each point."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any, Literal, get_args

from ff3d.checks import check_seed
from ff3d.points.config import SamplingConfig

LayoutName = Literal["ff3d", "occnet", "3dshape2vecset", "dora", "hunyuan"]
SetName = Literal["mixed", "volume", "near", "sharp", "surface", "salient"]
Target = Literal["occupancy", "signed", "unsigned"]

QUERIES = ("mixed", "volume", "near", "sharp")  # sets of points with a target; the others have normals
VERSION = 2  # of what `prepare` writes; sets of another one are made again
POINTS = 100_000  # of each set of the layout ff3d
RESOLUTION = 512  # of the mesh that is closed first


@dataclass(frozen=True)
class Layout:
    """What a project's loader reads. Lengths are in the coordinates that are written.

    counts: the sets that it can hold, and how many points each has.  usual: those that are written by default.
    half: half the longest side of the shape's box.  reach: half the side of the cube about the origin that `volume` is
    drawn from; None: the shape's box with a margin.  near, sharp: widths of the noise.  angle: degrees between faces
    from which on an edge is salient.  half_precision: float16 for what is written.  targets: the first is the default.
    category: of the layouts whose shapes lie in a folder for each category, the default one.
    """

    counts: MappingProxyType[SetName, int]
    usual: tuple[SetName, ...]
    half: float
    reach: float | None
    near: tuple[float, ...]
    sharp: tuple[float, ...]
    angle: float
    half_precision: bool
    targets: tuple[Target, ...]
    category: str | None = None


def _layout(counts: dict[SetName, int], **settings: Any) -> Layout:
    usual: Any = {"counts": MappingProxyType(counts), "usual": tuple(counts), "half_precision": False}
    return Layout(**usual | settings)


LAYOUTS: dict[LayoutName, Layout] = {
    "ff3d": _layout(
        dict.fromkeys(get_args(SetName), POINTS),
        usual=("mixed",),
        half=0.45,
        reach=None,
        near=SamplingConfig.widths,
        sharp=SamplingConfig.widths,
        angle=30.0,
        targets=("occupancy", "signed", "unsigned"),
    ),
    "occnet": _layout(
        {"volume": 100_000, "near": 100_000, "surface": 100_000},
        usual=("volume", "surface"),
        half=0.5,
        reach=0.55,
        near=(0.01,),
        sharp=(),
        angle=30.0,
        half_precision=True,
        targets=("occupancy",),
        category="shapes",
    ),
    "3dshape2vecset": _layout(
        {"volume": 500_000, "near": 500_000, "surface": 100_000},
        half=1.0,
        reach=1.0,
        near=(0.01, 0.05),
        sharp=(),
        angle=30.0,
        targets=("occupancy",),
        category="03001627",
    ),
    "dora": _layout(
        {"volume": 200_000, "near": 400_000, "sharp": 131_072, "surface": 32_768, "salient": 32_768},
        half=1.0,
        reach=1.05,
        near=(0.001, 0.005),
        sharp=(0.001, 0.005, 0.007, 0.01),
        angle=15.0,
        targets=("signed",),
    ),
    "hunyuan": _layout(
        {"volume": 249_856, "near": 249_856, "sharp": 124_928, "surface": 124_928, "salient": 124_928},
        half=0.9999,
        reach=1.05,
        near=(0.005, 0.05),
        sharp=(0.001, 0.003, 0.06, 0.01, 0.02, 0.04),
        angle=15.0,
        half_precision=True,
        targets=("signed",),
    ),
}


@dataclass(frozen=True)
class SetsConfig:
    """A training set's settings, each with its value; `make_sets_config` fills in what a layout has for them.

    Lengths are in the coordinates that are written.
    counts: the points of each set.  truncation: what distances are clipped at, None: nothing.
    uniform: share of `mixed` that is uniform in the box.  margin: how far that box reaches past the shape's.
    resolution: cells along the longest side of the closed mesh that is drawn from in place of the shape, None: itself.
    """

    layout: LayoutName
    counts: tuple[tuple[SetName, int], ...]
    target: Target
    truncation: float | None
    near: tuple[float, ...]
    sharp: tuple[float, ...]
    angle: float
    uniform: float
    margin: float
    seed: int
    resolution: int | None
    category: str | None

    @property
    def names(self) -> tuple[SetName, ...]:
        """The sets."""
        return tuple(name for name, _ in self.counts)

    @property
    def identity(self) -> dict[str, Any]:
        """What a file's `meta` says of them, as JSON gives it back; without settings that no set depends on."""
        given = asdict(self) | {"sets": dict(self.counts), "sharp_widths": list(self.sharp), "widths": list(self.near)}
        boxes = {"mixed"} if LAYOUTS[self.layout].reach is not None else {"mixed", "volume"}
        for name, sets in {"uniform": {"mixed"}, "margin": boxes, "angle": {"sharp", "salient"}}.items():
            if not sets & set(self.names):
                del given[name]
        for name in ("counts", "near", "sharp"):
            del given[name]
        return {"format": given.pop("layout"), "layout": VERSION, "count": sum(given["sets"].values())} | given


def make_sets_config(
    layout: LayoutName = "ff3d",
    sets: Sequence[str] = (),
    *,
    points: int | None = None,
    target: Target | None = None,
    truncation: float | None = None,
    widths: Sequence[float] | None = None,
    angle: float | None = None,
    uniform: float = SamplingConfig.uniform,
    margin: float = SamplingConfig.margin,
    seed: int = 0,
    watertight: bool = False,
    resolution: int = RESOLUTION,
    category: str | None = None,
) -> SetsConfig:
    """The settings of a layout, with its values for what is not given.

    sets: names of sets, each with its number of points if it is another one than the layout's: "near=5000".
    points: of each set whose own is not given.  widths: of the noise in `near`, `sharp` and `mixed`.
    watertight: the shape is closed first, at `resolution`.  category: the name of a folder.
    Raises ValueError, with what there is, for names that are unknown or not the layout's, and numbers out of range.
    """
    if layout not in LAYOUTS:
        raise ValueError(f"unknown layout {layout!r}; known: {', '.join(LAYOUTS)}")
    if not watertight and resolution != RESOLUTION:
        raise ValueError(f"--resolution is for --watertight first: give both, or leave --resolution {resolution} out")
    known = LAYOUTS[layout]
    counts: dict[SetName, int] = {}
    for entry in sets or known.usual:
        name, _, number = entry.partition("=")
        if name not in known.counts:
            raise ValueError(f"layout {layout} has no set {name!r}; it has {', '.join(known.counts)}")
        if number and not number.isdecimal():
            raise ValueError(f"sets are given as near or near=5000, got {entry!r}")
        counts[name] = int(number) if number else points or known.counts[name]  # type: ignore[index]
    config = SetsConfig(
        layout=layout,
        counts=tuple((name, counts[name]) for name in known.counts if name in counts),
        target=target or known.targets[0],
        truncation=truncation,
        near=tuple(known.near if widths is None else widths),
        sharp=tuple(known.sharp if widths is None else widths),
        angle=known.angle if angle is None else angle,
        uniform=uniform,
        margin=margin,
        seed=seed,
        resolution=resolution if watertight else None,
        category=known.category if category is None else category,
    )
    _check(config, points)
    return config


def _check(config: SetsConfig, points: int | None) -> None:
    """Raise ValueError for what is out of range or does not go together."""
    layout = LAYOUTS[config.layout]
    check_seed(config.seed)
    if config.target not in layout.targets:
        raise ValueError(f"layout {config.layout} holds {' or '.join(layout.targets)}, not {config.target}")
    if config.truncation is not None and (config.target == "occupancy" or not 0 < config.truncation < math.inf):
        raise ValueError("a truncation is a positive length, and for the targets signed and unsigned alone")
    positive = all(0 < width < math.inf for width in (*config.near, *config.sharp))
    least = min([1 if points is None else points, *dict(config.counts).values()])
    if least < 1 or not positive or not 0 <= config.margin < math.inf or not 0 <= config.uniform <= 1:
        raise ValueError("--points and --widths must be positive, --margin not negative, --uniform within 0 and 1")
    if not config.near and {"near", "sharp"} & set(config.names):
        raise ValueError("the sets near and sharp need --widths")
    if not 0 < config.angle < 180:
        raise ValueError(f"angle must lie between 0 and 180 degrees, got {config.angle}")
    if config.resolution is not None and config.resolution < 1:
        raise ValueError(f"resolution must be at least 1, got {config.resolution}")
    if (config.category is None) != (layout.category is None):
        raise ValueError("a category is a folder's name, for the layouts occnet and 3dshape2vecset alone")
    if config.category is not None:
        check_part("category", config.category)


def check_part(option: str, name: str) -> None:
    """Raise ValueError for a name that leads out of the folder it is to lie in, or is none."""
    if name in ("", ".", "..") or {"/", "\\", "\0"} & set(name):
        raise ValueError(f"--{option} must be one plain name, without / and \\, got {name!r}")
