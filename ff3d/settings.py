"""Every setting of a fit, the presets, and how one is made from the other."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

MappingName = Literal["none", "basic", "positional", "gaussian", "lecture", "learned", "grid", "hash", "planes"]
PAPER_MAPPINGS: tuple[MappingName, ...] = ("none", "basic", "positional", "gaussian")
TABLES: tuple[MappingName, ...] = ("grid", "hash", "planes")
Preset = Literal["plain", "paper", "fast", "best", "small"]
Precision = Literal["auto", "float32", "bfloat16"]
Activation = Literal["relu", "gelu", "silu", "sine", "siren", "finer", "gaussian"]
Schedule = Literal["cosine", "exponential", "linear"]
Normalisation = Literal["padded", "paper"]
Target = Literal["occupancy", "distance"]
Storage = Literal["float32", "float16", "int8", "auto"]
CHOICES: dict[str, Any] = {
    "mapping": MappingName,
    "preset": Preset,
    "precision": Precision,
    "activation": Activation,
    "schedule": Schedule,
    "cube": Normalisation,
    "target": Target,
    "storage": Storage,
}

TABLE_SETTINGS = ("levels", "coarsest", "finest", "features_per_level", "log2_table")
POSITIVE = (
    *("seconds", "steps", "frequencies", "width", "parameters", "depth", "batch_size", "pool_size", "passes"),
    *("learning_rate", "scale", "band"),
    *TABLE_SETTINGS,
)
DEFAULT_SECONDS, LONG_SECONDS = 30.0, 60.0
# The best of 1, 2, 4, 8, 16 and 30 thousandths (none, basic: and of 10) on Lucy, near the surface, at 800 and 1,200
# steps; lecture as gaussian
LEARNING_RATE = {"none": 1e-2, "basic": 1e-2, "positional": 8e-3, "gaussian": 4e-3, "lecture": 4e-3}
LEARNING_RATE |= {"learned": 4e-3} | dict.fromkeys(TABLES, 2e-2)


@dataclass(frozen=True)
class FitConfig:
    """Every setting of a fit. The defaults are the preset `plain`; `make_config` builds the others."""

    mapping: MappingName = "gaussian"
    """the input mapping"""
    seconds: float | None = None
    """budget: seconds of labelling and training (evaluation comes on top); 30 if there are no steps"""
    steps: int | None = None
    """budget: training steps, in place of --seconds; makes the result repeatable bit for bit"""
    preset: Preset = "plain"
    """plain: for comparisons; paper: Tancik et al. 2020 to the letter (10,000 steps); fast, best, small: the best shape
    in 20 s, in 300 s, in 256 KiB. By default fit takes plain if a mapping is named, else fast, or best for 60 s"""
    seed: int = 0
    """seed of the frequencies, weights and samples"""
    device: str = "auto"
    """auto, cpu, cuda or mps"""
    precision: Precision = "auto"
    """what the network's products run in; auto: bfloat16 where the hardware is fast at it"""
    frequencies: int = 256
    """rows of the frequency matrix (positional: a third on each axis)"""
    scale: float | None = None
    """gaussian, lecture: standard deviation; positional: highest frequency; cycles per unit"""
    notebook: bool = False
    """positional frequencies as in the authors' notebook, one dead sine an axis"""
    levels: int | None = None
    """grid, hash, planes: resolutions; this and the next four are by default the mapping's own"""
    coarsest: int | None = None
    """grid, hash, planes: cells along the cube at the lowest resolution"""
    finest: int | None = None
    """grid, hash, planes: cells along the cube at the highest resolution"""
    features_per_level: int | None = None
    """grid, hash, planes: numbers at each vertex"""
    log2_table: int | None = None
    """hash: a level has at most 2 to this many rows"""
    width: int | None = None
    """units in a hidden layer; by default 256, and 64 over grid, hash and planes"""
    parameters: int | None = None
    """in place of --width: hidden layers as wide as makes about so many weights and biases"""
    depth: int | None = None
    """hidden layers; by default 4, and 1 over grid, hash and planes"""
    activation: Activation = "relu"
    """activation after each hidden layer; siren, finer and gaussian want a mapping of none, and run in float32"""
    target: Target = "occupancy"
    """what the network learns: inside or outside (cross-entropy), or tanh(signed distance / band) (L1)"""
    band: float = 0.004
    """distance: how far from the surface it is told apart, units"""
    guarded: bool = False
    """space that a coarse grid shows to be inside or outside is answered by it; the network learns the rest"""
    storage: Storage = "float32"
    """numbers in field.safetensors; auto: the smallest of these that costs less than 0.0005 IoU"""
    batch_size: int = 8192
    """points in a step"""
    learning_rate: float | None = None
    """Adam's rate at the start; by default the one tuned for the mapping"""
    schedule: Schedule = "cosine"
    """over the whole budget; cosine: short warm-up, then to 0; exponential: to 1/100; linear: level, to 0 from half"""
    pool_size: int = 2**21
    """points that are drawn and labelled together, at most: the first pools are smaller"""
    passes: int = 2
    """times that a pool is gone through before the next is drawn"""
    uniform: float = 0.5
    """share of points uniform in the box (guarded: in what the grid leaves open); the rest lie near the surface"""
    widths: tuple[float, ...] = (0.002, 0.006, 0.015, 0.04, 0.12)
    """widths of the noise near the surface, in units (the cube's side)"""
    cube: Normalisation = "padded"
    """padded: box centred, 5% room on each side; paper: about the mean vertex, no room"""
    margin: float = 0.03
    """the sampled box is the mesh's bounding box grown by this many units"""

    @property
    def budget(self) -> str:
        """The budget in words: '30 s' or '2,000 steps'."""
        return f"{self.steps:,} steps" if self.steps else f"{self.seconds:g} s"

    def __post_init__(self) -> None:
        for setting in dataclasses.fields(self):
            choices = get_args(CHOICES.get(setting.name))
            if choices and getattr(self, setting.name) not in choices:
                raise ValueError(f"unknown {setting.name} {getattr(self, setting.name)!r}; known: {', '.join(choices)}")
        for name in POSITIVE:
            value = getattr(self, name)
            if value is not None and not (isinstance(value, int | float) and math.isfinite(value) and value > 0):
                raise ValueError(f"{name} must be positive, got {value}")
        if not (math.isfinite(self.margin) and self.margin >= 0):
            raise ValueError(f"margin must be 0 or positive, got {self.margin}")
        if not 0 <= self.uniform <= 1 or not all(width > 0 for width in self.widths):
            raise ValueError("uniform must lie in [0, 1] and every width must be positive")
        if self.parameters is not None and self.mapping in TABLES:
            raise ValueError(f"parameters sets the width of hidden layers; give levels, finest, ... of {self.mapping}")
        if self.pool_size % self.batch_size:
            raise ValueError(f"pool_size {self.pool_size} must be a multiple of batch_size {self.batch_size}")

    @property
    def rate(self) -> float:
        """The learning rate at the start: the given one, or the mapping's tuned one."""
        return LEARNING_RATE[self.mapping] if self.learning_rate is None else self.learning_rate

    @property
    def layers(self) -> int:
        """The number of hidden layers: `depth`, or the mapping's usual."""
        return self.depth or (1 if self.mapping in TABLES else 4)

    def width_for(self, features: int) -> int:
        """Units in a hidden layer over an input of so many features: `width`, or what comes nearest to `parameters`."""
        if self.parameters is None:
            return self.width or (64 if self.mapping in TABLES else 256)
        # depth hidden layers of w: (depth - 1) w^2 + (features + depth + 1) w + 1 weights and biases
        square, linear = self.layers - 1, features + self.layers + 1
        wanted = max(self.parameters - 1, 0)
        root = (math.sqrt(linear**2 + 4 * square * wanted) - linear) / (2 * square) if square else wanted / linear
        return max(1, round(root))

    def batches_in_pool(self, index: int) -> int:
        """Batches in the index-th pool: 16 at first, then twice as many each time, up to `pool_size`.

        So labelling takes the same share of a short budget as of a long one.
        """
        return min(self.pool_size // self.batch_size, 16 << min(index, 40))


PRESETS = {
    "plain": FitConfig(),
    # arXiv:2006.10739, section E.2, and the authors' notebook
    "paper": FitConfig(
        preset="paper",
        steps=10_000,
        notebook=True,
        width=256,
        depth=7,
        batch_size=32**3,
        learning_rate=5e-4,
        schedule="exponential",
        pool_size=32**3,
        passes=1,
        uniform=1.0,
        widths=(),
        cube="paper",
        margin=1e-3,
    ),
}
_DISTANCES = FitConfig(
    mapping="hash",
    target="distance",
    guarded=True,
    storage="auto",
    band=0.003,
    uniform=0.1,
    widths=(0.0003, 0.001),
    schedule="linear",
    pool_size=2**20,
    passes=2,
)
PRESETS |= {
    "fast": replace(_DISTANCES, preset="fast"),
    "best": replace(_DISTANCES, preset="best", levels=6, finest=1024, log2_table=19),
    "small": replace(
        _DISTANCES, preset="small", levels=8, coarsest=10, log2_table=13, depth=2, passes=4, storage="int8"
    ),
}


def starting_point(preset: str | None, mapping: str | None, seconds: float | None) -> FitConfig:
    """What a fit's settings start from: its preset, and if it names a mapping, that one.

    Without a preset it is `plain` where a mapping is named, else the one that is best for the seconds. What a preset
    says of its own mapping's table does not hold for another mapping.
    Raises ValueError for an unknown preset.
    """
    if preset is None:
        long = (seconds or DEFAULT_SECONDS) >= LONG_SECONDS
        preset = "plain" if mapping is not None else "best" if long else "fast"
    if preset not in PRESETS:
        raise ValueError(f"unknown preset {preset!r}; known: {', '.join(PRESETS)}")
    config = PRESETS[preset]
    return config if mapping is None else with_mapping(config, mapping)


def with_mapping(config: FitConfig, mapping: str) -> FitConfig:
    """The settings for another mapping, for which what the preset says of its own mapping's table does not hold."""
    if mapping != PRESETS[config.preset].mapping:
        config = as_plain(config, TABLE_SETTINGS)
    changes: dict[str, Any] = {"mapping": mapping}
    return replace(config, **changes)


def as_plain(config: FitConfig, names: Sequence[str]) -> FitConfig:
    """The settings with those of `names` as in `plain` that are the preset's, and not given."""
    preset, plain = PRESETS[config.preset], PRESETS["plain"]
    theirs = (name for name in names if getattr(config, name) == getattr(preset, name))
    return replace(config, **{name: getattr(plain, name) for name in theirs})


def make_config(preset: str | None = "plain", **settings: Any) -> FitConfig:
    """A preset with some settings changed: the one way from the API's keywords and from the command line.

    Without a preset (None) it is chosen as by `starting_point`. A budget in seconds takes the place of the preset's
    steps; with no budget at all it is `DEFAULT_SECONDS`.
    Raises ValueError for an unknown preset, an unknown setting, a value out of range, or two budgets.
    """
    start = starting_point(preset, settings.get("mapping"), settings.get("seconds"))
    known = {setting.name for setting in dataclasses.fields(FitConfig)}
    if unknown := sorted(set(settings) - known):
        raise ValueError(f"unknown setting {', '.join(unknown)}; known: {', '.join(sorted(known))}")
    usual = start.steps
    seconds, steps = settings.get("seconds"), settings.get("steps", usual)
    if seconds is not None and steps == usual:
        steps = None
    if seconds is not None and steps is not None:
        raise ValueError(f"give a budget in seconds or in steps, not both (got {seconds:g} s and {steps} steps)")
    if seconds is None and steps is None:
        seconds = DEFAULT_SECONDS
    return replace(start, **{**settings, "seconds": seconds, "steps": steps})
