"""Every setting of a fit, the two presets, and how one is made from the other."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

MappingName = Literal["none", "basic", "positional", "gaussian", "lecture"]
PAPER_MAPPINGS: tuple[MappingName, ...] = ("none", "basic", "positional", "gaussian")
Preset = Literal["fast", "paper"]
Precision = Literal["auto", "float32", "bfloat16"]
Activation = Literal["relu", "gelu", "silu", "sine"]
Schedule = Literal["cosine", "exponential"]
Normalisation = Literal["padded", "paper"]
CHOICES: dict[str, Any] = {
    "mapping": MappingName,
    "preset": Preset,
    "precision": Precision,
    "activation": Activation,
    "schedule": Schedule,
    "cube": Normalisation,
}

POSITIVE = (
    *("seconds", "steps", "frequencies", "width", "parameters", "depth", "batch_size", "pool_size", "passes"),
    *("learning_rate", "scale"),
)
DEFAULT_SECONDS = 30.0
# The best of 1, 2, 4, 8, 16 and 30 thousandths (none, basic: and of 10) on Lucy, near the surface, at 800 and 1,200
# steps; lecture as gaussian
FAST_LEARNING_RATE = {"none": 1e-2, "basic": 1e-2, "positional": 8e-3, "gaussian": 4e-3, "lecture": 4e-3}


@dataclass(frozen=True)
class FitConfig:
    """Every setting of a fit. The defaults are the preset `fast`; `make_config` builds the others."""

    mapping: MappingName = "gaussian"
    """the input mapping"""
    seconds: float | None = None
    """budget: seconds of labelling and training (evaluation comes on top); 30 if there are no steps"""
    steps: int | None = None
    """budget: training steps, in place of --seconds; makes the result repeatable bit for bit"""
    preset: Preset = "fast"
    """fast: this project's best settings; paper: Tancik et al. 2020 to the letter (10,000 steps)"""
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
    width: int = 256
    """units in a hidden layer"""
    parameters: int | None = None
    """in place of --width: hidden layers as wide as makes about so many weights and biases"""
    depth: int = 4
    """hidden layers"""
    activation: Activation = "relu"
    """activation after each hidden layer"""
    batch_size: int = 8192
    """points in a step"""
    learning_rate: float | None = None
    """Adam's rate at the start; by default the one tuned for the mapping"""
    schedule: Schedule = "cosine"
    """cosine: short warm-up, then to 0; exponential: to 1/100, both over the whole budget"""
    pool_size: int = 2**21
    """points that are drawn and labelled together, at most: the first pools are smaller"""
    passes: int = 2
    """times that a pool is gone through before the next is drawn"""
    uniform: float = 0.5
    """share of points uniform in the box; the rest lie near the surface"""
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
        if self.pool_size % self.batch_size:
            raise ValueError(f"pool_size {self.pool_size} must be a multiple of batch_size {self.batch_size}")

    @property
    def rate(self) -> float:
        """The learning rate at the start: the given one, or the mapping's tuned one."""
        return FAST_LEARNING_RATE[self.mapping] if self.learning_rate is None else self.learning_rate

    def width_for(self, features: int) -> int:
        """Units in a hidden layer over an input of so many features: `width`, or what comes nearest to `parameters`."""
        if self.parameters is None:
            return self.width
        # depth hidden layers of w: (depth - 1) w^2 + (features + depth + 1) w + 1 weights and biases
        square, linear = self.depth - 1, features + self.depth + 1
        wanted = max(self.parameters - 1, 0)
        root = (math.sqrt(linear**2 + 4 * square * wanted) - linear) / (2 * square) if square else wanted / linear
        return max(1, round(root))

    def batches_in_pool(self, index: int) -> int:
        """Batches in the index-th pool: 16 at first, then twice as many each time, up to `pool_size`.

        So labelling takes the same share of a short budget as of a long one.
        """
        return min(self.pool_size // self.batch_size, 16 << min(index, 40))


PRESETS = {
    "fast": FitConfig(),
    # arXiv:2006.10739, section E.2, and the authors' notebook
    "paper": FitConfig(
        preset="paper",
        steps=10_000,
        notebook=True,
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


def make_config(preset: str = "fast", **settings: Any) -> FitConfig:
    """A preset with some settings changed: the one way from the API's keywords and from the command line.

    A budget in seconds takes the place of the preset's steps; with no budget at all it is `DEFAULT_SECONDS`.
    Raises ValueError for an unknown preset, an unknown setting, a value out of range, or two budgets.
    """
    if preset not in PRESETS:
        raise ValueError(f"unknown preset {preset!r}; known: {', '.join(PRESETS)}")
    known = {setting.name for setting in dataclasses.fields(FitConfig)}
    if unknown := sorted(set(settings) - known):
        raise ValueError(f"unknown setting {', '.join(unknown)}; known: {', '.join(sorted(known))}")
    usual = PRESETS[preset].steps
    seconds, steps = settings.get("seconds"), settings.get("steps", usual)
    if seconds is not None and steps == usual:
        steps = None
    if seconds is not None and steps is not None:
        raise ValueError(f"give a budget in seconds or in steps, not both (got {seconds:g} s and {steps} steps)")
    if seconds is None and steps is None:
        seconds = DEFAULT_SECONDS
    return replace(PRESETS[preset], **{**settings, "seconds": seconds, "steps": steps})
