"""What is given checked by its types: settings, and JSON as it is read; and errors in one line."""

from __future__ import annotations

import dataclasses
import json
from functools import cache
from numbers import Integral, Real
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints, is_typeddict

LARGEST = 1e300  # of a number that is given
LONGEST = 300  # characters of a message
LARGEST_JSON = 2**26  # bytes of a JSON file that is read
MOST_DIGITS = 300  # of a whole number in JSON: more would not fit a float
MOST_SEEDS = 2**63  # what numpy, torch and Parquet take


@cache
def _hints(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind)


def check_settings(config: Any, *, positive: tuple[str, ...] = (), named: dict[str, str] | None = None) -> None:
    """Raise ValueError, with what is known or expected, for a value that a frozen dataclass of settings cannot have.

    Fields annotated as a Literal must hold one of its values, those of int a whole number. Numbers become Python's own:
    2e2 and numpy's 200 the int 200 where a whole number is expected.  positive: fields that must be finite and above 0,
    or None where that is allowed.  named: what a field is called in messages, if not its name.
    """
    kind: Any = type(config)
    hints = _hints(kind)
    for field in dataclasses.fields(config):
        value, hint = getattr(config, field.name), hints[field.name]
        name = (named or {}).get(field.name, field.name)
        kinds = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
        if value is None and type(None) in kinds:
            continue
        choices = [choice for kind in kinds if get_origin(kind) is Literal for choice in get_args(kind)]
        if choices and value not in choices:
            raise ValueError(f"unknown {name} {value!r}; known: {', '.join(map(str, choices))}")
        number, whole = _number(value), int in kinds and float not in kinds
        if field.name in positive and (number is None or number <= 0):
            raise ValueError(f"{name} must be positive, got {shown(value)}")
        if whole and (number is None or number != int(number)):
            raise ValueError(f"{name} must be a whole number, got {shown(value)}")
        if float in kinds and number is None:
            raise ValueError(f"{name} must be a finite number, got {shown(value)}")
        if bool in kinds and not isinstance(value, bool):
            raise ValueError(f"{name} must be true or false, got {value!r}")
        if number is not None and (whole or float in kinds):
            object.__setattr__(config, field.name, int(number) if whole else number)


def _number(value: Any) -> float | None:
    """A finite number of any type, numpy's too, as an int or a float; None for what is none, and for true and false."""
    if isinstance(value, bool) or not isinstance(value, Real):
        return None
    number = int(value) if isinstance(value, Integral) else float(value)
    return number if abs(number) < LARGEST else None


def check_seed(value: Any, name: str = "seed") -> None:
    """Raise ValueError for what is no seed."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < MOST_SEEDS:
        raise ValueError(f"{name} must be a whole number from 0 to 2^63 - 1, got {shown(value)}")


def read_json(path: Path, kind: Any) -> Any:
    """What a JSON file holds, checked as by `check_type`. Raises ValueError, in one line, or FileNotFoundError."""
    if path.stat().st_size > LARGEST_JSON:
        raise ValueError(f"{path.stat().st_size / 1e6:,.0f} MB, at most {LARGEST_JSON / 1e6:,.0f} are read")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise ValueError("it is not a text (UTF-8)") from None
    return parse_json(text, kind)


def parse_json(text: str, kind: Any) -> Any:
    """What a JSON text holds, checked as by `check_type`. Raises ValueError, in one line."""
    try:
        value = json.loads(text, parse_int=_whole)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    check_type(value, kind, "it")
    return value


def check_type(value: Any, kind: Any, name: str) -> None:
    """Raise ValueError, naming the place, unless plain data is of a type.

    kind: Any, None, bool, int, float (whole numbers too), str, list[...], tuple[..., ...] (a list), dict[str, ...], a
    Literal, a union; a TypedDict, which may have other keys too; a dataclass, of whose fields it may have no others.
    """
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        if not any(_is_type(value, each, name) for each in inner):
            _refuse(value, kind, name)
    elif origin is Literal:
        if not any(value == each and type(value) is type(each) for each in inner):
            raise ValueError(f"unknown {name} {shown(value)}; known: {', '.join(map(str, inner))}")
    elif origin in (list, tuple):
        if not isinstance(value, list | tuple):
            _refuse(value, kind, name)
        for number, each in enumerate(value):
            check_type(each, inner[0], f"{name}[{number}]")
    elif origin is dict:
        if not isinstance(value, dict):
            _refuse(value, kind, name)
        for key, each in value.items():
            check_type(key, inner[0], f"a key of {name}")
            check_type(each, inner[1], f"{name}.{shown(key)}")
    elif is_typeddict(kind) or dataclasses.is_dataclass(kind):
        if not isinstance(value, dict):
            _refuse(value, kind, name)
        hints = _hints(kind)
        if is_typeddict(kind):
            required = kind.__required_keys__
        else:
            required = {field.name for field in dataclasses.fields(kind) if _has_no_default(field)}
            if others := sorted(map(shown, value.keys() - hints.keys())):
                raise ValueError(f"unknown {others[0]} in {name}")
        if missing := sorted(required - value.keys()):
            raise ValueError(f"no {missing[0]} in {name}")
        for key in hints.keys() & value.keys():
            check_type(value[key], hints[key], key if name == "it" else f"{name}.{key}")
    elif kind is float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            _refuse(value, kind, name)
    elif kind is not Any and type(value) is not (type(None) if kind is None else kind):
        _refuse(value, kind, name)


def _is_type(value: Any, kind: Any, name: str) -> bool:
    try:
        check_type(value, kind, name)
    except ValueError:
        return False
    return True


def _refuse(value: Any, kind: Any, name: str) -> None:
    words = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}
    expected = words.get(kind) or {list: "a list", tuple: "a list", dict: "an object"}.get(get_origin(kind))
    if get_origin(kind) in (Union, UnionType):
        expected = " or ".join(words.get(each) or str(each) for each in get_args(kind) if each is not type(None))
    raise ValueError(f"{name} must be {expected or 'an object'}, got {shown(value)}")


def _has_no_default(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _whole(digits: str) -> int:
    if len(digits) > MOST_DIGITS:
        raise ValueError(f"a number of {len(digits)} digits")
    return int(digits)


def shown(value: Any) -> str:
    """A value for a message, at most 40 characters."""
    text = repr(value) if isinstance(value, str | int | float | None) else type(value).__name__
    return text if len(text) <= 40 else text[:37] + "..."


def one_line(error: BaseException | str) -> str:
    """The message of an error in one line of at most `LONGEST` characters: its start and its end."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    line = lines[0] if lines else type(error).__name__
    return line if len(line) <= LONGEST else f"{line[: LONGEST // 2]} ... {line[5 - LONGEST // 2 :]}"
