#!/usr/bin/env python3
"""Fields fitted to broken meshes of which the truth is known: labels or distances as targets, beside a plain fit.

    benchmarks/broken_fits.py [--cases 40] [--first 0] [--seconds 6] [--points 100000] [--arms fast ...] [--out FILE]

Cases and points are those of benchmarks/broken.py, without the sheets, which have no inside. IoU is of the field with
the exact solid: uniform, and at N(0, 0.01 side) about the mesh's surface. The labels that the field learned are scored
beside it: no field is meant to be better. An arm that fails on a case scores 0 there, and the reason is printed.
Arms take turns case by case. One line a case goes to --out as JSON.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from broken import case_points
from tqdm import tqdm

import ff3d
from ff3d.breaking import GROUPS, broken_mesh
from ff3d.metrics import iou_of_labels

ARMS: dict[str, dict[str, Any]] = {
    "fast": {"preset": "fast"},
    "fast, labels": {"preset": "fast", "target": "occupancy"},
    "gaussian, plain": {"preset": "plain", "mapping": "gaussian"},
}
LABELS = "the labels"
KINDS = ("uniform", "near")


def measured(seed: int, arms: list[str], seconds: float, points: int) -> dict[str, Any] | None:
    """The IoU of each arm on a case, uniform and near; None for a sheet."""
    case = broken_mesh(seed)
    if not case.enclosing:
        return None
    asked, kept = case_points(case, points, seed)
    truth = case.contains(asked)
    row: dict[str, Any] = {"seed": seed, "name": case.name, "faces": len(case.mesh.faces), "faults": case.faults}
    row |= {"iou": {}, "failures": {}}
    for arm in (LABELS, *arms):
        try:
            contains = (
                ff3d.make_oracle(case.mesh)
                if arm == LABELS
                else ff3d.fit(case.mesh, seconds=seconds, **ARMS[arm]).contains
            )
            found = contains(asked)
            row["iou"][arm] = [iou_of_labels(found[part], truth[part]) for part in kept]
        except (ValueError, RuntimeError) as error:
            row["iou"][arm], row["failures"][arm] = [0.0, 0.0], str(error)
    return row


def main() -> None:
    """Fit, write a JSON line a case, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=40)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--points", type=int, default=100_000)
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS))
    parser.add_argument("--out", type=Path, default=None)
    options = parser.parse_args()
    rows = []
    for seed in tqdm(range(options.first, options.first + options.cases), unit=" cases"):
        row = measured(seed, options.arms, options.seconds, options.points)
        if row is None:
            continue
        rows.append(row)
        if options.out:
            with options.out.open("a") as file:
                file.write(json.dumps(row) + "\n")
    print(f"| {len(rows)} cases, {options.seconds:g} s | uniform | near | worst uniform | worst near | failed |")
    print("|---|---:|---:|---:|---:|---:|")
    for arm in (LABELS, *options.arms):
        scores = np.array([row["iou"][arm] for row in rows])
        numbers = " | ".join(f"{it:.4f}" for it in (*scores.mean(axis=0), *scores.min(axis=0)))
        print(f"| {arm} | {numbers} | {sum(arm in row['failures'] for row in rows)} |")
    print("\nMean IoU near the surface by fault:\n\n| cases with | " + " | ".join((LABELS, *options.arms)) + " |")
    print("|---" + "|---:" * (1 + len(options.arms)) + "|")
    for group in GROUPS:
        chosen = [row for row in rows if any(it.startswith(group) for it in row["faults"])]
        if chosen:
            means = [np.mean([row["iou"][arm][1] for row in chosen]) for arm in (LABELS, *options.arms)]
            print(f"| {group} ({len(chosen)}) | " + " | ".join(f"{it:.4f}" for it in means) + " |")
    for row in rows:
        for arm, why in row["failures"].items():
            print(f"{row['seed']} {row['name']}, {arm}: {why}")


if __name__ == "__main__":
    main()
