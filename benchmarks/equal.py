#!/usr/bin/env python3
"""The four mappings on the same terms, each of three: equal steps, equal seconds, equal parameters; and He's weights.

    benchmarks/equal.py FOLDER [--names bunny knot gyroid bracket soup dragon buddha armadillo] [--seeds 0 1 2]
                        [--terms steps seconds parameters he] [--steps 250] [--batch-size 4096] [--seconds 8]
                        [--parameters 200000] [--out runs/equal.jsonl] [--rows FILE]

FOLDER holds meshes/NAME.obj of what is no sample shape, and testsets/NAME.npz; what has none gets one beside --out.
Preset `plain`, which was tuned on Lucy. Each fit is a line of --out; the same command again makes only those that are
not there yet, and prints the table: IoU of `boundary_face` points, mean and standard deviation over seeds.
`he`: equal steps, from the weights of He et al. 2015.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from rows import write_rows
from seconds import test_sets
from tqdm import tqdm

from ff3d.fields.config import PAPER_MAPPINGS
from ff3d.fitting import train
from ff3d.labels.oracles import load_surface
from ff3d.metrics import iou
from ff3d.points.test_sets import load_test_sets
from ff3d.settings import make_config
from ff3d.shapes.sample_meshes import SAMPLES

TERMS = ("steps", "seconds", "parameters", "he")
KIND = "boundary_face"  # of the test points
Key = tuple[str, str, str, int]


def settings_of(term: str, options: argparse.Namespace) -> dict[str, Any]:
    """What a fit of these terms is given."""
    if term == "seconds":
        return {"seconds": options.seconds}
    extra: dict[str, dict[str, Any]] = {
        "parameters": {"parameters": options.parameters},
        "he": {"initialisation": "he"},
    }
    return {"steps": options.steps} | extra.get(term, {})


def main() -> None:
    """Make the fits that are missing; print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--names", nargs="+", default=[*SAMPLES, "dragon", "buddha", "armadillo"])
    parser.add_argument("--terms", nargs="+", choices=TERMS, default=TERMS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=250)
    parser.add_argument("--batch-size", type=int, default=4096)
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--parameters", type=int, default=200_000)
    parser.add_argument("--out", type=Path, default=Path("runs/equal.jsonl"))
    parser.add_argument("--rows", type=Path)
    options = parser.parse_args()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    kept = [json.loads(line) for line in options.out.read_text().splitlines()] if options.out.exists() else []
    done: dict[Key, float] = {(*row["what"],): row["iou"] for row in kept}
    wanted = [
        (term, name, mapping, seed)
        for seed in options.seeds
        for term in options.terms
        for name in options.names
        for mapping in PAPER_MAPPINGS
    ]
    missing = [key for key in wanted if key not in done]
    shapes: dict[str, Any] = {}
    for key in tqdm(missing, unit=" fits"):
        term, name, mapping, seed = key
        if name not in shapes:
            surface = load_surface(name if name in SAMPLES else options.folder / "meshes" / f"{name}.obj")
            shapes[name] = surface, load_test_sets(test_sets(options.folder, options.out.parent, name, surface))
        surface, tests = shapes[name]
        settings = settings_of(term, options) | {"batch_size": options.batch_size}
        config = make_config("plain", mapping=mapping, seed=seed, **settings)
        fit = train(surface, config, held_out={})
        if fit.progress.interrupted:
            raise KeyboardInterrupt
        done[key] = iou(fit.field.contains, tests[KIND])
        row = {"what": key, "iou": done[key], "seconds": fit.progress.seconds, "steps": fit.progress.step}
        row |= {"parameters": fit.field.parameter_count}
        with options.out.open("a") as file:
            file.write(json.dumps(row) + "\n")
    rows = []
    for name in options.names:
        for mapping in PAPER_MAPPINGS:
            scores = [[done[term, name, mapping, seed] for seed in options.seeds] for term in options.terms]
            rows.append([name, mapping, *([float(np.mean(it)), float(np.std(it))] for it in scores)])
    for name, mapping, *scores in rows:
        print(name, mapping, *(f"{mean:.4f} ({deviation:.4f})" for mean, deviation in scores), sep="  ")
    if options.rows:
        columns = {"shape": "", "mapping": ""} | {f"equal {term}": ".3" for term in options.terms}
        write_rows(options.rows, columns, rows, seeds=options.seeds)


if __name__ == "__main__":
    main()
