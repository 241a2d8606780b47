#!/usr/bin/env python3
"""Fields fitted to broken meshes of which the truth is known: labels or distances as targets, beside a plain fit.

    benchmarks/broken_fits.py [--cases 40] [--first 0] [--seconds 6] [--points 100000] [--variants fast ...]
                              [--out FILE] [--parts 0]

Cases and points are those of benchmarks/broken.py, without the sheets, which have no inside; or with --parts, heaps of
so many boxes that overlap, most of whose surface lies hidden in the solid. IoU is of the field with
the exact solid: uniform, and at N(0, 0.01 side) about the mesh's surface. The labels that the field learned are scored
beside it: no field is meant to be better. A variant that fails on a case scores 0 there, and the reason is printed.
Variants take turns case by case. One line a case goes to --out as JSON.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import trimesh
from broken import case_points
from numpy.typing import NDArray
from tqdm import tqdm
from trimesh.transformations import random_rotation_matrix

import ff3d
from ff3d.metrics import iou_of_labels
from ff3d.shapes.broken import CUT, GROUPS, BrokenMesh, broken_mesh

VARIANTS: dict[str, dict[str, Any]] = {
    "direct": {"preset": "direct"},
    "fast": {"preset": "fast"},
    "fast, labels": {"preset": "fast", "target": "occupancy"},
    "gaussian, plain": {"preset": "plain", "mapping": "gaussian"},
}
LABELS = "the labels"
KINDS = ("uniform", "near")


def heap(seed: int, parts: int) -> BrokenMesh:
    """So many boxes, anyhow, of .1 to .5, about one unit together; the solid is their union."""
    rng = np.random.default_rng([seed, parts])
    turns, places = (random_rotation_matrix(rng.random(3)) for _ in range(parts)), rng.uniform(-0.4, 0.4, (parts, 3))
    boxes = [trimesh.creation.box(rng.uniform(0.1, 0.5, 3), turn) for turn in turns]
    for box, place in zip(boxes, places, strict=True):
        box.apply_translation(place)

    def contains(points: NDArray[np.float64]) -> NDArray[np.bool_]:
        inside = np.zeros(len(points), dtype=bool)
        for box in boxes:
            normals, middles = box.face_normals, box.triangles_center
            inside |= (points @ normals.T < np.einsum("fd,fd->f", normals, middles)).all(axis=1)
        return inside

    mesh: Any = trimesh.util.concatenate(boxes)
    return BrokenMesh(f"{parts} boxes", mesh, (f"{CUT}: heap",), 0.0, True, contains)


def measured(case: BrokenMesh, seed: int, variants: list[str], seconds: float, points: int) -> dict[str, Any]:
    """The IoU of each variant on a case, uniform and near."""
    asked, kept = case_points(case, points, seed)
    truth = case.contains(asked)
    row: dict[str, Any] = {"seed": seed, "name": case.name, "faces": len(case.mesh.faces), "faults": case.faults}
    row |= {"iou": {}, "failures": {}}
    for variant in (LABELS, *variants):
        try:
            contains = (
                ff3d.make_oracle(case.mesh)
                if variant == LABELS
                else ff3d.fit(case.mesh, seconds=seconds, **VARIANTS[variant]).contains
            )
            found = contains(asked)
            row["iou"][variant] = [iou_of_labels(found[part], truth[part]) for part in kept]
        except (ValueError, RuntimeError) as error:
            row["iou"][variant], row["failures"][variant] = [0.0, 0.0], str(error)
    return row


def main() -> None:
    """Fit, write a JSON line a case, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=40)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--points", type=int, default=100_000)
    parser.add_argument("--parts", type=int, default=0)
    parser.add_argument("--variants", nargs="+", choices=list(VARIANTS), default=list(VARIANTS))
    parser.add_argument("--out", type=Path, default=None)
    options = parser.parse_args()
    rows = []
    for seed in tqdm(range(options.first, options.first + options.cases), unit=" cases"):
        case = heap(seed, options.parts) if options.parts else broken_mesh(seed)
        if not case.enclosing:
            continue
        rows.append(row := measured(case, seed, options.variants, options.seconds, options.points))
        if options.out:
            with options.out.open("a") as file:
                file.write(json.dumps(row) + "\n")
    print(f"| {len(rows)} cases, {options.seconds:g} s | uniform | near | worst uniform | worst near | failed |")
    print("|---|---:|---:|---:|---:|---:|")
    for variant in (LABELS, *options.variants):
        scores = np.array([row["iou"][variant] for row in rows])
        numbers = " | ".join(f"{it:.4f}" for it in (*scores.mean(axis=0), *scores.min(axis=0)))
        print(f"| {variant} | {numbers} | {sum(variant in row['failures'] for row in rows)} |")
    print("\nMean IoU near the surface by fault:\n\n| cases with | " + " | ".join((LABELS, *options.variants)) + " |")
    print("|---" + "|---:" * (1 + len(options.variants)) + "|")
    for group in GROUPS:
        chosen = [row for row in rows if any(it.startswith(group) for it in row["faults"])]
        if chosen:
            means = [np.mean([row["iou"][variant][1] for row in chosen]) for variant in (LABELS, *options.variants)]
            print(f"| {group} ({len(chosen)}) | " + " | ".join(f"{it:.4f}" for it in means) + " |")
    for row in rows:
        for variant, why in row["failures"].items():
            print(f"{row['seed']} {row['name']}, {variant}: {why}")


if __name__ == "__main__":
    main()
