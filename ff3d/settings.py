"""Every setting of a fit, the presets, and the one function that makes a fit's settings of what was given."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from numbers import Real
from typing import Any, Literal, get_args

from ff3d.checks import check_seed, check_settings
from ff3d.fields.config import (
    GRID_MAPPINGS,
    LATTICE_MAPPINGS,
    TABLE_SETTINGS,
    Budget,
    MappingConfig,
    NetworkConfig,
    OptimiserConfig,
)
from ff3d.points.config import SamplingConfig

PresetName = Literal["plain", "paper", "direct", "fast", "best", "small"]
Storage = Literal["float32", "float16", "int8", "auto"]
BUDGETS = ("seconds", "steps", "bytes")
LONG_SECONDS = 60.0


@dataclass(frozen=True)
class FitConfig:
    """Every setting of a fit. The defaults are the preset `plain`; `make_config` builds the others."""

    preset: PresetName = "plain"
    """plain: for comparisons; paper: Tancik et al. 2020 to the letter (10,000 steps); direct: the best shape in few
    seconds, without a network; small: in few bytes, likewise; fast, best: by a network, meant for 20 s and for 300 s
    (give --seconds, else 30). By default fit takes plain if a mapping is named, small for a budget in bytes, else
    direct, or, with settings of a network, fast (best from 60 s on)"""
    budget: Budget = field(default_factory=Budget)
    seed: int = 0
    """seed of the frequencies, weights and samples"""
    device: str = "auto"
    """auto, cpu, cuda or mps"""
    storage: Storage = "float32"
    """numbers in field.safetensors; auto: the smallest of these that costs less than 0.0005 IoU"""
    mapping: MappingConfig = field(default_factory=MappingConfig)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)

    def __post_init__(self) -> None:
        check_settings(self)
        check_seed(self.seed)
        if self.budget.bytes is not None and self.mapping.name not in LATTICE_MAPPINGS:
            raise ValueError(
                f"a budget in bytes is for {' and '.join(LATTICE_MAPPINGS)}; give {self.mapping.name} seconds or steps"
            )
        if self.mapping.frequencies < 3 and self.mapping.name not in GRID_MAPPINGS + LATTICE_MAPPINGS:
            raise ValueError(f"frequencies must be at least 3, one an axis, got {self.mapping.frequencies}")
        if self.network.parameters is not None and self.mapping.name in GRID_MAPPINGS:
            raise ValueError(
                f"parameters sets the width of hidden layers; give levels, finest, ... of {self.mapping.name}"
            )

    def flat(self) -> dict[str, Any]:
        """Every setting by the name of its option, plain JSON values: what config.json holds, and what is compared."""
        values = {name: getattr(_group(self, option), option.field.name) for name, option in OPTIONS.items()}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


@dataclass(frozen=True)
class Option:
    """One setting: the group of `FitConfig` that it stands in ("" for none), and its field there."""

    group: str
    kind: type
    field: dataclasses.Field[Any]


GROUPS: dict[str, type] = {
    "budget": Budget,
    "mapping": MappingConfig,
    "network": NetworkConfig,
    "sampling": SamplingConfig,
    "optimiser": OptimiserConfig,
}


def _options() -> dict[str, Option]:
    options: dict[str, Option] = {}
    for top in dataclasses.fields(FitConfig):
        if top.name not in GROUPS:
            options[top.name] = Option("", FitConfig, top)
            continue
        for inner in dataclasses.fields(GROUPS[top.name]):
            name = "mapping" if (top.name, inner.name) == ("mapping", "name") else inner.name
            options[name] = Option(top.name, GROUPS[top.name], inner)
    return options


OPTIONS = _options()  # every setting by its name in the API, in files, and as an option of the commands
OF_NETWORKS = {name for name, option in OPTIONS.items() if option.group in GROUPS} | {"storage"}
OF_NETWORKS -= {"seconds", "bytes", "mapping", "finest", "cube", "margin"}  # those of lattices too
KEPT = ("seed", "device", "cube", "margin")  # of a lattice's settings, by the network in its place


def _group(config: FitConfig, option: Option) -> Any:
    return getattr(config, option.group) if option.group else config


# What a preset changes of the defaults.
_DISTANCES: dict[str, Any] = {
    "mapping": "hash",
    "target": "distance",
    "guarded": True,
    "storage": "auto",
    "band": 0.003,
    "uniform": 0.1,
    "widths": (0.0003, 0.001),
    "schedule": "linear",
    "pool_size": 2**20,
    "passes": 2,
}
PRESETS: dict[str, dict[str, Any]] = {
    "plain": {},
    # arXiv:2006.10739, section E.2, and the authors' notebook
    "paper": {
        "steps": 10_000,
        "notebook": True,
        "width": 256,
        "depth": 7,
        "batch_size": 32**3,
        "learning_rate": 5e-4,
        "schedule": "exponential",
        "pool_size": 8 * 32**3,
        "passes": 1,
        "uniform": 1.0,
        "widths": (),
        "cube": "paper",
        "margin": 1e-3,
    },
    "direct": {"mapping": "voxels"},
    "fast": _DISTANCES,
    "best": _DISTANCES | {"levels": 6, "finest": 1024, "log2_table": 19},
    "small": {"mapping": "lattice", "bytes": 100_000},
}
assert tuple(PRESETS) == get_args(PresetName)


def default_preset(given: Mapping[str, Any]) -> str:
    """The preset where none is given: `plain` where a mapping is named, else the best shape for the budget.

    That is a network's if there are settings of one, or a budget in steps.
    """
    named = {name for name, value in given.items() if value is not None}
    if "mapping" in named:
        return "plain"
    if "bytes" in named:
        return "small"
    if named.isdisjoint(OF_NETWORKS):
        return "direct"
    seconds = given.get("seconds")
    return "best" if isinstance(seconds, Real) and float(seconds) >= LONG_SECONDS else "fast"


def make_config(preset: str | None = "plain", **given: Any) -> FitConfig:
    """The settings of a fit: the defaults, changed by a preset, changed by what was given.

    The one way from the API's keywords, from the command line and from a plan. preset: None chooses by
    `default_preset`. given: settings by their names in `OPTIONS`, and nothing that was not given: a budget takes the
    place of the preset's, and what a preset says of its own mapping's table does not hold for another mapping.
    Raises ValueError for an unknown preset, an unknown setting, a value out of range, or two budgets.
    """
    if preset is None:
        preset = default_preset(given)
    if preset not in PRESETS:
        raise ValueError(f"unknown preset {preset!r}; known: {', '.join(PRESETS)}")
    if unknown := sorted(set(given) - set(OPTIONS)):
        raise ValueError(f"unknown setting {', '.join(unknown)}; known: {', '.join(sorted(OPTIONS))}")
    base = dict(PRESETS[preset])
    if any(given.get(budget) is not None for budget in BUDGETS):
        base = {name: value for name, value in base.items() if name not in BUDGETS}
    if given.get("mapping", base.get("mapping")) != base.get("mapping"):
        base = {name: value for name, value in base.items() if name not in TABLE_SETTINGS}
    return from_flat({**base, **given, "preset": preset})


def from_flat(values: Mapping[str, Any]) -> FitConfig:
    """The nested settings of flat ones (`FitConfig.flat`); what is not named has its default. Raises ValueError."""
    groups: dict[str, dict[str, Any]] = {name: {} for name in ("", *GROUPS)}
    if unknown := sorted(set(values) - set(OPTIONS)):
        raise ValueError(f"unknown setting {', '.join(unknown)}")
    for name, value in values.items():
        option = OPTIONS[name]
        groups[option.group][option.field.name] = value
    top = groups.pop("")
    return FitConfig(**top, **{name: GROUPS[name](**settings) for name, settings in groups.items()})


def unguarded(config: FitConfig) -> FitConfig:
    """The settings where labels offer no guard: points are those of `plain`, as far as they are the preset's."""
    values, preset = config.flat(), PRESETS[config.preset]
    for name in ("uniform", "widths"):
        if name in preset and values[name] == (list(preset[name]) if name == "widths" else preset[name]):
            del values[name]
    return from_flat({**values, "guarded": False})


def by_network(config: FitConfig) -> FitConfig:
    """The settings of the preset `fast` in place of a lattice's, for labels between which there are no distances.

    Those that mean the same there are kept where they are not the preset's own.
    """
    values, usual = config.flat(), make_config(config.preset).flat()
    kept = {name: values[name] for name in KEPT if values[name] != usual[name]}
    budget = {name: values[name] for name in ("seconds", "steps") if values[name] is not None}
    return make_config("fast", **kept, **budget)
