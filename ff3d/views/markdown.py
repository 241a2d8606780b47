"""A study to report.md, with a table and pictures for each mesh."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

from ff3d.fields.field import load_field
from ff3d.files import write_text
from ff3d.shapes.mesh import load_mesh
from ff3d.studies.study import Study
from ff3d.views.figure import Entry, comparison_picture, section_picture
from ff3d.views.rendering import save_picture
from ff3d.views.tables import (
    LEGEND,
    PAPER_LEGEND,
    markdown_text,
    noted,
    paper_table,
    provenance,
    score_text,
    text_table,
)


def write_report(study: Study, *, pictures: bool = True, progress_bar: bool = False) -> list[Path]:
    """Write report.md, and for each mesh MESH.png and MESH-cuts.png, beside the runs; return their paths.

    Files are written atomically. The pictures show the first seed's fits.
    """
    pictured = study.meshes if pictures else []
    paths = [path for mesh in pictured for path in _pictures(study, mesh, progress_bar=progress_bar)]
    plan = study.plan
    title = markdown_text(f"{', '.join(study.meshes)}: {', '.join(plan.variants)}")
    lines = [f"# {title}", "", f"{markdown_text(plan)}.", ""]
    if study.unfinished:
        verb = "fit is" if study.missing == 1 else "fits are"
        lines += [f"Interrupted: {study.missing} {verb} missing or incomplete.", ""]
    if len(study.meshes) > 1:
        lines += ["## All meshes", "", text_table(study, markdown=True), ""]
    if plan.config.preset == "paper":
        lines += ["## Beside the published figures", "", paper_table(study.rows), "", PAPER_LEGEND, ""]
    for mesh in study.meshes:
        lines += [f"## {markdown_text(mesh)}", "", text_table(study, mesh, markdown=True), ""]
        shown = [path for path in paths if path.stem in (mesh, f"{mesh}-cuts")]
        lines += [f"![{markdown_text(mesh)}]({quote(path.name)})" for path in shown] + [""]
    failed = [row for row in study.rows if row.failure]
    failures = ["- " + markdown_text(f"{row.mesh}, {row.arm}, seed {row.seed}: {row.failure}") for row in failed]
    if failures:
        lines += ["## Failed", "", *failures, ""]
    if notes := noted(study):
        lines += ["## Notes", "", *(f"- {markdown_text(note)}" for note in notes), ""]
    spread = " ± is the 95% interval of the mean over seeds (Student)." if len(plan.seeds) > 1 else ""
    lines += ["## Legend and provenance", "", LEGEND + spread, ""]
    lines += [f"- {markdown_text(f'{name}: {value}')}" for name, value in provenance(study)]
    page = study.folder / "report.md"
    write_text(page, "\n".join(lines) + "\n")
    files = [page, *paths]
    study.storage.send(*(path.name for path in files))
    return files


def _pictures(study: Study, mesh: str, *, progress_bar: bool) -> list[Path]:
    """Write the comparison of a mesh's first fits, and cuts through them; return the paths, none without a field."""
    rows = [rows[0] for variant in study.plan.variants if (rows := study.of(variant, mesh))]
    folders = [study.run(row) for row in rows]
    for folder in folders:
        study.storage.fetch(*(f"{folder.name}/{name}" for name in ("mesh.ply", "field.safetensors")))
    paths = study.folder / f"{mesh}.png", study.folder / f"{mesh}-cuts.png"
    if not any(row.iou for row in rows):
        return []
    truth = study.reference(mesh)
    entries = [
        Entry(
            row.arm,
            load_mesh(folder / "mesh.ply") if row.surface else None,
            f"IoU {score_text(row, 'uniform')} / {score_text(row, 'boundary_face')}" if row.iou else "",
            row.failure or "",
        )
        for row, folder in zip(rows, folders, strict=True)
    ]
    image = comparison_picture(
        truth.mesh,
        entries,
        inside=truth.oracle,
        title=mesh,
        subtitle=f"{study.plan.config.budget} a mapping, IoU uniform / boundary",
        progress=progress_bar,
    )
    save_picture(image, paths[0])
    fields = [
        (row.arm, load_field(folder / "field.safetensors"))
        for row, folder in zip(rows, folders, strict=True)
        if row.iou
    ]
    cuts = section_picture(
        [(name, field.contains) for name, field in fields],
        truth.oracle,
        fields[0][1].bounds,
        title=f"{mesh}: a cut through the occupancy",
    )
    save_picture(cuts, paths[1])
    return list(paths)
