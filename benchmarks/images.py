#!/usr/bin/env python3
"""The table of pictures: mean held-out PSNR of four mappings over six photographs and six pictures of text.

    benchmarks/images.py --out runs/images [--preset paper] [--steps 2000] [--pictures camera text-0 ...]

Each fit is a row of rows.jsonl in --out; the same command again makes only those that are not there yet, so that it
can be stopped at any time. The paper's preset takes about an hour a fit on two cores. `--table` prints what is
there: mean and 95% interval (Student) over the pictures, and the paper's own numbers, which are of other pictures.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from ff3d.fields.config import PAPER_MAPPINGS
from ff3d.geometry.cores import configure_process
from ff3d.studies.statistics import interval
from ff3d.theory.images import PUBLISHED, fit_image
from ff3d.theory.pictures import PHOTOGRAPHS

PICTURES = (*PHOTOGRAPHS[:6], *(f"text-{seed}" for seed in range(6)))


def rows_of(path: Path) -> list[dict[str, Any]]:
    """The rows that are there."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def table(rows: list[dict[str, Any]]) -> str:
    """Mean, interval, count, and the published mean, for each set and mapping; rows of one preset and budget."""
    lines = [f"{'set':9}{'mapping':12}{'pictures':>9}{'train dB':>10}{'test dB':>18}{'published':>11}{'seconds':>9}"]
    for kind, published in PUBLISHED.items():
        for mapping in PAPER_MAPPINGS:
            found = [
                it for it in rows if it["mapping"] == mapping and it["picture"].startswith("text") == (kind == "text")
            ]
            if not found:
                continue
            test = [it["psnr_test"] for it in found]
            train, seconds = (np.mean([it[key] for it in found]) for key in ("psnr_train", "seconds"))
            mean, half = (it[0] for it in interval(np.array(test)[:, None]))
            spread = f" ± {half:.2f}" if len(test) > 1 else ""
            lines.append(
                f"{kind:9}{mapping:12}{len(found):9}{train:10.2f}{f'{mean:.2f}{spread}':>18}"
                f"{published[mapping]:11.1f}{seconds:9.0f}"
            )
    return "\n".join(lines)


def main() -> None:
    """Make the fits that are missing, or print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/images"))
    parser.add_argument("--preset", default="paper")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--pictures", nargs="+", default=PICTURES)
    parser.add_argument("--mappings", nargs="+", default=PAPER_MAPPINGS)
    parser.add_argument("--precision")
    parser.add_argument("--size", type=int, help="in place of the preset's 512; such a table is not the paper's")
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    path = options.out / "rows.jsonl"
    if options.table:
        print(table(rows_of(path)))
        return
    configure_process()
    options.out.mkdir(parents=True, exist_ok=True)
    for picture in options.pictures:
        for mapping in options.mappings:
            if any((row["picture"], row["mapping"]) == (picture, mapping) for row in rows_of(path)):
                continue
            fit = fit_image(
                picture,
                mapping,
                preset=options.preset,
                steps=options.steps,
                precision=options.precision,
                size=options.size,
                progress_bar=True,
            )
            if fit.progress.interrupted:
                return
            with path.open("a") as file:
                file.write(json.dumps(fit.to_json()) + "\n")
    print(table(rows_of(path)))


if __name__ == "__main__":
    main()
