#!/usr/bin/env python3
"""Draw docs/benchmark/scales.png from docs/rows/scales.jsonl: IoU on Lucy against the scale of the frequencies.

    benchmarks/draw_scales.py [--out docs/benchmark/scales.png]

Bars are 95% intervals over seeds (Student); dotted lines the scales of Tancik et al. 2020. Needs matplotlib.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from draw_quality import ROOT, rows

PUBLISHED = {"gaussian": 12.0, "positional": 64.0}
COLORS = {"gaussian": "tab:red", "positional": "tab:blue"}
PANELS = {"uniform": "uniform in the box", "boundary_face": "near the surface, by faces"}


def main() -> None:
    """Read the rows, draw, write."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot as plt

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "docs/benchmark/scales.png")
    options = parser.parse_args()
    figure, panels = plt.subplots(1, 2, figsize=(11, 4.2), constrained_layout=True)
    for panel, (kind, title) in zip(panels, PANELS.items(), strict=True):
        for mapping, color in COLORS.items():
            found = {}
            for row in rows("scales"):
                name, _, setting = row["variant"].partition(" scale=")
                if name == mapping and isinstance(row[kind], list):
                    found[float(setting)] = row[kind]
            scales = sorted(found)
            mean, half = np.array([found[scale] for scale in scales]).T
            panel.errorbar(scales, mean, half, marker="o", markersize=4, capsize=3, color=color, label=mapping)
            panel.axvline(PUBLISHED[mapping], color=color, linestyle=":", label=f"as published: {PUBLISHED[mapping]:g}")
        panel.set_xscale("log", base=2)
        panel.xaxis.set_major_formatter("{x:g}")
        panel.set_xlabel("scale, cycles per unit")
        panel.set_ylim(0.84, 1.0)
        panel.set_title(title)
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("IoU")
    panels[0].legend(loc="lower right")
    figure.savefig(options.out, dpi=100)


if __name__ == "__main__":
    main()
