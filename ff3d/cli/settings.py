"""The settings of a fit as options: those of `ff3d.settings`, all of them absent until a person gives them."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import textwrap
from functools import cache
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from tyro.conf import arg

from ff3d.settings import OPTIONS, PRESETS, Option

FIRST = ("preset", "seconds", "steps", "bytes", "mapping", "seed", "device", "storage")  # what people need first
TITLES = {
    "mapping": "the input mapping",
    "network": "the network",
    "sampling": "the points that it is taught on",
    "optimiser": "how it is taught",
}


@cache  # reading a class's source takes 10 ms
def _descriptions(kind: type) -> dict[str, str]:
    """The text below each field of a dataclass."""
    body = ast.parse(textwrap.dedent(inspect.getsource(kind))).body[0]
    assert isinstance(body, ast.ClassDef)
    found = {}
    for field, text in zip(body.body, body.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(text, ast.Expr):
            found[field.target.id] = " ".join(str(ast.literal_eval(text.value)).split())
    return found


def _shown(value: Any) -> str:
    return " ".join(map(str, value)) or "none" if isinstance(value, tuple) else str(value)


def _hint(name: str, option: Option) -> str:
    """What an option is where it is not given, and in which presets that differs."""
    default = None if option.field.default is dataclasses.MISSING else option.field.default
    differing: dict[str, list[str]] = {}
    for preset, values in PRESETS.items():
        if name in values:
            differing.setdefault(_shown(values[name]), []).append(preset)
    usual = [] if default is None or name == "preset" else [f"default: {_shown(default)}"]
    parts = usual + [f"{', '.join(presets)}: {value}" for value, presets in differing.items()]
    return f"({'; '.join(parts)})" if parts else ""


def _metavar(hint: Any) -> str:
    """How a value of this type is called in the help."""
    kind = next((part for part in get_args(hint) if part is not type(None)), hint) if get_origin(hint) else hint
    if get_origin(hint) is Literal or get_origin(kind) is Literal:
        return "{" + ",".join(get_args(hint if get_origin(hint) is Literal else kind)) + "}"
    if get_origin(hint) is tuple:
        return "[FLOAT ...]"
    return {int: "INT", float: "FLOAT", str: "STR"}[kind]


def _group(title: str, names: list[str]) -> type:
    """A dataclass of these settings, None where they are not given; a switch has an option for each of its states."""
    fields: list[tuple[str, Any, Any]] = []
    for name in names:
        option = OPTIONS[name]
        hint = get_type_hints(option.kind)[option.field.name]
        help_text = _descriptions(option.kind)[option.field.name]
        if hint is bool:
            for flag, words in ((name, help_text), (f"no_{name}", f"not so, whatever the preset says: see --{name}")):
                fields.append((flag, Annotated[bool, arg(help=words, help_behavior_hint=_hint(name, option))], False))
        else:
            extra = arg(help=help_text, metavar=_metavar(hint), help_behavior_hint=_hint(name, option))
            fields.append((name, Annotated[hint | None, extra], None))
    kind: type = dataclasses.make_dataclass("Options", [(n, t, dataclasses.field(default=v)) for n, t, v in fields])
    kind.__doc__ = title
    return kind


def _settings() -> type:
    """The dataclass of all options: the first ones, then a group for each nested config."""
    groups: list[tuple[str, Any, Any]] = []
    for group, title in TITLES.items():
        names = [name for name, option in OPTIONS.items() if option.group == group and name not in FIRST]
        kind = _group(title, names)
        groups.append((f"{group}_options", Annotated[kind, arg(name=group)], dataclasses.field(default_factory=kind)))
    return dataclasses.make_dataclass("Settings", groups, bases=(_group("the settings of a fit", list(FIRST)),))


Settings: Any = _settings()


def given(settings: Any) -> dict[str, Any]:
    """The settings that were given, by name: what `make_config` takes."""
    values: dict[str, Any] = {}
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if dataclasses.is_dataclass(value):
            values |= given(value)
        elif isinstance(value, bool):
            values |= {field.name.removeprefix("no_"): not field.name.startswith("no_")} if value else {}
        elif value is not None:
            values[field.name] = value
    return values
