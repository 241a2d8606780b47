"""The settings of a field: its mapping, its network, how it is trained, and for how long. Without torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

from ff3d.checks import check_settings

MappingName = Literal[
    "none", "basic", "positional", "gaussian", "lecture", "learned", "grid", "hash", "planes", "voxels", "lattice"
]
PAPER_MAPPINGS: tuple[MappingName, ...] = ("none", "basic", "positional", "gaussian")
LATTICE_MAPPINGS: tuple[MappingName, ...] = ("voxels", "lattice")  # no network: signed distances
COMPARED: tuple[MappingName, ...] = (*PAPER_MAPPINGS, "voxels")  # and what needs no network, beside them
Precision = Literal["auto", "float32", "bfloat16"]
Activation = Literal["relu", "gelu", "silu", "sine", "siren", "finer", "gaussian"]
Initialisation = Literal["glorot", "he"]
Schedule = Literal["cosine", "exponential", "linear", "constant"]
TABLE_SETTINGS = ("levels", "coarsest", "finest", "features_per_level", "log2_table")
GRID_DEFAULTS: dict[str, dict[str, int]] = {
    "grid": {"levels": 4, "coarsest": 16, "finest": 128, "features_per_level": 4},
    "hash": {"levels": 5, "coarsest": 32, "finest": 512, "features_per_level": 4, "log2_table": 17},
    "planes": {"levels": 4, "coarsest": 32, "finest": 256, "features_per_level": 8},
}
GRID_MAPPINGS = tuple(GRID_DEFAULTS)
# what a file may hold; float32 has 8 bits left for the place in a cell at the finest resolution
TABLE_LIMITS = {"levels": 32, "coarsest": 2**16, "finest": 2**16, "features_per_level": 64, "log2_table": 24}
DEFAULT_SECONDS = 30.0
LEAST_BYTES = 2_000
FIRST_BATCHES = 16  # of the first pool
# The best of 1, 2, 4, 8, 16 and 30 thousandths (none, basic: and of 10) on Lucy, near the surface, at 800 and 1,200
# steps; lecture as gaussian
LEARNING_RATE = {"none": 1e-2, "basic": 1e-2, "positional": 8e-3, "gaussian": 4e-3, "lecture": 4e-3}
LEARNING_RATE |= dict.fromkeys(LATTICE_MAPPINGS, 0.0)  # nothing is trained
LEARNING_RATE |= {"learned": 4e-3} | dict.fromkeys(GRID_MAPPINGS, 2e-2)


@dataclass(frozen=True)
class Budget:
    """What a fit may spend: seconds of labelling and training, training steps, or bytes. Without any, 30 s.

    Raises ValueError for two of them, and for numbers that are not positive.
    """

    seconds: float | None = None
    """seconds of labelling and training (evaluation comes on top); 30 if there are no steps"""
    steps: int | None = None
    """training steps, in place of --seconds; makes the result repeatable bit for bit (but of tables on a GPU)"""
    bytes: int | str | None = None
    """voxels, lattice: the size of field.safetensors, in place of --seconds; 50k is 50,000"""

    def __post_init__(self) -> None:
        object.__setattr__(self, "bytes", _bytes(self.bytes))
        check_settings(self, positive=("seconds", "steps"))
        if self.seconds is not None and self.steps is not None:
            raise ValueError(
                f"give a budget in seconds or in steps, not both (got {self.seconds:g} s and {self.steps} steps)"
            )
        if self.bytes is not None and (self.seconds is not None or self.steps is not None):
            raise ValueError(f"give a budget in bytes, or in seconds or steps, not both (got {self.bytes:,} bytes)")
        if self.seconds is None and self.steps is None and self.bytes is None:
            object.__setattr__(self, "seconds", DEFAULT_SECONDS)

    def __str__(self) -> str:
        if self.bytes:
            return f"{self.bytes:,} bytes"
        return f"{self.steps:,} steps" if self.steps else f"{self.seconds:g} s"

    def share(self, step: int, seconds: float) -> float:
        """The share of the budget that is spent after so many steps and seconds; at 1 the fit ends."""
        return step / self.steps if self.steps else seconds / (self.seconds or 1.0)


def _bytes(value: Any) -> int | None:
    """A number of bytes, given as such or as a text like 50k or 1.5M. Raises ValueError."""
    if value is None:
        return None
    unit = {"k": 10**3, "m": 10**6}.get(str(value)[-1:].lower(), 1)
    try:
        number = round(float(str(value)[:-1] if unit > 1 else str(value)) * unit)
    except (ValueError, OverflowError):
        number = 0
    if isinstance(value, bool) or not LEAST_BYTES <= number < 2**40:
        raise ValueError(f"bytes must be a number from {LEAST_BYTES:,}, such as 50k, got {value!r}")
    return number


@dataclass(frozen=True)
class MappingConfig:
    """Which input mapping, and its frequencies or its table."""

    name: MappingName = "gaussian"
    """the input mapping"""
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
    """grid, hash, planes, voxels, lattice: cells along the cube at the highest resolution"""
    features_per_level: int | None = None
    """grid, hash, planes: numbers at each vertex"""
    log2_table: int | None = None
    """hash: a level has at most 2 to this many rows"""

    def __post_init__(self) -> None:
        check_settings(self, positive=("frequencies", "scale", *TABLE_SETTINGS), named={"name": "mapping"})
        if self.name in GRID_MAPPINGS:
            table_settings(self.name, self.table)

    @property
    def table(self) -> dict[str, int]:
        """What is given of the settings of the mapping's table; nothing where it has none."""
        given = {key: getattr(self, key) for key in GRID_DEFAULTS.get(self.name, ())}
        return {key: value for key, value in given.items() if value is not None}


def table_settings(name: str, given: dict[str, int]) -> dict[str, int]:
    """Every setting of the table of a mapping of this name, the given ones and its usual others.

    Raises ValueError for an unknown name or setting, and for one out of range.
    """
    if name not in GRID_DEFAULTS:
        raise ValueError(f"unknown mapping {name!r}; known: {', '.join(GRID_MAPPINGS)}")
    whole = GRID_DEFAULTS[name] | given
    if unknown := sorted(set(whole) - set(GRID_DEFAULTS[name])):
        raise ValueError(f"unknown setting {', '.join(unknown)} of {name}; known: {', '.join(GRID_DEFAULTS[name])}")
    for key, value in whole.items():
        if type(value) is not int or not 1 <= value <= TABLE_LIMITS[key]:
            raise ValueError(f"{key} must be a whole number from 1 to {TABLE_LIMITS[key]}, got {value!r}")
    if whole["coarsest"] > whole["finest"] or (whole["levels"] == 1 and whole["coarsest"] != whole["finest"]):
        raise ValueError(f"coarsest must be at most finest, and equal to it with one level, got {whole}")
    return whole


@dataclass(frozen=True)
class NetworkConfig:
    """The layers over the mapping, and what their products run in."""

    width: int | None = None
    """units in a hidden layer; by default 256, and 64 over grid, hash and planes"""
    parameters: int | None = None
    """in place of --width: hidden layers as wide as makes about so many weights and biases"""
    depth: int | None = None
    """hidden layers; by default 4, and 1 over grid, hash and planes"""
    activation: Activation = "relu"
    """activation after each hidden layer; siren, finer and gaussian want a mapping of none, and run in float32"""
    initialisation: Initialisation = "glorot"
    """weights before training, but of siren and finer; glorot: as in the paper's notebook; he: wider, and no biases"""
    precision: Precision = "auto"
    """what the network's products run in; auto: bfloat16 where the hardware is fast at it"""

    def __post_init__(self) -> None:
        check_settings(self, positive=("width", "parameters", "depth"))

    def hidden_layers(self, mapping: str) -> int:
        """The number of hidden layers over a mapping of this name: `depth`, or its usual."""
        return self.depth or (1 if mapping in GRID_MAPPINGS else 4)

    def hidden_width(self, mapping: str, features: int) -> int:
        """Units in a hidden layer over a mapping of this name with so many features.

        `width`, or what comes nearest to `parameters`, or the mapping's usual.
        """
        if self.parameters is None:
            return self.width or (64 if mapping in GRID_MAPPINGS else 256)
        # depth hidden layers of w: (depth - 1) w^2 + (features + depth + 1) w + 1 weights and biases
        depth = self.hidden_layers(mapping)
        square, linear = depth - 1, features + depth + 1
        wanted = max(self.parameters - 1, 0)
        root = (math.sqrt(linear**2 + 4 * square * wanted) - linear) / (2 * square) if square else wanted / linear
        return max(1, round(root))


@dataclass(frozen=True)
class OptimiserConfig:
    """Adam, its schedule, and how points are drawn in pools."""

    batch_size: int = 8192
    """points in a step"""
    learning_rate: float | None = None
    """Adam's rate at the start; by default the one tuned for the mapping"""
    schedule: Schedule = "cosine"
    """from the first step to the budget's end; cosine: warm-up, then to 0; exponential: to 1/100; linear: to 0 from
    half; or constant"""
    pool_size: int = 2**21
    """points that are drawn and labelled together, at most: the first pools are smaller"""
    passes: int = 2
    """epochs per pool: how often it is used before the next is drawn"""

    def __post_init__(self) -> None:
        check_settings(self, positive=("batch_size", "learning_rate", "pool_size", "passes"))
        if self.pool_size % self.batch_size:
            raise ValueError(f"pool_size {self.pool_size} must be a multiple of batch_size {self.batch_size}")

    def rate(self, mapping: str) -> float:
        """The learning rate at the start: the given one, or the one tuned for the mapping of this name."""
        return LEARNING_RATE[mapping] if self.learning_rate is None else self.learning_rate

    def batches_in_pool(self, index: int) -> int:
        """Batches in the index-th pool: 16 at first, then twice as many each time, up to `pool_size`.

        So labelling takes the same share of a short budget as of a long one.
        """
        return min(self.pool_size // self.batch_size, FIRST_BATCHES << min(index, 40))
