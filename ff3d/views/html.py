"""A study to one HTML file: tables, pictures, the meshes in 3D, curves; the page fetches nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from ff3d.files import write_text
from ff3d.geometry.arrays import Floats
from ff3d.geometry.triangles import have_three_corners, sums_by_index, unit_vectors
from ff3d.shapes.mesh import load_mesh
from ff3d.studies.statistics import curve, sweep
from ff3d.studies.study import Study
from ff3d.views.color import to_srgb
from ff3d.views.pages import apart, base64_of, rendered, round_steps, script_data
from ff3d.views.rendering import CREASE, Camera, error_color, signed_error
from ff3d.views.tables import COLUMNS, LEGEND, cells, csv_table, latex_table, noted, provenance, published_means

if TYPE_CHECKING:
    from trimesh import Trimesh


FACES = 60_000  # of a mesh in the page at most, so that six of them stay under 12 MB
FEWEST = 12_000  # of each, however many meshes there are
CORNERS = 60_000  # vertices of a mesh in the page; with more, sharp edges are shaded smooth, for the same reason
SCALE = 0.01  # the error of full colour, as a share of the longest side; as in the picture
CURVES = ("uniform", "boundary_face")
TICKS = (0, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999, 0.9999)  # of IoU
PERFECT = 1e-5  # 1 - IoU at the upper edge of a chart, where it would be infinitely far


@dataclass(frozen=True)
class Line:
    """A line of a chart: mean values and the half widths of their intervals (NaN for none); index: its colour."""

    index: int
    name: str
    points: list[tuple[float, float, float]]


def write_page(study: Study) -> Path:
    """Write report.html beside the study's runs, atomically; return its path.

    The page opens from file://, requests nothing over the network, and escapes every text. Pictures are read from
    beside it and meshes from the first seed's run folders; those that are absent are left out. Meshes are shown with
    at most 60,000 faces, fewer if there are many meshes; the numbers are those of the meshes as they were extracted.
    """
    plan, meshes = study.plan, study.meshes
    pictures = [(mesh, name, study.folder / f"{mesh}{name}.png") for mesh in meshes for name in ("", "-cuts")]
    tables = [("All meshes", cells(study))] if len(meshes) != 1 else []
    tables += [(mesh, cells(study, mesh)) for mesh in meshes]
    most = min(FACES, max(FEWEST, 6 * FACES // (len(meshes) * (len(plan.variants) + 1) or 1)))
    text = rendered(
        "page.html",
        study=study,
        title=", ".join(meshes),
        columns=COLUMNS,
        tables=tables,
        paper=published_means() if plan.config.preset == "paper" else {},
        failures=[row for row in study.rows if row.failure],
        notes=noted(study),
        legend=LEGEND,
        names=["ground truth", *plan.variants],
        pictures=[(mesh, name, base64_of(path.read_bytes())) for mesh, name, path in pictures if path.exists()],
        charts=_charts(study),
        provenance=provenance(study),
        csv="data:text/csv;charset=utf-8," + quote(csv_table(study.rows)),
        latex="data:text/x-tex;charset=utf-8," + quote(latex_table(study)),
        **_viewer(_scenes(study, most)),
    )
    page = study.folder / "report.html"
    write_text(page, text)
    study.storage.send(page.name)
    return page


def mesh_cell(mesh: Trimesh) -> str:
    """A document for an inline frame, which shows a mesh in 3D and requests nothing; some 300 KB."""
    return _cell([_scene("", mesh, FEWEST)], ["mesh"])


def study_cell(study: Study) -> str:
    """A document for an inline frame, which shows the meshes of a study in 3D; "" if there are none."""
    scenes = _scenes(study, FEWEST)
    return _cell(scenes, ["ground truth", *study.plan.variants]) if scenes else ""


def _cell(scenes: list[dict[str, Any]], names: list[str]) -> str:
    return rendered("cell.html", names=names, **_viewer(scenes))


def _viewer(scenes: list[dict[str, Any]]) -> dict[str, Any]:
    """What the template of the viewer takes, but for the names of a scene's meshes."""
    shapes = [scene["name"] for scene in scenes]
    return {"shapes": shapes, "percent": f"{100 * SCALE:g}%", "scenes": script_data(scenes)}


def _scenes(study: Study, most: int) -> list[dict[str, Any]]:
    """The viewer's data, one scene for each mesh: camera, ground truth, and the first seed's mesh of each variant.

    Each mesh has at most `most` faces. A variant without one is null.
    """
    scenes = []
    for name in study.meshes:
        rows = [next(iter(study.of(variant, name)), None) for variant in study.plan.variants]
        if not any(row and row.surface for row in rows):
            continue
        reference = study.reference(name)
        truth = reference.mesh
        scene = _scene(name, truth, most)
        middle, side, meshes = np.array(scene["middle"]), scene["side"], scene["meshes"]
        for row in rows:
            file = study.run(row) / "mesh.ply" if row and row.surface else None
            if file is None or not file.exists():
                meshes.append(None)
                continue
            shape = load_mesh(file)
            small = _small(shape, most)
            error = signed_error(small.vertices, truth, reference.oracle) / (SCALE * side)
            meshes.append(_packed(small, middle, side, error) | {"faces": len(shape.faces)})
        scenes.append(scene)
    return scenes


def _scene(name: str, mesh: Trimesh, most: int) -> dict[str, Any]:
    """The data of a view of one mesh with at most `most` faces, in units of its longest side, about its middle."""
    middle, side = mesh.bounds.mean(axis=0), float(mesh.extents.max()) or 1.0
    camera = Camera.framing((np.asarray(mesh.vertices) - middle) / side)
    return {
        "name": name,
        "middle": middle.tolist(),
        "side": side,
        "target": camera.target,
        "away": 0.5 * camera.width / math.tan(math.radians(camera.field_of_view / 2)),
        "focal": 1 / math.tan(math.radians(camera.field_of_view / 2)),
        "meshes": [_packed(_small(mesh, most), middle, side) | {"faces": len(mesh.faces)}],
    }


def _packed(mesh: Trimesh, middle: Floats, side: float, error: Floats | None = None) -> dict[str, Any]:
    """The mesh as base64: positions uint16 in its box, normals int8, colours uint8 by `error`, indices uint32.

    error: of each vertex, in units of the scale; None for no colours.
    """
    vertices, triangles = np.asarray(mesh.vertices, dtype=np.float64), np.asarray(mesh.faces, dtype=np.int64)
    triangles, which, normals = shaded(vertices, triangles)
    points = (vertices - middle) / side
    low, extent = points.min(axis=0), np.ptp(points, axis=0)
    inside_box = (points - low) / np.where(extent > 0, extent, 1)
    packed = {
        "shown": len(triangles),
        "low": low.tolist(),
        "extent": extent.tolist(),
        "positions": base64_of(np.rint(inside_box[which] * 65535).astype("<u2").tobytes()),
        "normals": base64_of(normals.tobytes()),
        "indices": base64_of(triangles.astype("<u4").tobytes()),
    }
    if error is not None:
        packed["colors"] = base64_of(np.rint(255 * to_srgb(error_color(error))).astype(np.uint8)[which].tobytes())
    return packed


def shaded(vertices: Floats, faces: NDArray[np.int64]) -> tuple[Any, Any, Any]:
    """Vertices split at sharp edges: faces (f, 3), the old vertex (v,) of each new one, its normal (v, 3) int8.

    Faces share a vertex if its mean normal is within the crease angle of theirs; each other face gets a copy with the
    face's normal.
    """
    corners = vertices[faces]
    ahead, back = (unit_vectors(np.roll(corners, -turn, axis=1) - corners) for turn in (1, 2))
    flat = unit_vectors(np.cross(ahead[:, 0], back[:, 0]))
    # weighted by angle, so that the sides of a box weigh the same at its corner however they are triangulated
    weights = (flat[:, None] * np.arccos(np.clip((ahead * back).sum(axis=2), -1, 1))[:, :, None]).reshape(-1, 3)
    smooth = unit_vectors(sums_by_index(faces.reshape(-1), weights, len(vertices)))
    normals = np.rint(127 * smooth).astype(np.int8)
    each = smooth[faces]
    sharp = np.einsum("fkj,fj->fk", each, flat) < CREASE
    each[sharp] = np.broadcast_to(flat[:, None], each.shape)[sharp]
    keys = np.concatenate([faces.reshape(-1, 1), np.rint(127 * each).astype(np.int64).reshape(-1, 3)], axis=1)
    split, numbers = np.unique(keys, axis=0, return_inverse=True)
    if len(split) > max(CORNERS, len(vertices)):
        return faces, np.arange(len(vertices)), normals
    return numbers.reshape(-1, 3), split[:, 0], split[:, 1:].astype(np.int8)


def _small(mesh: Trimesh, most: int) -> Trimesh:
    """The mesh with at most `most` faces, for display: it need not stay closed, which saves 20 s.

    By quadrics, as `surfaces.cleaning.simplify`, but unchecked; a mesh whose triangles share no corners, which quadrics
    would tear, by merging the vertices in each cell of a grid.
    """
    import fast_simplification
    import trimesh

    if len(mesh.faces) <= most:
        return mesh
    vertices, number = np.unique(np.asarray(mesh.vertices, dtype=np.float64), axis=0, return_inverse=True)
    faces = number.reshape(-1)[np.asarray(mesh.faces)]
    low, side = mesh.bounds[0], float(mesh.extents.max())
    unit = (vertices - low) / side  # quadrics compare lengths with constants
    if len(vertices) < len(faces):
        found, kept = fast_simplification.simplify(unit, faces.astype(np.int32), target_count=most)[:2]
        if 0 < len(kept) <= most:
            return trimesh.Trimesh(np.asarray(found, dtype=np.float64) * side + low, kept, process=False)
    for per_side in 512 * 0.8 ** np.arange(30):
        grid = np.floor(unit * per_side).astype(np.int64)
        _, number = np.unique(grid, axis=0, return_inverse=True)
        number = number.reshape(-1)
        merged = number[faces]
        merged = merged[have_three_corners(merged)]
        _, first = np.unique(np.sort(merged, axis=1), axis=0, return_index=True)
        if len(first) <= most:
            break
    counts = np.bincount(number)
    means = sums_by_index(number, vertices, len(counts)) / counts[:, None]
    return trimesh.Trimesh(means, merged[first], process=False)


def _charts(study: Study) -> list[dict[str, Any]]:
    """IoU against seconds, against each varied setting that is a number, and against parameters where they differ."""
    plan, charts = study.plan, []
    kinds = [kind for kind in CURVES if any(kind in row.iou for row in study.rows)]
    for kind in kinds:
        parts = {variant: study.scored(variant, f"iou.{kind}") for variant in plan.variants}
        names = [f"{variant} ({part})" if part else variant for variant, part in parts.items()]
        lines = [
            Line(i, name, curve(study.of(it), kind)) for i, (it, name) in enumerate(zip(parts, names, strict=True))
        ]
        charts.append(_chart(kind, "seconds", lines, logarithmic=False))
    numeric = [name for name, values in plan.vary.items() if all(isinstance(it, int | float) for it in values)]
    sizes = {row.parameters for row in study.rows if row.iou}
    for name in [*numeric, *(["parameters"] if len(sizes) > 1 else [])]:
        for kind in kinds:
            lines = [Line(i, it, sweep(study.rows, it, name, kind)) for i, it in enumerate(plan.mappings)]
            charts.append(_chart(kind, name.replace("_", " "), lines, logarithmic=True))
    return [chart for chart in charts if chart["lines"]]


def _chart(kind: str, against: str, lines: Sequence[Line], *, logarithmic: bool) -> dict[str, Any]:
    """A chart's lines, bands and ticks in a box 100 wide and 60 high, y down.

    y is logarithmic in 1 - IoU: good fits stay apart.
    """
    lines = [line for line in lines if line.points]
    if not lines:
        return {"lines": []}
    every = [point for line in lines for point in line.points]
    values, places = [mean for _, mean, _ in every], [at for at, _, _ in every]
    under = max((tick for tick in TICKS if tick <= min(values)), default=TICKS[0])
    over = min((tick for tick in TICKS if tick >= max(values)), default=1 - PERFECT)
    over = over if over > under else 1 - PERFECT
    bottom, top = math.log(1 - under), math.log(1 - over)
    if logarithmic:
        low, high = math.log(min(places)) - 0.05, math.log(max(places)) + 0.05
        marks = sorted(set(places)) if len(set(places)) <= 8 else [min(places), max(places)]
    else:
        low, high = 0.0, max(places) or 1.0
        marks = round_steps(high)

    def across(at: float) -> float:
        return 100 * ((math.log(at) if logarithmic else at) - low) / (high - low)

    def band(line: Line) -> list[tuple[float, float]]:
        edges = [(across(at), mean, half) for at, mean, half in line.points if not math.isnan(half)]
        upper = [(x, _height(mean + half, bottom, top)) for x, mean, half in edges]
        return upper + [(x, _height(mean - half, bottom, top)) for x, mean, half in reversed(edges)]

    return {
        "kind": kind,
        "against": against,
        "lines": [
            {
                "index": line.index,
                "name": line.name,
                "last": f"{line.points[-1][1]:.4f} at {line.points[-1][0]:g}",
                "points": [(across(at), _height(mean, bottom, top)) for at, mean, _ in line.points],
                "band": band(line),
            }
            for line in lines
        ],
        "ticks": [(f"{it:g}", _height(it, bottom, top)) for it in TICKS if under <= it <= over],
        "marks": apart([(f"{at:g}", across(at)) for at in marks]),
    }


def _height(value: float, bottom: float, top: float) -> float:
    at = math.log(max(1 - max(value, 0), PERFECT))
    return 60 * (1 - min(max((at - bottom) / (top - bottom), 0), 1))
