"""What the HTML pages share: templates that escape every text, and line charts. A page requests nothing from a host."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from ff3d.files import write_text

WIDTH, HEIGHT = 100, 60  # of a chart's box


def rendered(template: str, **values: Any) -> str:
    """A template of `ff3d/views/templates`, filled in; every text is escaped, a missing value is an error.

    Names of files that are not UTF-8 have question marks in them.
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("ff3d.views"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["csp_hash"] = _hash
    return environment.get_template(template).render(**values).encode("utf-8", "replace").decode("utf-8")


@dataclass(frozen=True)
class Section:
    """A part of a page of charts: its heading, charts of `line_chart`, a table (heads first), and what they say.

    picture: a data: address.
    """

    heading: str
    charts: Sequence[dict[str, Any]] = ()
    rows: Sequence[Sequence[str]] = ()
    text: str = ""
    picture: str = ""


def write_chart_page(path: str | Path, *, title: str, about: str, sections: Sequence[Section], command: str) -> None:
    """Write a page of tables and charts, without any script, atomically."""
    write_text(
        path,
        rendered("charts.html", title=title, about=about, sections=sections, provenance=machine_provenance(command)),
    )


def machine_provenance(command: str) -> list[tuple[str, str]]:
    """The command, the versions and the machine, as pairs of a name and its value."""
    import torch

    import ff3d

    return [
        ("command", command or "(from Python)"),
        ("ff3d", ff3d.__version__),
        ("torch", torch.__version__),
        ("machine", f"{platform.platform()}, {torch.get_num_threads()} threads"),
    ]


def script_data(value: Any) -> Markup:
    """JSON for a script element of the page: nothing in it can end the element."""
    return Markup(json.dumps(value).replace("<", "\\u003c"))  # noqa: S704  (escaped)


def base64_of(data: bytes) -> str:
    """The bytes as base64 text."""
    return base64.b64encode(data).decode("ascii")


def _hash(text: str) -> str:
    """The source of a Content-Security-Policy that allows this script and no other."""
    return f"sha256-{base64_of(hashlib.sha256(text.encode()).digest())}"


def line_chart(
    title: str,
    against: str,
    lines: Sequence[tuple[str, Sequence[tuple[float, float]]]],
    *,
    log_x: bool = False,
    log_y: bool = False,
) -> dict[str, Any]:
    """What the template chart.html draws: lines of points (x, y) by name, in a box 100 wide and 60 high, y down.

    Points that are not finite, or not positive on a logarithmic axis, are left out; without any there is no line.
    """
    usable = [
        (index, name, [(x, y) for x, y in points if _on_axis(x, log_x) and _on_axis(y, log_y)])
        for index, (name, points) in enumerate(lines)
    ]
    usable = [line for line in usable if line[2]]
    every = [point for _, _, points in usable for point in points]
    if not every:
        return {"title": title, "against": against, "lines": [], "ticks": [], "marks": []}
    across, marks = _axis([x for x, _ in every], log_x)
    up, ticks = _axis([y for _, y in every], log_y)
    return {
        "title": title,
        "against": against,
        "ticks": [(mark_text(it), HEIGHT * (1 - up(it))) for it in ticks],
        "marks": apart([(mark_text(it), WIDTH * across(it)) for it in marks]),
        "lines": [
            {
                "index": index,
                "name": name,
                "last": f"{points[-1][1]:.4g} at {points[-1][0]:g}",
                "points": [(WIDTH * across(x), HEIGHT * (1 - up(y))) for x, y in points],
            }
            for index, name, points in usable
        ],
    }


def _on_axis(value: float, logarithmic: bool) -> bool:
    return math.isfinite(value) and (value > 0 or not logarithmic)


def _axis(values: Sequence[float], logarithmic: bool) -> tuple[Callable[[float], float], list[float]]:
    """Where a value is on an axis, 0 to 1, and the axis's marks."""
    low, high = min(values), max(values)
    if not logarithmic:
        step = _round_step(high - low or abs(high) or 1.0)
        first, last = math.floor(low / step * (1 + 1e-9)), math.ceil(high / step * (1 - 1e-9))
        last = max(last, first + 1)
        marks = [float(f"{index * step:.6g}") for index in range(first, last + 1)]
        start, span = first * step, (last - first) * step
        return lambda value: (value - start) / span, marks
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    fine = math.log10(high / low) < 1.5
    marks = [float(f"{digit}e{decade}") for decade in decades for digit in ((1, 2, 5) if fine else (1,))]
    marks = [mark for mark in marks if low <= mark <= high]
    if len(marks) < 2 and high > low:  # too narrow for powers of ten
        step = _round_step(high - low)
        marks = [float(f"{index * step:.6g}") for index in range(math.ceil(low / step), math.floor(high / step) + 1)]
    if len(marks) > 8:
        marks = marks[:: math.ceil(len(marks) / 8)]
    start, span = math.log(low), math.log(high / low) or 1.0
    return lambda value: (math.log(value) - start) / span, marks or [low]


def mark_text(value: float) -> str:
    """A mark of an axis, as short as there is room for.

    >>> mark_text(0.25), mark_text(0.00025), mark_text(1e5), mark_text(1e-12), mark_text(0.0)
    ('0.25', '2.5e-4', '100000', '1e-12', '0')
    """
    if value == 0 or abs(value) >= 0.001:
        return f"{value:g}"
    digits, _, exponent = f"{value:e}".partition("e")
    return f"{float(digits):g}e{int(exponent)}"


def apart(marks: list[tuple[str, float]]) -> list[tuple[str, float]]:
    """The marks of an axis without those whose text would overlap with the one before."""
    kept = marks[:1]
    for text, at in marks[1:]:
        if at - kept[-1][1] > 12:
            kept.append((text, at))
    return kept


def round_steps(end: float) -> list[float]:
    """Three to seven round numbers from 0 to `end`.

    >>> round_steps(20.0)
    [0.0, 5.0, 10.0, 15.0, 20.0]
    """
    step = _round_step(end)
    return [float(f"{index * step:.6g}") for index in range(int(end / step * (1 + 1e-9)) + 1)]


def _round_step(length: float) -> float:
    """A step of 1, 2 or 5 times a power of ten that divides `length` into two to six."""
    power = 10.0 ** math.floor(math.log10(length))
    return next(share * power for share in (0.2, 0.5, 1.0, 2.0) if length / (share * power) < 6)
