#!/usr/bin/env python3
"""What each part is worth: mappings, targets, samples and optimizers at equal seconds, one table and one picture.

    benchmarks/variants.py FOLDER --set variants --seconds 20 --out runs/variants
                           [--names dragon buddha armadillo] [--seeds 0 1 2]

FOLDER holds meshes/NAME.obj and testsets/NAME.npz. Each fit is a run folder under OUT with a row.json; the same command
again resumes where it was. Fits run one after another in this process, variant by variant within each mesh and seed, so
that a slow hour of the machine falls on all variants alike. Prints a table in Markdown, and draws IoU near the surface
against seconds of labelling and training (means over meshes and seeds, of held-out points) to OUT/SET.png; that needs
`pip install 'ff3d[benchmarks]'`.

A curve is one fit on its way to its budget, whose learning rate falls to 0 at its end: a fit of half the seconds
reaches more than this one has at half time. The sets with several budgets show that.
"""

from __future__ import annotations

import argparse
import itertools
import json
import logging
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from ff3d.points.config import SamplingConfig
from ff3d.points.test_sets import TEST_KINDS
from ff3d.settings import make_config
from ff3d.studies.statistics import curve, summary
from ff3d.studies.task import Row, Task, perform

Variants = dict[str, dict[str, Any]]

PLAIN = {"uniform": SamplingConfig.uniform, "widths": SamplingConfig.widths}
LOWEST = 0.5  # IoU, the lower end of the picture
TUNED = {
    "preset": "plain",
    "mapping": "gaussian",
    "target": "distance",
    "band": 0.003,
    "widths": (0.0005, 0.002, 0.01),
    "batch_size": 4096,
    "learning_rate": 8e-3,
    "schedule": "linear",
}
WAVES = {"mapping": "none", "width": 256, "depth": 4}
SETS: dict[str, Variants] = {
    "variants": {
        "fast: hash, distance, guarded": {},
        "grid": {"mapping": "grid"},
        "planes": {"mapping": "planes"},
        "gaussian": {"mapping": "gaussian"},
        "learned": {"mapping": "learned"},
        "positional": {"mapping": "positional"},
        "basic": {"mapping": "basic"},
        "none": {"mapping": "none"},
        "none, siren": WAVES | {"activation": "siren", "learning_rate": 5e-4},
        "none, finer": WAVES | {"activation": "finer", "learning_rate": 5e-4},
        "none, gaussian activation": WAVES | {"activation": "gaussian", "learning_rate": 2e-3},
        "hash, occupancy": {"target": "occupancy"},
        "hash, points of plain": PLAIN,
        "hash, not guarded, points of plain": PLAIN | {"guarded": False},
        "gaussian, plain": {"preset": "plain", "mapping": "gaussian"},
        "hash, plain": {"preset": "plain", "mapping": "hash"},
        "gaussian, paper": {"preset": "paper", "mapping": "gaussian"},
    },
    "gaussian": {
        "tuned, 2 x 256": TUNED | {"depth": 2},
        "tuned, 3 x 256": TUNED | {"depth": 3},
        "tuned, labels": TUNED | {"depth": 3, "target": "occupancy"},
        "plain": {"preset": "plain", "mapping": "gaussian"},
        "paper": {"preset": "paper", "mapping": "gaussian"},
    },
    "fast": {"fast": {}},
    "best": {"best": {"preset": "best"}},
    "direct": {"direct": {"preset": "direct"}},
}


def rows_of(variants: Variants, options: argparse.Namespace) -> dict[str, list[Row]]:
    """The rows of each variant, as they are done."""
    found: dict[str, list[Row]] = {name: [] for name in variants}
    for mesh in options.names:
        for seed in options.seeds:
            for name, settings in variants.items():
                own = {"preset": "fast"} | settings
                config = make_config(seconds=options.seconds, seed=seed, **own)
                task = Task(
                    options.folder / "meshes" / f"{mesh}.obj",
                    config,
                    {},
                    testset=options.folder / "testsets" / f"{mesh}.npz",
                )
                place = f"{mesh}-{name.translate(str.maketrans(' ', '-', '(),'))}-{options.seconds:g}s-{seed}"
                row, done = perform(task, options.out / place)
                if not done:
                    raise KeyboardInterrupt
                found[name].append(row)
                scores = " ".join(f"{row.iou.get(kind, float('nan')):.4f}" for kind in TEST_KINDS)
                print(
                    f"{mesh:10} {seed} {name:36} {scores} {row.steps:6} {row.seconds:6.1f} {row.failure or ''}",
                    flush=True,
                )
    return found


def table(found: dict[str, list[Row]]) -> str:
    """Means and standard deviations, a line a variant, the best near the surface first."""
    heads = [*TEST_KINDS, "Chamfer", "normals", "steps", "labels s", "parameters", "KB", "failed"]
    lines = [f"| variant | {' | '.join(heads)} |", "|---" + "|---:" * len(heads) + "|"]

    def of(rows: list[Row], measure: str) -> float:
        return summary(rows, measure)[0]

    for name, rows in sorted(found.items(), key=lambda it: -np.nan_to_num(of(it[1], "iou.boundary_area"))):
        iou = []
        for kind in TEST_KINDS:
            values = [row.iou[kind] for row in rows if row.iou]
            iou.append(f"{np.mean(values):.4f} ({np.std(values):.4f})" if values else "")
        rest = [
            f"{of(rows, 'surface.chamfer'):.5f}",
            f"{of(rows, 'surface.normal_consistency'):.4f}",
            f"{of(rows, 'steps'):,.0f}",
            f"{of(rows, 'label_seconds'):.1f}",
            f"{of(rows, 'parameters'):,.0f}",
            f"{of(rows, 'bytes') / 1000:,.0f}",
            f"{sum(bool(it.failure) for it in rows)}",
        ]
        lines.append(f"| {name} | {' | '.join(iou + rest)} |")
    return "\n".join(lines)


def picture(found: dict[str, list[Row]], path: Path, title: str) -> None:
    """IoU near the surface against seconds; a step upwards divides what is wrong by the same factor everywhere."""
    try:
        import matplotlib as mpl
    except ImportError:
        print("no picture without matplotlib: pip install 'ff3d[benchmarks]'")
        return
    mpl.use("agg")
    from matplotlib import pyplot as plt

    def height(scores: Any) -> Any:
        return -np.log10(1 - np.maximum(scores, LOWEST))

    figure, axes = plt.subplots(figsize=(11, 6.5), constrained_layout=True)
    colors = plt.get_cmap("tab20").colors
    ends: list[tuple[float, str, Any]] = []
    for (name, rows), color in zip(found.items(), itertools.cycle(colors), strict=False):
        points = curve(rows, "boundary_area")
        if points:
            seconds, scores, _ = np.array(points).T
            axes.plot(seconds, height(scores), color=color, marker="o", markersize=3, linewidth=1.5)
            ends.append((float(height(scores[-1])), name, color))
    bottom, top = height(LOWEST), max(it[0] for it in ends) + 0.1
    ticks = [it for it in (0.5, 0.7, 0.8, 0.9, 0.95, 0.97, 0.98, 0.99, 0.995, 0.998, 0.999) if height(it) < top]
    axes.set_yticks([height(it) for it in ticks], [f"{it:g}" for it in ticks])
    axes.set_ylim(bottom, top)
    axes.set_xlim(left=0)
    place = -np.inf
    for end, name, color in sorted(ends):  # names at the right end, apart from each other
        place = max(place + (top - bottom) / 34, end)
        where = (1.01, (place - bottom) / (top - bottom))
        axes.annotate(name, where, xycoords="axes fraction", color=color, fontsize=9, va="center")
    axes.grid(alpha=0.3)
    axes.set_xlabel("seconds of labelling and training")
    axes.set_ylabel("IoU near the surface (by area), held-out points")
    axes.set_title(title, loc="left")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main(arguments: Iterable[str] | None = None) -> None:
    """Fit what is missing, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--set", default="variants", choices=SETS)
    parser.add_argument("--names", nargs="+", default=["dragon", "buddha", "armadillo"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--only", nargs="+", help="some variants of the set, by the start of their names")
    parser.add_argument("--out", type=Path, default=Path("runs/variants"))
    options = parser.parse_args(None if arguments is None else list(arguments))
    logging.basicConfig(level=logging.WARNING)
    chosen = {
        name: settings
        for name, settings in SETS[options.set].items()
        if not options.only or name.startswith(tuple(options.only))
    }
    begun = time.perf_counter()
    found = rows_of(chosen, options)
    name = f"{options.set}-{options.seconds:g}s"
    text = table(found)
    print(f"\n{len(options.names)} meshes x {len(options.seeds)} seeds, {options.seconds:g} s each\n\n{text}")
    print(f"\n{time.perf_counter() - begun:.0f} s")
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / f"{name}.md").write_text(text + "\n", encoding="utf-8")
    (options.out / f"{name}.json").write_text(
        json.dumps({variant: [json.loads(row.to_json()) for row in rows] for variant, rows in found.items()}),
        encoding="utf-8",
    )
    picture(found, options.out / f"{name}.png", f"{', '.join(options.names)}: {options.seconds:g} s each")


if __name__ == "__main__":
    main()
