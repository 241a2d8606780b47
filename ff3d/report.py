"""Result rows -> a Markdown page, the terminal's table and the picture; computes nothing."""

from __future__ import annotations

from math import isnan
from pathlib import Path
from typing import Any

from ff3d.benchmark import Comparison, Row
from ff3d.figure import Entry, comparison_picture
from ff3d.files import write_text
from ff3d.rendering import save_picture
from ff3d.study import Plan, summary

# Tancik et al. 2020, Table 4: mean over Dragon, Buddha, Armadillo; uniform and boundary
PAPER = {"none": (0.959, 0.864), "basic": (0.966, 0.892), "positional": (0.987, 0.960), "gaussian": (0.988, 0.973)}
MEASURES = {
    "uniform": "iou.uniform",
    "boundary_face": "iou.boundary_face",
    "boundary_area": "iou.boundary_area",
    "Chamfer": "surface.chamfer",
    "F-score": "surface.f_score",
    "normals": "surface.normal_consistency",
}
COLUMNS = ("mapping", "uniform", "boundary_face", "boundary_area", "Chamfer", "F-score", "normals", "steps", "s", "KB")


def write_report(comparison: Comparison, folder: Path, *, progress_bar: bool = False) -> list[Path]:
    """Write report.md and compare.png into `folder`, each whole or not at all; return their paths."""
    picture, page = folder / "compare.png", folder / "report.md"
    entries = [
        Entry(row.mapping, shape, f"IoU {row.iou['uniform']:.3f} / {row.iou['boundary_face']:.3f}", row.failure or "")
        for row, shape in zip(comparison.rows, comparison.shapes, strict=True)
    ]
    image = comparison_picture(
        comparison.mesh,
        entries,
        inside=comparison.oracle,
        title=comparison.name,
        subtitle=f"{comparison.config.budget} a mapping, IoU uniform / boundary",
        progress=progress_bar,
    )
    save_picture(image, picture)
    write_text(page, _page(comparison))
    return [page, picture]


def table(rows: list[Row], *, markdown: bool = False) -> str:
    """The rows as a table with aligned columns, for the terminal or for Markdown."""
    lines = [list(COLUMNS), *[_cells(row) for row in rows]]
    widths = [max(len(line[column]) for line in lines) for column in range(len(COLUMNS))]
    joint, edge = (" | ", "|") if markdown else ("  ", "")
    texts = []
    for line in lines:
        cells = [
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        texts.append(f"{edge} {joint.join(cells)} {edge}".strip())
    if markdown:
        texts.insert(1, "|---|" + "---:|" * (len(COLUMNS) - 1))
    return "\n".join(texts)


def _cells(row: Row) -> list[str]:
    scores = [f"{row.iou[kind]:.4f}" for kind in ("uniform", "boundary_face", "boundary_area")]
    surface = row.surface
    distances = (
        [f"{surface.chamfer:.5f}", f"{surface.f_score:.4f}", f"{surface.normal_consistency:.4f}"]
        if surface
        else ["-", "-", "-"]
    )
    return [row.mapping, *scores, *distances, f"{row.steps:,}", f"{row.seconds:.1f}", f"{row.bytes / 1000:,.0f}"]


def _page(comparison: Comparison) -> str:
    """The Markdown page: picture, table, what the columns mean, and how it was made."""
    config = comparison.config
    failures = [f"- {row.mapping} failed: {row.failure}" for row in comparison.rows if row.failure]
    return "\n".join(
        [
            f"# {comparison.name}: {len(comparison.rows)} mappings, {comparison.config.budget} each",
            "",
            "![ground truth and every mapping, with its errors](compare.png)",
            "",
            table(comparison.rows, markdown=True),
            "",
            *failures,
            *([""] if failures else []),
            "- uniform, boundary_face, boundary_area: intersection over union of the field with the mesh on 262,144",
            "  held-out points each, uniform in the box, near uniformly chosen faces, near the surface by area",
            "  (noise 0.01 unit; Tancik et al. 2020, section E.2).",
            "- Chamfer, F-score, normals: of the extracted mesh; distances as a share of the longest side of the box.",
            "- s: seconds of labelling and training. KB: size of the field's file.",
            "",
            f"Mesh {comparison.source.name}, sha256 {comparison.source.sha256}.",
            f"Preset {config.preset}, {config.depth} hidden layers of {config.width}, batch {config.batch_size:,}, "
            f"seed {config.seed}. Each mapping's folder holds its config.json, metrics.jsonl, field and mesh.",
            "",
        ]
    )


def write_study(plan: Plan, rows: list[dict[str, Any]], folder: Path, *, command: str = "") -> Path:
    """Write report.md of a benchmark into `folder`, whole or not at all: a table over all meshes, and one a mesh."""
    lines = [f"# {len(plan.meshes)} meshes, {len(plan.mappings)} mappings, {len(plan.seeds)} seeds", "", f"{plan}.", ""]
    lines += ["## All meshes", "", *study_table(plan, rows)]
    for path in plan.meshes:
        lines += ["", f"## {path.stem}", "", *study_table(plan, [row for row in rows if row["mesh"] == path.stem])]
    failures = [
        f"- {row['mesh']}, {row['mapping']}, seed {row['seed']}: {row['failure']}" for row in rows if row["failure"]
    ]
    if failures:
        lines += ["", "## Failed", "", *failures]
    lines += [
        "",
        "IoU of the field on points that it never saw: uniform in the box, and near the surface (noise of 0.01 unit) "
        "on faces chosen alike (as in the authors' notebook) or by area. The mesh: Chamfer distance and F-score (1%), "
        "in shares of the longest side, normal consistency. ± is the 95% interval of the mean over seeds (Student).",
    ]
    if command:
        lines += ["", f"Made by `{command}`."]
    page = folder / "report.md"
    write_text(page, "\n".join(lines) + "\n")
    return page


def study_table(plan: Plan, rows: list[dict[str, Any]]) -> list[str]:
    """The lines of a Markdown table: a row a mapping, the mean of each measure and its interval; the best in bold."""
    paper = plan.config.preset == "paper"
    heads = ["mapping", *MEASURES, "s", *(["paper: uniform", "boundary"] if paper else [])]
    lines = ["| " + " | ".join(heads) + " |", "|---|" + "---:|" * (len(heads) - 1)]
    values = {
        mapping: [summary([row for row in rows if row["mapping"] == mapping], it) for it in MEASURES.values()]
        for mapping in plan.mappings
    }
    for mapping in plan.mappings:
        cells = [mapping]
        for column, name in enumerate(MEASURES):
            mean, width = values[mapping][column]
            others = [them[column][0] for them in values.values() if not isnan(them[column][0])]
            best = min(others, default=None) if name == "Chamfer" else max(others, default=None)
            text = f"{mean:.5f}" if name == "Chamfer" else f"{mean:.4f}"
            text = "**" + text + "**" if mean == best else text
            cells.append("failed" if isnan(mean) else text + (f" ± {width:.4f}" if not isnan(width) else ""))
        seconds = [row["seconds"] for row in rows if row["mapping"] == mapping and not row["failure"]]
        cells.append(f"{sum(seconds) / len(seconds):.1f}" if seconds else "")
        if paper:
            cells += [f"{it:.3f}" for it in PAPER.get(mapping, ())] or ["", ""]
        lines.append("| " + " | ".join(cells) + " |")
    return lines
