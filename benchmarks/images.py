#!/usr/bin/env python3
"""The table of pictures: mean held-out PSNR of four mappings over six photographs and six pictures of text.

    benchmarks/images.py --out runs/images [--preset paper] [--steps 2000] [--pictures camera text-0 ...] [--rows FILE]

Each fit is a row of rows.jsonl in --out; the same command again makes only those that are not there yet, so that it
can be stopped at any time. The paper's preset takes 20 minutes a fit on a core, and seconds on a GPU. `--table` prints
what is there: mean and 95% interval (Student) over the pictures, of the difference to the line before too, and the
paper's own numbers, which are of other pictures. Beside the networks stands what needs none: the held-out pixels
interpolated between the trained ones, linearly and by cubic splines.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from rows import write_rows

from ff3d.fields.config import PAPER_MAPPINGS
from ff3d.geometry.cores import configure_process
from ff3d.studies.statistics import interval
from ff3d.theory.images import EVEN, ODD, PUBLISHED, fit_image
from ff3d.theory.pictures import PHOTOGRAPHS, fitted_to, load_picture, psnr

PICTURES = (*PHOTOGRAPHS[:6], *(f"text-{seed}" for seed in range(6)))


def rows_of(path: Path) -> list[dict[str, Any]]:
    """The rows that are there."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def interpolated(picture: str, size: int | None, *, square: bool) -> dict[str, float]:
    """The held-out PSNR of interpolation between the pixels that are trained on: a held-out one lies amid four."""
    from scipy.ndimage import map_coordinates

    pixels = fitted_to(load_picture(picture), size or 512, square=square).pixels
    trained, held_out = pixels[EVEN], pixels[ODD]
    places = np.meshgrid(*(np.arange(count) + 0.5 for count in held_out.shape[:2]), indexing="ij")
    found = {}
    for name, order in (("linear interpolation", 1), ("cubic interpolation", 3)):
        channels = [
            map_coordinates(channel, places, order=order, mode="nearest") for channel in np.moveaxis(trained, 2, 0)
        ]
        found[name] = psnr(np.stack(channels, axis=-1).clip(0, 1), held_out)
    return found


def table(rows: list[dict[str, Any]], size: int | None = None) -> list[list[Any]]:
    """A line for each set and mapping of rows of one preset and budget, and for interpolation.

    Set, mapping, pictures, mean PSNR of trained pixels, of held-out ones with its interval, published, and the
    difference of the held-out to the line before, picture by picture, with its interval.
    """
    lines: list[list[Any]] = []
    for kind, published in PUBLISHED.items():
        own = [row for row in rows if row["picture"].startswith("text") == (kind == "text")]
        pictures = list(dict.fromkeys(row["picture"] for row in own))
        trained = {(row["picture"], row["mapping"]): row["psnr_train"] for row in own}
        tested = {(row["picture"], row["mapping"]): row["psnr_test"] for row in own}
        for picture in pictures:
            tested |= {
                (picture, name): score
                for name, score in interpolated(picture, size, square=own[0]["preset"] == "paper").items()
            }
        before: dict[str, float] = {}
        for name in (*PAPER_MAPPINGS, "linear interpolation", "cubic interpolation"):
            scores = {picture: tested[picture, name] for picture in pictures if (picture, name) in tested}
            if not scores:
                continue
            known = [trained[picture, name] for picture in scores if (picture, name) in trained]
            gained = [score - before[picture] for picture, score in scores.items() if picture in before]
            lines.append([kind, name, len(scores), float(np.mean(known)) if known else ""])
            lines[-1] += [over(list(scores.values())), published.get(name, ""), over(gained) if gained else ""]
            before = scores
    return lines


def over(values: list[float]) -> float | list[float]:
    """Mean and half width of the 95% interval; of one value itself."""
    return values[0] if len(values) == 1 else [float(it[0]) for it in interval(np.array(values)[:, None])]


COLUMNS = {"set": "", "": "", "pictures": "0", "trained": "2", "held out": "±2", "published": "1", "gain": "±2"}


def printed(lines: list[list[Any]]) -> str:
    """The table as text."""

    def shown(value: Any) -> str:
        return f"{value[0]:.2f} ± {value[1]:.2f}" if isinstance(value, list) else str(value)

    texts = [list(COLUMNS), *([shown(round(it, 2) if isinstance(it, float) else it) for it in line] for line in lines)]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    return "\n".join("  ".join(it.ljust(width) for it, width in zip(line, widths, strict=True)) for line in texts)


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
    parser.add_argument("--rows", type=Path, help="write the table there too, as scripts/make_tables.py reads it")
    options = parser.parse_args()
    path = options.out / "rows.jsonl"
    if options.table:
        finish(path, options)
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
    finish(path, options)


def finish(path: Path, options: argparse.Namespace) -> None:
    """Print the table, and write its rows."""
    lines = table(rows_of(path), options.size)
    print(printed(lines))
    if options.rows:
        write_rows(options.rows, COLUMNS, lines, seeds="0")


if __name__ == "__main__":
    main()
