"""A study's tables: for the terminal, Markdown, CSV and LaTeX."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isnan
from statistics import stdev

from ff3d.studies.statistics import summary
from ff3d.studies.study import Study
from ff3d.studies.task import Row

# Tancik et al. 2020, Table 4: mean and standard deviation over Dragon, Buddha and Armadillo; uniform and boundary
PAPER = {
    "none": ((0.959, 0.006), (0.864, 0.014)),
    "basic": ((0.966, 0.007), (0.892, 0.017)),
    "positional": ((0.987, 0.005), (0.960, 0.011)),
    "gaussian": ((0.988, 0.007), (0.973, 0.010)),
}
PAPER_MEASURES = ("iou.uniform", "iou.boundary_face")  # the authors' notebook draws the boundary's points on any face
FORMULA = ("=", "+", "-", "@", "\t", "\r")
NOTHING = "–"  # noqa: RUF001  (an en dash, as tables have it)


@dataclass(frozen=True)
class Column:
    """A column of a table: the mean of a measure. better: +1 if more is better, -1 if less is, 0 if neither."""

    head: str
    measure: str
    form: str
    better: int
    unit: float = 1.0


COLUMNS = (
    Column("uniform", "iou.uniform", ".4f", 1),
    Column("boundary_face", "iou.boundary_face", ".4f", 1),
    Column("boundary_area", "iou.boundary_area", ".4f", 1),
    Column("Chamfer", "surface.chamfer", ".5f", -1),
    Column("F-score", "surface.f_score", ".4f", 1),
    Column("normals", "surface.normal_consistency", ".4f", 1),
    Column("steps", "steps", ",.0f", 0),
    Column("s", "seconds", ".1f", 0),
    Column("labels s", "label_seconds", ".1f", 0),
    Column("parameters", "parameters", ",.0f", 0),
    Column("KB", "bytes", ",.0f", 0, 1000.0),
)

LEGEND = (
    "IoU of the field on points that it never saw: uniform in the box, and near the surface (noise of 0.01 unit) on "
    "faces chosen alike, as in the authors' notebook, or by area (Tancik et al. 2020, section E.2). Of the extracted "
    "mesh: Chamfer distance and F-score (1%), as shares of the longest side, and normal consistency. s: seconds of "
    "labelling and training, labels s those of labelling (beside a GPU: of waiting for labels). KB: the field's file."
)
PAPER_LEGEND = (
    "Mean ± standard deviation over the meshes, beside Tancik et al. 2020, Table 4 (Dragon, Buddha and Armadillo, one "
    "fit each); within: the mean lies within the published ±, else by how much it is above or below. Boundary: points "
    "on faces chosen alike, as the authors' notebook draws them."
)


@dataclass(frozen=True)
class Cell:
    """A cell of a table: its text, the half width of its interval or "", and whether it is its column's best."""

    text: str
    spread: str = ""
    best: bool = False


def cells(study: Study, mesh: str | None = None) -> dict[str, list[Cell]]:
    """One cell a column for each variant: means over all meshes or one. Intervals: 95%, over seeds (Student's t).

    A mean that is not of all fits says so, and is nobody's best.
    """
    table: dict[str, list[Cell]] = {variant: [] for variant in study.plan.variants}
    for column in COLUMNS:
        found = {variant: summary(study.of(variant, mesh), column.measure) for variant in table}
        texts = {
            variant: format(mean / column.unit, column.form) for variant, (mean, _) in found.items() if not isnan(mean)
        }
        scored = {variant: study.scored(variant, column.measure, mesh) for variant in texts if column.better}
        ranked = {variant: column.better * found[variant][0] for variant in texts if not scored.get(variant)}
        best = texts[max(ranked, key=lambda variant: ranked[variant])] if ranked and column.better else None
        if len(set(texts.values())) == 1:
            best = None  # all equal
        for variant, (_, width) in found.items():
            text = texts.get(variant, NOTHING)
            spread = "" if isnan(width) or not column.better else format(width / column.unit, column.form)
            part = scored.get(variant)
            table[variant].append(Cell(f"{text} ({part})" if part else text, spread, text == best and not part))
    return table


def markdown_text(text: object) -> str:
    """A text that Markdown shows as it is, on one line, also in a table.

    >>> markdown_text("a|b <script> [x](y)")
    'a\\\\|b &lt;script&gt; \\\\[x\\\\](y)'
    """
    plain = " ".join(str(text).split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\|`*\[\]]|^[#+-])", r"\\\1", plain)


def text_table(study: Study, mesh: str | None = None, *, markdown: bool = False) -> str:
    """The table with aligned columns, for the terminal or for Markdown, there with the best in bold."""

    def written(cell: Cell) -> str:
        text = f"**{cell.text}**" if cell.best and markdown else cell.text
        return f"{text} ± {cell.spread}" if cell.spread else text

    paper = study.plan.config.preset == "paper"
    heads = ["mapping", *(column.head for column in COLUMNS), *(["paper: uniform", "boundary"] if paper else [])]
    lines = [heads]
    for variant, line in cells(study, mesh).items():
        published = [f"{mean:.3f}" for mean in published_means().get(variant, ())] or ["", ""]
        lines.append(
            [markdown_text(variant) if markdown else variant, *map(written, line), *(published if paper else [])]
        )
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    joint, edge = (" | ", "|") if markdown else ("  ", "")
    texts = []
    for words in lines:
        padded = [it.rjust(w) if i else it.ljust(w) for i, (it, w) in enumerate(zip(words, widths, strict=True))]
        texts.append(f"{edge} {joint.join(padded)} {edge}".strip())
    if markdown:
        texts.insert(1, "|---|" + "---:|" * (len(heads) - 1))
    return "\n".join(texts)


def published_means() -> dict[str, tuple[float, ...]]:
    """Of each of the paper's mappings the means, uniform and boundary."""
    return {mapping: tuple(mean for mean, _ in published) for mapping, published in PAPER.items()}


@dataclass(frozen=True)
class PaperCell:
    """A cell of the paper's table: the means of meshes over their seeds, and the published mean ± deviation.

    fits: of them `scored` have a value.
    """

    means: list[float]
    published: tuple[float, float]
    fits: int
    scored: int

    @property
    def verdict(self) -> str:
        """Whether the mean over the meshes lies within the published ±, or by how much it is above or below."""
        if not self.means or self.scored < self.fits:
            return NOTHING
        off = sum(self.means) / len(self.means) - self.published[0]
        return "within" if abs(off) <= self.published[1] else f"{off:+.3f}"


def paper_cells(rows: Sequence[Row]) -> dict[str, list[PaperCell]]:
    """Of each of the paper's mappings its two cells, uniform and boundary. Of a mesh the mean over its seeds counts.

    Fits of which a setting was varied are not the paper's.
    """
    found: dict[str, list[PaperCell]] = {}
    for mapping, published in PAPER.items():
        fits = [row for row in rows if row.compared == mapping and not row.varied]
        found[mapping] = []
        for measure, pair in zip(PAPER_MEASURES, published, strict=True):
            by_mesh: dict[str, list[float]] = {}
            for row in fits:
                if (value := row.value(measure)) is not None:
                    by_mesh.setdefault(row.mesh, []).append(value)
            means = [sum(values) / len(values) for values in by_mesh.values()]
            found[mapping].append(PaperCell(means, pair, len(fits), sum(map(len, by_mesh.values()))))
    return found


def paper_table(rows: Sequence[Row]) -> str:
    """The rows in the form of the paper's table, in Markdown: a mapping's mean ± standard deviation over the meshes.

    Beside each cell stands the published one, and whether the mean lies within its ±. A cell says of how many meshes it
    is where that is not three.
    """
    lines = ["| mapping | uniform | published | | boundary | published | |", "|---|---:|---:|---|---:|---:|---|"]
    for mapping, found in paper_cells(rows).items():
        words = [mapping]
        for cell in found:
            part = f" ({cell.scored} of {cell.fits} fits)" if 0 < cell.scored < cell.fits else ""
            mean, spread = cell.published
            words += [_mean_and_deviation(cell.means) + part, f"{mean:.3f} ± {spread:.3f}", cell.verdict]
        lines.append(f"| {' | '.join(words)} |")
    return "\n".join(lines)


def _mean_and_deviation(values: Sequence[float]) -> str:
    """Of values over meshes, as a cell says them."""
    if not values:
        return NOTHING
    deviation = f" ± {stdev(values):.3f}" if len(values) > 1 else ""
    few = "" if len(values) == 3 else f" ({len(values)} mesh{'es' * (len(values) > 1)})"
    return f"{sum(values) / len(values):.3f}{deviation}{few}"


def csv_table(rows: Sequence[Row]) -> str:
    """One line for each fit, with all digits. Texts that a spreadsheet would take for a formula begin with an '."""

    def plainly(value: object) -> object:
        return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value

    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n")
    plain: tuple[str, ...] = ("mesh", "sha256", "mapping", "arm", "seed", "scale", "learning_rate", "samples")
    plain += ("evaluation_seconds", "device", "precision", "faces", "failure")
    writer.writerow([*plain, *(column.measure.rpartition(".")[2] for column in COLUMNS)])
    for row in rows:
        writer.writerow(
            [*(plainly(getattr(row, name)) for name in plain), *(row.value(column.measure) for column in COLUMNS)]
        )
    return out.getvalue()


def latex_table(study: Study) -> str:
    """The means over all meshes as a LaTeX table (booktabs)."""

    def written(cell: Cell) -> str:
        text = cell.text.replace(",", r"{,}").replace(NOTHING, "--")
        text = rf"\textbf{{{text}}}" if cell.best else text
        return rf"{text} $\pm$ {cell.spread}" if cell.spread else text

    def safe(text: str) -> str:
        others = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
        return "".join("\\" + letter if letter in "&%$#_{}" else others.get(letter, letter) for letter in text)

    lines = [[safe(variant), *map(written, line)] for variant, line in cells(study).items()]
    heads = [safe(it) for it in ("mapping", *(column.head for column in COLUMNS))]
    body = [rf"{' & '.join(line)} \\" for line in lines]
    rule = rf"\begin{{tabular}}{{l{'r' * len(COLUMNS)}}}"
    return "\n".join(
        [rule, r"\toprule", rf"{' & '.join(heads)} \\", r"\midrule", *body, r"\bottomrule", r"\end{tabular}", ""]
    )


def provenance(study: Study) -> list[tuple[str, str]]:
    """How the rows were created, as pairs of a name and its value: command, settings, device, versions, hashes."""
    plan, rows = study.plan, study.rows
    config = plan.config

    def all_of(value: Callable[[Row], object]) -> str:
        return ", ".join(dict.fromkeys(str(value(row)) for row in rows if value(row)))

    pairs = [
        ("command", study.command),
        ("plan", str(plan)),
        ("network", f"{all_of(lambda row: row.depth)} hidden layers of {all_of(lambda row: row.width)}"),
        ("batch", f"{config.optimiser.batch_size:,} points"),
        (
            "learning rates",
            ", ".join(
                f"{variant} {_first(study.of(variant)).learning_rate:g}"
                for variant in plan.variants
                if study.of(variant)
            ),
        ),
        ("seeds", ", ".join(map(str, plan.seeds))),
        ("device", all_of(lambda row: row.device)),
        ("precision", all_of(lambda row: row.precision)),
        ("versions", study.versions),
        *((f"sha256 of {mesh}", _first(study.of(mesh=mesh)).sha256) for mesh in study.meshes),
        *((f"sha256 of the test points of {mesh}", _first(study.of(mesh=mesh)).tests) for mesh in study.meshes),
    ]
    return [(name, value) for name, value in pairs if value]


def score_text(row: Row, kind: str) -> str:
    """A fit's IoU in three digits, and a dash where there is none."""
    value = row.value(f"iou.{kind}")
    return NOTHING if value is None else f"{value:.3f}"


def noted(study: Study) -> list[str]:
    """The notes on the fits, one line each, with the fits that each is on."""
    notes: dict[str, dict[str, list[str]]] = {}
    for row in study.rows:
        for note in row.notes:
            notes.setdefault(note, {}).setdefault(row.mesh, []).append(f"{row.arm}, seed {row.seed}")
    lines = []
    for note, meshes in notes.items():
        for mesh, fits in meshes.items():
            which = "" if len(fits) == len(study.of(mesh=mesh)) else f" ({'; '.join(fits)})"
            lines.append(f"{mesh}{which}: {note}")
    return lines


def _first(rows: Sequence[Row]) -> Row:
    return next((row for row in rows if row.iou), rows[0])
