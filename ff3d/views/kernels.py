"""The report of a shape's kernels: charts and pictures of them, and what they predict, as a page and as files."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ff3d.files import write_atomically, write_text
from ff3d.geometry.arrays import Floats
from ff3d.views.pages import Section, base64_of, line_chart, write_chart_page

if TYPE_CHECKING:
    from ff3d.theory.shapes import ShapeKernels

COLD, HOT, WHITE = np.array([[33, 102, 172], [178, 24, 43], [255, 255, 255]], dtype=np.float64)
TILE, GAP, LABEL = 192, 10, 22  # pixels
FRAME = (200, 200, 205)


def write_kernel_report(kernels: ShapeKernels, folder: str | Path, *, command: str = "") -> Path:
    """Write rows.json, eigenvectors.png, frequencies.png and report.html, which shows them, into a folder.

    Returns the page's path.
    """
    folder = Path(folder)
    write_text(folder / "rows.json", json.dumps(kernels.to_json(), indent=1) + "\n")
    pictures = {}
    for name, tiles in (("eigenvectors", _modes(kernels)), ("frequencies", _frequencies(kernels))):
        pictures[name] = _png(tile_picture(tiles))
        with write_atomically(folder / f"{name}.png") as temporary:
            temporary.write_bytes(pictures[name])
    path = folder / "report.html"
    write_chart_page(
        path,
        title=f"{kernels.name}: kernels",
        about=f"Tangent kernels of networks of infinite width at {kernels.count:,} labelled points, before training.",
        sections=_sections(kernels, pictures),
        command=command,
    )
    return path


def tile_picture(rows: Sequence[Sequence[tuple[str, Floats]]]) -> NDArray[np.uint8]:
    """Squares of numbers in [-1, 1], each below its name: blue, white at 0, red. Returns uint8 (h, w, 3)."""
    from PIL import Image, ImageDraw, ImageFont

    columns = max(map(len, rows))
    size = (columns * (TILE + GAP) + GAP, len(rows) * (TILE + GAP + LABEL) + GAP)
    sheet = Image.new("RGB", size, (255, 255, 255))
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(LABEL - 6)
    for row, tiles in enumerate(rows):
        top = row * (TILE + GAP + LABEL) + GAP
        for column, (name, values) in enumerate(tiles):
            left = GAP + column * (TILE + GAP)
            draw.text((left, top), name, fill=(30, 30, 40), font=font)
            ends = np.where(values[..., None] > 0, HOT, COLD)
            pixels = WHITE + (ends - WHITE) * np.minimum(np.abs(values), 1)[..., None]
            tile = Image.fromarray(pixels[::-1].round().astype(np.uint8)).resize((TILE, TILE), Image.Resampling.NEAREST)
            sheet.paste(tile, (left, top + LABEL))
            draw.rectangle([left - 1, top + LABEL - 1, left + TILE, top + LABEL + TILE], outline=FRAME)
    return np.asarray(sheet)


def _modes(kernels: ShapeKernels) -> list[list[tuple[str, Floats]]]:
    return [
        [(f"{report.mapping} {mode + 1:,}", values / np.abs(values).max()) for mode, values in report.modes.items()]
        for report in kernels.reports
    ]


def _frequencies(kernels: ShapeKernels) -> list[list[tuple[str, Floats]]]:
    return [[(report.mapping, report.waves.T) for report in kernels.reports]]


def _png(pixels: NDArray[np.uint8]) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def _sections(kernels: ShapeKernels, pictures: Mapping[str, bytes]) -> list[Section]:
    reports = kernels.reports

    def chart(title: str, against: str, x: str, y: str, **axes: bool) -> dict[str, Any]:
        lines = []
        for report in reports:
            up = getattr(report, y)
            across = getattr(report, x) if x else np.arange(1, len(up) + 1)
            lines.append((report.mapping, list(zip(across.tolist(), up.tolist(), strict=True))))
        return line_chart(title, against, lines, **axes)

    shown = {name: "data:image/png;base64," + base64_of(data) for name, data in pictures.items()}
    sections = [
        Section(
            "The kernels",
            [
                chart("kernel", "distance, units", "distances", "profile"),
                chart("share of the eigenvalues' sum", "eigenvalue", "", "eigenvalues", log_x=True, log_y=True),
            ],
            text="A Fourier mapping chooses the kernel's width: of a flatter spectrum, detail is learned sooner.",
        ),
        Section(
            "What is learned when",
            [chart("share of the labels' energy learned", "steps", "steps", "learned", log_x=True)],
            text="Waves along a line through the cube, red where their energy is learned: to the right steps, from "
            f"{reports[0].steps[0]:,.0f} to {reports[0].steps[-1]:,.0f}, upwards frequencies, from 1 to "
            f"{len(reports[0].frequencies)}.",
            picture=shown["frequencies"],
        ),
        Section(
            "Eigenvectors",
            text="On the slice z = 1/2 of the cube, or the plane; y goes up. The first have the largest eigenvalues.",
            picture=shown["eigenvectors"],
        ),
    ]
    if kernels.predicted:
        rows = [("variant", "predicted")] + [(it.name, kernels.said(it)) for it in kernels.predicted]
        swept = [(it.scale, it.error) for it in kernels.predicted if it.scale is not None]
        charts = (
            [line_chart("predicted error", "scale of gaussian", [("gaussian", swept)], log_x=True)] if swept else []
        )
        preset = "fast" if kernels.picture else "plain"
        text = f"Of {preset} fits of {kernels.fit_steps:,} steps. The order counts: errors come out too high."
        sections.append(Section("Predicted fits", charts, rows, text))
    return sections
