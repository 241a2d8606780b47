"""A comparison -> one HTML file: the table, the picture, the meshes to turn in 3D, the curves; nothing is fetched."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from ff3d.benchmark import Comparison, Row
from ff3d.files import write_text
from ff3d.rendering import CREASE, Camera, error_color, signed_error
from ff3d.runs import Run, RunError

if TYPE_CHECKING:
    from trimesh import Trimesh

Floats = NDArray[np.float64]

FACES = 60_000  # of a mesh in the page, so that six of them stay under 12 MB
CORNERS = 60_000  # vertices of a mesh in the page beyond which sharp edges are shaded round, for the same reason
SCALE = 0.01  # error of full colour, as a share of the longest side; as in the picture
CURVES = ("uniform", "boundary_face")
TICKS = (0, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999, 0.9999)  # of IoU
PERFECT = 1e-5  # 1 - IoU at the upper edge of a chart, where it would be infinitely far


@dataclass(frozen=True)
class Column:
    """A column of the table. better: +1 if more is better, -1 if less is, 0 if neither."""

    head: str
    value: Callable[[Row], float | None]
    form: str
    better: int


def _iou(kind: str) -> Column:
    # a fit that failed has no field, and no IoU; one that only has no mesh has
    return Column(f"IoU {kind}", lambda row: row.iou[kind] if row.steps or not row.failure else None, ".4f", 1)


def _surface(head: str, name: str, form: str, better: int) -> Column:
    return Column(head, lambda row: getattr(row.surface, name) if row.surface else None, form, better)


def _cost(head: str, value: Callable[[Row], float], form: str, better: int) -> Column:
    return Column(head, lambda row: value(row) if row.steps or not row.failure else None, form, better)


COLUMNS = (
    _iou("uniform"),
    _iou("boundary_face"),
    _iou("boundary_area"),
    _surface("Chamfer", "chamfer", ".5f", -1),
    _surface("F-score", "f_score", ".4f", 1),
    _surface("normal consistency", "normal_consistency", ".4f", 1),
    _cost("steps", lambda row: row.steps, ",", 0),
    _cost("seconds", lambda row: row.seconds, ".1f", -1),
    _cost("KB", lambda row: row.bytes / 1000, ",.0f", -1),
)


def write_page(comparison: Comparison, folder: Path) -> Path:
    """Write report.html into `folder`, whole or not at all; return its path.

    folder: of the comparison, where compare.png and each mapping's run are looked for; what is not there is left
    out. The page opens from file://, asks for nothing over the network, and escapes every text it is given.
    Meshes are shown with at most 60,000 faces; the numbers are those of the whole ones.
    """
    import jinja2
    from markupsafe import Markup

    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["csp_hash"] = _hash
    template = environment.from_string((files("ff3d") / "templates" / "page.html").read_text(encoding="utf-8"))
    picture = folder / "compare.png"
    scene = json.dumps(_scene(comparison)).replace("<", "\\u003c")  # nothing in it can end the script element
    text = template.render(
        comparison=comparison,
        budget=comparison.config.budget,
        columns=COLUMNS,
        lines=_lines(comparison.rows),
        names=["ground truth", *(row.mapping for row, shape in _shown(comparison))],
        picture=_base64(picture.read_bytes()) if picture.exists() else "",
        charts=_charts(comparison.rows, folder),
        made=_made(comparison, folder),
        csv="data:text/csv;charset=utf-8," + quote(_csv(comparison.rows)),
        percent=f"{100 * SCALE:g}%",
        scene=Markup(scene),  # noqa: S704  (escaped above)
    )
    page = folder / "report.html"
    write_text(page, text)
    return page


def _hash(text: str) -> str:
    """What a Content-Security-Policy calls this very script, so that no other runs."""
    return f"sha256-{_base64(hashlib.sha256(text.encode()).digest())}"


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _lines(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The table's body: mapping, failure and, for each column, the text and whether it is the best."""
    lines: list[dict[str, Any]] = [{"mapping": row.mapping, "failure": row.failure, "cells": []} for row in rows]
    for column in COLUMNS:
        values = [column.value(row) for row in rows]
        texts = ["–" if value is None else format(value, column.form) for value in values]  # noqa: RUF001
        ranked = [column.better * value for value in values if value is not None]
        best = format(abs(max(ranked)), column.form) if ranked and column.better else None
        if len(set(texts)) == 1:
            best = None  # all alike: none is better
        for line, text in zip(lines, texts, strict=True):
            line["cells"].append((text, text == best))
    return lines


def _csv(rows: Sequence[Row]) -> str:
    """The table with all its digits."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow(["mapping", "seed", *(column.head for column in COLUMNS), "faces", "parameters", "failure"])
    for row in rows:
        values = [column.value(row) for column in COLUMNS]
        writer.writerow([row.mapping, row.seed, *values, row.faces, row.parameters, row.failure])
    return out.getvalue()


def _made(comparison: Comparison, folder: Path) -> list[tuple[str, str]]:
    """How it was made, as pairs of a word and its value."""
    records = []
    for row in comparison.rows:
        try:
            records.append(Run(folder / row.mapping).record())
        except (RunError, OSError):
            continue

    def all_of(name: str) -> str:
        return ", ".join(dict.fromkeys(str(record[name]) for record in records if record.get(name)))

    config = comparison.config
    versions = records[0].get("versions", {}) if records else {}
    pairs = [
        ("command", all_of("command")),
        ("mesh", comparison.source.name),
        ("mesh sha256", comparison.source.sha256),
        ("budget", f"{comparison.config.budget} a mapping"),
        ("preset", config.preset),
        ("network", f"{config.depth} hidden layers of {config.width}, {config.frequencies} frequencies"),
        ("batch", f"{config.batch_size:,} points"),
        ("seed", str(config.seed)),
        ("device", all_of("device")),
        ("precision", all_of("precision")),
        ("versions", ", ".join(f"{name} {version}" for name, version in versions.items())),
    ]
    return [(name, value) for name, value in pairs if value]


def _shown(comparison: Comparison) -> list[tuple[Row, Trimesh]]:
    """The rows that have a mesh, and it."""
    pairs = zip(comparison.rows, comparison.shapes, strict=True)
    return [(row, shape) for row, shape in pairs if shape is not None and len(shape.faces)]


def _scene(comparison: Comparison) -> dict[str, Any]:
    """What the viewer draws: the camera and the meshes, in units of the reference's longest side, about its middle."""
    truth = comparison.mesh
    middle, side = truth.bounds.mean(axis=0), float(truth.extents.max())
    camera = Camera.framing((np.asarray(truth.vertices) - middle) / side)
    meshes = [{"name": "ground truth"} | _packed(_small(truth), middle, side) | {"faces": len(truth.faces)}]
    for row, shape in _shown(comparison):
        small = _small(shape)
        error = signed_error(small.vertices, truth, comparison.oracle) / (SCALE * side)
        meshes.append({"name": row.mapping} | _packed(small, middle, side, error) | {"faces": len(shape.faces)})
    return {
        "middle": middle.tolist(),
        "side": side,
        "target": camera.target,
        "away": 0.5 * camera.width / math.tan(math.radians(camera.field_of_view / 2)),
        "focal": 1 / math.tan(math.radians(camera.field_of_view / 2)),
        "meshes": meshes,
    }


def _packed(mesh: Trimesh, middle: Floats, side: float, error: Floats | None = None) -> dict[str, Any]:
    """The mesh as base64: positions uint16 in its box, normals int8, colours uint8 by `error`, indices uint32.

    error: of each vertex, in units of the scale; None for no colours.
    """
    vertices, triangles = np.asarray(mesh.vertices, dtype=np.float64), np.asarray(mesh.faces, dtype=np.int64)
    triangles, which, normals = _shaded(vertices, triangles)
    points = (vertices - middle) / side
    low, extent = points.min(axis=0), np.ptp(points, axis=0)
    inside_box = (points - low) / np.where(extent > 0, extent, 1)
    packed = {
        "shown": len(triangles),
        "low": low.tolist(),
        "extent": extent.tolist(),
        "positions": _base64(np.rint(inside_box[which] * 65535).astype("<u2").tobytes()),
        "normals": _base64(normals.tobytes()),
        "indices": _base64(triangles.astype("<u4").tobytes()),
    }
    if error is not None:
        linear = error_color(error)
        color = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
        packed["colors"] = _base64(np.rint(255 * np.clip(color, 0, 1)).astype(np.uint8)[which].tobytes())
    return packed


def _shaded(vertices: Floats, faces: NDArray[np.int64]) -> tuple[Any, Any, Any]:
    """Faces (f, 3) into new vertices, which old vertex each of those (v,) is, and its normal (v, 3) int8.

    A vertex is one for the faces that its mean normal suits, and its own for each that turns away by more than the
    crease: edges that are sharp stay sharp.
    """
    corners = vertices[faces]
    ahead, back = (_unit(np.roll(corners, -turn, axis=1) - corners) for turn in (1, 2))
    flat = _unit(np.cross(ahead[:, 0], back[:, 0]))
    # by angle: so the faces of a box weigh the same at its corner, whichever way they are cut in two
    weights = (flat[:, None] * np.arccos(np.clip((ahead * back).sum(axis=2), -1, 1))[:, :, None]).reshape(-1, 3)
    smooth = _unit(np.stack([np.bincount(faces.reshape(-1), weights[:, i], len(vertices)) for i in range(3)], axis=1))
    normals = np.rint(127 * smooth).astype(np.int8)
    each = smooth[faces]
    sharp = np.einsum("fkj,fj->fk", each, flat) < CREASE
    each[sharp] = np.broadcast_to(flat[:, None], each.shape)[sharp]
    keys = np.concatenate([faces.reshape(-1, 1), np.rint(127 * each).astype(np.int64).reshape(-1, 3)], axis=1)
    split, numbers = np.unique(keys, axis=0, return_inverse=True)
    if len(split) > max(CORNERS, len(vertices)):
        return faces, np.arange(len(vertices)), normals
    return numbers.reshape(-1, 3), split[:, 0], split[:, 1:].astype(np.int8)


def _unit(vectors: Floats) -> Floats:
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(vectors / np.where(length > 0, length, 1))


def _small(mesh: Trimesh) -> Trimesh:
    """The mesh with at most FACES faces, to look at: it need not stay closed, which is why this takes no 20 s.

    By quadrics, as `ff3d.cleaning.simplify`, but unchecked; triangles that share no corners, which quadrics would
    collapse into holes, by merging the vertices in each cell of a grid.
    """
    import fast_simplification
    import trimesh

    if len(mesh.faces) <= FACES:
        return mesh
    vertices, number = np.unique(np.asarray(mesh.vertices, dtype=np.float64), axis=0, return_inverse=True)
    faces = number.reshape(-1)[np.asarray(mesh.faces)]
    low, side = mesh.bounds[0], float(mesh.extents.max())
    unit = (vertices - low) / side  # quadrics hold lengths against constants
    if len(vertices) < len(faces):
        found, kept = fast_simplification.simplify(unit, faces.astype(np.int32), target_count=FACES)[:2]
        if 0 < len(kept) <= FACES:
            return trimesh.Trimesh(np.asarray(found, dtype=np.float64) * side + low, kept, process=False)
    for cells in 512 * 0.8 ** np.arange(30):
        grid = np.floor(unit * cells).astype(np.int64)
        _, number = np.unique(grid, axis=0, return_inverse=True)
        number = number.reshape(-1)
        merged = number[faces]
        whole = (merged != np.roll(merged, 1, axis=1)).all(axis=1)
        _, first = np.unique(np.sort(merged[whole], axis=1), axis=0, return_index=True)
        if len(first) <= FACES:
            break
    counts = np.bincount(number)
    means = np.stack([np.bincount(number, vertices[:, i]) / counts for i in range(3)], axis=1)
    return trimesh.Trimesh(means, merged[whole][first], process=False)


def _charts(rows: Sequence[Row], folder: Path) -> list[dict[str, Any]]:
    """IoU against seconds, a chart a kind of test points; [] where no run folder holds an evaluation.

    Coordinates are those of a box 100 wide and 60 high, y down. y is logarithmic in 1 - IoU: good fits stay apart.
    """
    histories = {}
    for index, row in enumerate(rows):
        try:
            history = [it for it in Run(folder / row.mapping).history() if isinstance(it.get("iou"), dict)]
        except (RunError, OSError):
            continue
        if history:
            histories[index] = history
    charts = []
    for kind in CURVES:
        curves = {
            index: [(it["seconds"], float(it["iou"][kind])) for it in history if kind in it["iou"]]
            for index, history in histories.items()
        }
        curves = {index: points for index, points in curves.items() if points}
        if not curves:
            continue
        longest = max(points[-1][0] for points in curves.values()) or 1.0
        values = [value for points in curves.values() for _, value in points]
        under = max((tick for tick in TICKS if tick <= min(values)), default=TICKS[0])
        over = min((tick for tick in TICKS if tick >= max(values)), default=1 - PERFECT)
        over = over if over > under else 1 - PERFECT
        bottom, top = math.log(1 - under), math.log(1 - over)
        charts.append(
            {
                "kind": kind,
                "lines": [
                    {
                        "index": index,
                        "mapping": rows[index].mapping,
                        "last": f"{points[-1][1]:.4f} after {points[-1][0]:.1f} s",
                        "points": [(100 * at / longest, _height(value, bottom, top)) for at, value in points],
                    }
                    for index, points in curves.items()
                ],
                "ticks": [(f"{it:g}", _height(it, bottom, top)) for it in TICKS if under <= it <= over],
                "seconds": [(f"{at:g}", 100 * at / longest) for at in _round_steps(longest)],
            }
        )
    return charts


def _round_steps(end: float) -> list[float]:
    """Round numbers from 0 to `end`, three to seven of them."""
    power = 10.0 ** math.floor(math.log10(end))
    step = next(share * power for share in (0.2, 0.5, 1.0, 2.0) if end / (share * power) < 6)
    return [float(f"{index * step:.6g}") for index in range(int(end / step * (1 + 1e-9)) + 1)]


def _height(value: float, bottom: float, top: float) -> float:
    at = math.log(max(1 - max(value, 0), PERFECT))
    return 60 * (1 - min(max((at - bottom) / (top - bottom), 0), 1))
