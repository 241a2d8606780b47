"""What a study is to do: meshes x mappings x settings x seeds, from the command line, a YAML file or Python."""

from __future__ import annotations

import glob
import itertools
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypedDict

from ff3d.checks import check_seed, check_type, one_line, read_json
from ff3d.fields.config import PAPER_MAPPINGS, MappingName
from ff3d.files import file_sha256
from ff3d.settings import BUDGETS, OPTIONS, FitConfig, make_config
from ff3d.shapes.sources import distinct_names, find_shapes, is_glob
from ff3d.studies.task import Task

PLAN = "plan.json"
LARGEST_PLAN = 2**20  # bytes of a YAML file
DEEPEST = 20  # levels of lists and mappings in it
FINEST = 2**14  # cells along the longest side of an extracted mesh


class _Record(TypedDict):
    settings: dict[str, Any]
    resolution: int
    tuned: dict[str, dict[str, Any]]
    testsets: str
    meshes: dict[str, str]


class Record(_Record, total=False):
    """plan.json."""

    tests: dict[str, str]  # the frozen test sets by sha256; earlier versions kept only their folder


@dataclass(frozen=True)
class Plan:
    """Which fits: every mapping with every seed on every mesh, all with the same settings otherwise.

    settings: those of a fit that were given, and nothing else, `preset` among them; `make_config` applies them.
    vary: settings and their values; every combination of them is fitted.  tuned: for a mapping, settings of its own,
    as `ff3d tune` finds them.  testsets: a folder of frozen test points, MESH.npz, in place of those drawn anew.
    """

    meshes: tuple[Path, ...]
    mappings: tuple[str, ...]
    seeds: tuple[int, ...]
    settings: dict[str, Any] = field(default_factory=dict)
    resolution: int = 192
    vary: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    tuned: dict[str, dict[str, Any]] = field(default_factory=dict)
    testsets: Path | None = None

    def __post_init__(self) -> None:
        check_type(self.mappings, tuple[MappingName, ...], "mappings")
        for seed in self.seeds:
            check_seed(seed, "seeds")
        check_type(self.resolution, int, "resolution")
        if not 1 <= self.resolution <= FINEST:
            raise ValueError(f"resolution must be from 1 to {FINEST}, got {self.resolution}")
        named = {"meshes": self.meshes, "mappings": self.mappings, "seeds": self.seeds, **self.vary}
        for name, values in named.items():
            if not values or len(set(values)) < len(values):
                raise ValueError(f"{name} must be given, each once, got {', '.join(map(str, values)) or 'none'}")
        if len(self.names) < len(self.meshes):
            raise ValueError(f"meshes must be given, each once, got {', '.join(map(str, self.meshes))}")
        known = set(OPTIONS) - {"mapping", "seed"}
        if unknown := sorted(({*self.vary} | {it for own in self.tuned.values() for it in own}) - known):
            raise ValueError(f"cannot vary {', '.join(unknown)}; known: {', '.join(sorted(known))}")
        for task in self.tasks():  # settings that do not go together are told now, not at the hundredth fit
            if {"/", os.sep, os.altsep or "/", "\0"} & set(task.name):
                raise ValueError(f"{task.name!r} cannot be the name of a folder")

    @cached_property
    def names(self) -> dict[str, Path]:
        """The meshes by the names under which results are kept: files of one stem get distinct ones."""
        return dict(zip(distinct_names(self.meshes), self.meshes, strict=True))

    @cached_property
    def config(self) -> FitConfig:
        """The settings that all fits share, with the first mapping."""
        return make_config(**self.settings | {"mapping": self.mappings[0]})

    @property
    def fits(self) -> int:
        """How many fits that is."""
        return math.prod(map(len, (self.meshes, self.mappings, self.seeds, *self.vary.values())))

    @cached_property
    def variants(self) -> list[str]:
        """What is compared, in order: the mappings, and what is varied of their settings."""
        return list(dict.fromkeys(task.variant for task in self.tasks()))

    @property
    def basis(self) -> str:
        """The basis of comparison, in words."""
        budgets = {task.config.budget for task in self.tasks()}
        kind = " and ".join(name for name in BUDGETS if any(getattr(it, name) is not None for it in budgets))
        sizes = {task.config.network.parameters for task in self.tasks()} - {None}
        size = f" and equal parameters (about {sizes.pop():,})" if len(sizes) == 1 else ""
        return (f"equal {kind} ({budgets.pop()} each)" if len(budgets) == 1 else f"different {kind}") + size

    def __str__(self) -> str:
        seconds = sum(task.config.budget.seconds or 0.0 for task in self.tasks())
        minutes = f", about {seconds:.0f} s of fitting" if seconds else ""
        if seconds >= 90:
            minutes = f", about {seconds / 60:.0f} minutes of fitting"
        factors = [_counted(len(self.meshes), "mesh", "meshes"), _counted(len(self.mappings), "mapping")]
        factors += [f"{_counted(len(values), 'value')} of {name}" for name, values in self.vary.items()]
        factors += [_counted(len(self.seeds), "seed")]
        product = f"{' x '.join(factors)} = {_counted(self.fits, 'fit')}"
        return f"{product}, preset {self.config.preset}, {self.basis}{minutes}"

    def tasks(self) -> list[Task]:
        """Every fit, in order: by mesh, mapping, what is varied, seed."""
        combinations = [dict(zip(self.vary, values, strict=True)) for values in itertools.product(*self.vary.values())]
        return [
            Task(
                path,
                make_config(
                    **self.settings | {"mapping": mapping, "seed": seed} | self.tuned.get(mapping, {}) | varied
                ),
                varied,
                self.resolution,
                self.testsets / f"{name}.npz" if self.testsets else None,
                name,
            )
            for name, path in self.names.items()
            for mapping in self.mappings
            for varied in combinations
            for seed in self.seeds
        ]


def make_plan(
    meshes: Sequence[str | Path],
    mappings: Sequence[str] = PAPER_MAPPINGS,
    seeds: Sequence[int] = (0, 1, 2),
    *,
    resolution: int = 192,
    vary: dict[str, Sequence[Any]] | None = None,
    tuned: str | Path | None = None,
    testsets: str | Path | None = None,
    **settings: Any,
) -> Plan:
    """A plan: from the command line, from a YAML file, or from Python.

    meshes: as `find_shapes` takes them.  tuned: a file that `ff3d tune` wrote.  settings: those of a fit, and `preset`.
    Otherwise as `Plan`. Raises ValueError for what is unknown or does not fit together.
    """
    if "seed" in settings or "mapping" in settings:
        raise ValueError("a plan has seeds and mappings (several), not seed or mapping")
    check_type(mappings, list[str], "mappings")
    check_type(list(seeds) if isinstance(seeds, range) else seeds, list[int], "seeds")
    check_type(vary or {}, dict[str, list[int | float | str | bool | list[float] | None]], "vary")
    return Plan(
        tuple(find_shapes(meshes)),
        tuple(mappings),
        tuple(seeds),
        settings,
        resolution,
        {name: tuple(map(_hashable, values)) for name, values in (vary or {}).items()},
        read_tuned(Path(tuned)) if tuned else {},
        Path(testsets) if testsets else None,
    )


def read_plan(path: Path, typed: Mapping[str, Any] | None = None, **usual: Any) -> Plan:
    """The plan in a YAML file: `meshes`, and what else of `make_plan` is not as `usual`.

    typed: what takes the place of the file's.
    Paths are relative to the file. Raises ValueError, naming the file, for what is not such a plan.
    """
    import yaml

    try:
        if path.stat().st_size > LARGEST_PLAN:
            raise ValueError(f"{path.stat().st_size:,} bytes, at most {LARGEST_PLAN:,} are read")
        text = path.read_text(encoding="utf-8")
        _check_tokens(text)
        entries = yaml.safe_load(text)
        if not isinstance(entries, dict) or not isinstance(entries.get("meshes"), list):
            raise ValueError("expected keys and values, and under meshes a list")
        check_type(entries, dict[str, Any], "it")
        check_type(entries["meshes"], list[str], "meshes")
        for name in ("tuned", "testsets"):
            check_type(entries.get(name), str | None, name)
        near = {name: _near(path, name) for name in [*entries["meshes"], entries.get("testsets"), entries.get("tuned")]}
        entries["meshes"] = [near[name] for name in entries["meshes"]]
        entries |= {name: near[entries[name]] for name in ("testsets", "tuned") if isinstance(entries.get(name), str)}
        return make_plan(**_over(_over(usual, entries), typed or {}))
    except (OSError, ValueError, TypeError, OverflowError, yaml.YAMLError) as error:
        raise ValueError(f"{path}: not a plan ({one_line(' '.join(str(error).split()))})") from error


def _over(lower: Mapping[str, Any], upper: Mapping[str, Any]) -> dict[str, Any]:
    """Both, and of what is in both the upper; a budget takes the place of another."""
    replaced = BUDGETS if upper.keys() & set(BUDGETS) else ()
    return {name: value for name, value in lower.items() if name not in replaced} | dict(upper)


def _check_tokens(text: str) -> None:
    """Raise ValueError for YAML that grows (aliases), or that its reader takes minutes for (nested brackets)."""
    import yaml

    depth = 0
    for token in yaml.scan(text):
        name = type(token).__name__
        depth += name.endswith("StartToken") - name.endswith("EndToken")
        if depth > DEEPEST:
            raise ValueError("it is nested too deeply")
        if isinstance(token, yaml.AliasToken):
            raise ValueError("aliases (*) are not read; write the value again")


def read_tuned(path: Path) -> dict[str, dict[str, Any]]:
    """What `ff3d tune` wrote: for each mapping, settings of its own. Raises ValueError if it is not."""
    try:
        tuned: dict[str, dict[str, Any]] = read_json(
            path, dict[MappingName, dict[str, int | float | str | bool | None]]
        )
        return tuned
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: not what ff3d tune writes ({one_line(error)})") from error


def matches_plan(folder: Path, plan: Plan) -> bool:
    """Whether a study of these settings, and of no other meshes of these names, lies in the folder."""
    stored = folder / PLAN
    if not stored.exists():
        return False
    kept, now = read_json(stored, Record), provenance(plan)
    if kept["testsets"] and now["testsets"] and "tests" in kept:  # equal test sets may lie elsewhere
        del now["testsets"]
    known = {"meshes": kept["meshes"], "tests": kept.get("tests", {})}
    same = all(known[group].get(name, sha256) == sha256 for group in known for name, sha256 in now.pop(group).items())
    return same and {key: kept.get(key) for key in now} == now


def provenance(plan: Plan) -> dict[str, Any]:
    """What of a plan must be the same when it is resumed. Mappings, seeds and meshes may be added."""
    settings = make_config(**plan.settings | {"mapping": "voxels", "seed": 0}).flat()  # takes every kind of budget
    settings["mapping"] = "none"
    tests = {task.mesh_name: task.testset for task in plan.tasks() if task.testset and task.testset.is_file()}
    recorded = {
        "settings": {key: value for key, value in settings.items() if key not in plan.vary},
        "resolution": plan.resolution,
        "tuned": plan.tuned,
        "testsets": str(plan.testsets or ""),
        "meshes": {name: file_sha256(path) for name, path in plan.names.items()},
        "tests": {name: file_sha256(path) for name, path in tests.items()},
    }
    return dict(json.loads(json.dumps(recorded)))


def _counted(number: int, singular: str, plural: str = "") -> str:
    """A number with its noun.

    >>> _counted(1, "mesh", "meshes"), _counted(2, "mesh", "meshes"), _counted(3, "seed")
    ('1 mesh', '2 meshes', '3 seeds')
    """
    return f"{number} {singular if number == 1 else plural or singular + 's'}"


def _hashable(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _near(plan: Path, name: Any) -> Any:
    """A path of a plan's file, relative to that file if something lies there, or if it is a glob."""
    if not isinstance(name, str):
        return name
    if (plan.parent / name).exists():
        return plan.parent / name
    if is_glob(name) and not Path(name).exists():
        return os.path.join(glob.escape(str(plan.parent)), os.path.expanduser(name))
    return name
