#!/usr/bin/env python3
"""Draw docs/quality/race.png from docs/rows: the error near the surface against seconds and kilobytes.

    benchmarks/draw_quality.py [--out docs/quality/race.png]

The error is 1 - IoU on points near the surface, drawn by faces; both axes are logarithmic. Needs matplotlib.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
TICKS = (0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999, 0.9995)
IOU = "boundary-by-faces"
COLORS = {
    "grid": "0.45",
    "direct": "tab:red",
    "lattice": "tab:red",
    "voxels": "tab:orange",
    "fast": "tab:blue",
    "best": "tab:purple",
    "Draco": "0.2",
    "PLY": "0.7",
}
Series = dict[str, list[tuple[float, float]]]


def rows(name: str) -> list[dict[str, Any]]:
    """The rows of a table of the docs, without its first line."""
    lines = (ROOT / f"docs/rows/{name}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines[1:]]


def mean(value: float | list[float]) -> float:
    """A value, or the mean of a mean and its spread."""
    return value[0] if isinstance(value, list) else value


def series_of(row: dict[str, Any]) -> str:
    """What a row is of, without its size or seconds."""
    return str(row["what"]).strip("`").split("`")[0].split(",")[0]


def against_seconds() -> Series:
    """Seconds and errors of the sampled grid and of the presets."""
    found: Series = {}
    for row in rows("seconds"):
        name = series_of(row)
        found.setdefault(name, []).append((row["seconds"], 1 - row[IOU]))
    for row in rows("networks"):
        name, _, seconds = row["variant"].partition(",")
        if name == "best":
            found.setdefault(name, []).append((float(seconds.split()[0]), 1 - mean(row[IOU])))
    return found


def against_kilobytes() -> Series:
    """Kilobytes and errors: means over the meshes of a row."""
    found: Series = {}
    for row in rows("bytes-draco"):
        name = series_of(row)
        sizes = [value for key, value in row.items() if key.startswith("kb")]
        scores = [value for key, value in row.items() if key.startswith("by-faces")]
        found.setdefault(name, []).append((sum(sizes) / len(sizes), 1 - sum(scores) / len(scores)))
    for row in rows("bytes-meshes"):
        found.setdefault("PLY", []).append((row["ply-kb"], 1 - float(row["boundary-by-faces-area"].split("/")[0])))
    for row in rows("seconds"):
        if (name := series_of(row)) in ("grid", "direct"):
            found.setdefault(name, []).append((row["kb"], 1 - row[IOU]))
    for row in rows("networks"):
        if (name := row["variant"].partition(",")[0]) in ("fast", "best"):
            found.setdefault(name, []).append((row["kb"], 1 - mean(row[IOU])))
    return found


def draw(panel: Any, series: Series, label: str, ours: Iterable[str]) -> None:
    """One panel; `ours` are drawn bolder."""
    for name, points in series.items():
        across, error = zip(*sorted(points), strict=True)
        style = "--" if name == "direct" and "lattice" in series else "-"
        width = 2.6 if name in ours else 1.4
        panel.plot(across, error, style, marker="o", markersize=4, color=COLORS[name], label=name, linewidth=width)
    panel.set_xscale("log")
    panel.set_yscale("log")
    panel.set_ylim(0.3, 4e-4)
    panel.set_yticks([1 - tick for tick in TICKS], [f"{tick:g}" for tick in TICKS])
    panel.set_yticks([], minor=True)
    panel.xaxis.set_major_formatter("{x:g}")
    panel.set_xlabel(label)
    panel.grid(alpha=0.3)
    panel.legend(loc="lower right")


def main() -> None:
    """Read the rows, draw, write."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot as plt

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "docs/quality/race.png")
    options = parser.parse_args()
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.8), sharey=True, constrained_layout=True)
    draw(left, against_seconds(), "seconds, set-up included", ["direct"])
    draw(right, against_kilobytes(), "kilobytes", ["lattice", "direct"])
    left.set_ylabel("IoU near the surface (by faces)")
    figure.savefig(options.out, dpi=100)


if __name__ == "__main__":
    main()
