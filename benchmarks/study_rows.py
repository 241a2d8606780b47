#!/usr/bin/env python3
"""Rows of studies as a table of the docs: of `ff3d benchmark` and `ff3d tune`.

    benchmarks/study_rows.py STUDY... --table fits|means|paper --rows docs/rows/NAME.jsonl --command TEXT --machine TEXT

STUDY is a results folder, or its rows.jsonl; several count as one study. `fits`: a line for each fit. `means`: one for
each variant that has a field, mean and 95% interval over seeds (Student). `paper`: the table of Tancik et al. 2020,
mean ± standard deviation over the meshes beside the published, and whether it lies within. --command: of the studies,
for the page of provenance, and --machine what they ran on.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from rows import write_rows

from ff3d.studies.statistics import summary
from ff3d.studies.task import Row
from ff3d.views.tables import paper_cells

IOUS = ("uniform", "boundary_face", "boundary_area")
Table = tuple[dict[str, str], list[list[Any]]]


def fits(rows: Sequence[Row]) -> Table:
    """A line for each fit."""
    forms = {"mesh": "", "mapping": "", "seed": "0", **dict.fromkeys(IOUS, ".4"), "Chamfer": ".5", "seconds": "0"}
    measures = [*(f"iou.{kind}" for kind in IOUS), "surface.chamfer", "seconds"]
    lines = [[row.mesh, row.arm, row.seed, *(row.value(measure) for measure in measures)] for row in rows]
    return forms, sorted(lines, key=lambda line: line[:3])


def means(rows: Sequence[Row]) -> Table:
    """A line for each variant."""
    forms = {"variant": "", **dict.fromkeys(IOUS, "±.4"), "seeds": "0", "steps": ",0", "seconds": "0"}
    lines = []
    for variant in dict.fromkeys(row.arm for row in rows):
        own = [row for row in rows if row.arm == variant and row.iou]
        if not own:
            continue
        scores = [list(summary(own, f"iou.{kind}")) for kind in IOUS]
        counts = [len({row.seed for row in own}), mean(row.steps for row in own)]
        lines.append([variant, *scores, *counts, mean(row.seconds for row in own)])
    return forms, lines


def paper(rows: Sequence[Row]) -> Table:
    """The paper's table."""
    forms = {"mapping": ""}
    for kind in ("uniform", "boundary"):
        forms |= {kind: "±.3", f"{kind}, published": "±.3", f"{kind} is": ""}
    lines = []
    for mapping, cells in paper_cells(rows).items():
        line: list[Any] = [mapping]
        for cell in cells:
            found = [mean(cell.means), stdev(cell.means)] if len(cell.means) > 1 else ""
            line += [found, list(cell.published), cell.verdict]
        lines.append(line)
    return forms, lines


TABLES = {"fits": fits, "means": means, "paper": paper}


def main() -> None:
    """Read the rows, write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("studies", nargs="+", type=Path)
    parser.add_argument("--table", choices=TABLES, default="fits")
    parser.add_argument("--rows", type=Path, required=True)
    parser.add_argument("--command", required=True)
    parser.add_argument("--machine", required=True)
    options = parser.parse_args()
    files = [path / "rows.jsonl" if path.is_dir() else path for path in options.studies]
    rows = [Row.from_json(line) for path in files for line in path.read_text(encoding="utf-8").splitlines()]
    forms, lines = TABLES[options.table](rows)
    seeds = sorted({row.seed for row in rows})
    write_rows(options.rows, forms, lines, seeds=seeds, command=options.command, machine_name=options.machine)
    about, *rest = options.rows.read_text(encoding="utf-8").splitlines()
    print(json.loads(about)["command"], *rest, sep="\n")


if __name__ == "__main__":
    main()
