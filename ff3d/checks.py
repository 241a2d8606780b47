"""Settings checked by their types: known choices, whole numbers, and numbers that must be positive."""

from __future__ import annotations

import dataclasses
import math
from functools import cache
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints


@cache
def _hints(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind)


def check_settings(config: Any, *, positive: tuple[str, ...] = (), named: dict[str, str] | None = None) -> None:
    """Raise ValueError, with what is known or expected, for a value that a frozen dataclass of settings cannot have.

    Fields annotated as a Literal must hold one of its values, those of int a whole number.  positive: fields that must
    be finite and above 0, or None where that is allowed.  named: what a field is called in messages, if not its name.
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
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if field.name in positive and not (number and math.isfinite(value) and value > 0):
            raise ValueError(f"{name} must be positive, got {value}")
        if int in kinds and float not in kinds and not (number and value == int(value)):
            raise ValueError(f"{name} must be a whole number, got {value!r}")
        if float in kinds and not (number and math.isfinite(value)):
            raise ValueError(f"{name} must be a finite number, got {value!r}")
        if bool in kinds and not isinstance(value, bool):
            raise ValueError(f"{name} must be true or false, got {value!r}")
