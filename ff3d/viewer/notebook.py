"""What a notebook shows of a result that is the last line of a cell: the shape in 3D or a picture, and its numbers."""

from __future__ import annotations

import html
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import trimesh

    from ff3d.fields.field import LatticeField, OccupancyField
    from ff3d.studies.study import Study
    from ff3d.theory.images import ImageFit
    from ff3d.views.rendering import Picture

PICTURE, CELLS = 320, 96  # pixels; cells along the longest side of a field's surface
STUDY = 560  # pixels, the height of what shows the meshes of a study


def register(shell: Any) -> None:
    """Teach an IPython shell to show fields, meshes, studies and fits to pictures; imports none of them."""
    formatter = shell.display_formatter.formatters["text/html"]
    shown = (
        ("ff3d.fields.field", "Field", field_html),
        ("trimesh.base", "Trimesh", mesh_html),
        ("ff3d.studies.study", "Study", study_html),
        ("ff3d.theory.images", "ImageFit", image_html),
    )
    for module, name, function in shown:
        formatter.for_type_by_name(module, name, function)


def field_html(field: OccupancyField | LatticeField) -> str:
    """A field: its surface in 3D, its mapping, how many numbers it is made of, and its box."""
    from ff3d.fields.field import LatticeField
    from ff3d.surfaces.grid_levels import ExtractionError

    mapping = field.mapping if isinstance(field, LatticeField) else field.mapping.name
    rows = {
        "field": type(field).__name__,
        "mapping": mapping,
        "numbers": f"{field.parameter_count:,}",
        "box": _box(field.bounds),
        "of": field.source.get("name", ""),
    }
    try:
        return _shape(field.extract_mesh(CELLS)) + _table(rows)
    except ExtractionError:
        return _table(rows | {"surface": "none: it is inside nowhere"})


def mesh_html(mesh: trimesh.Trimesh) -> str:
    """A mesh: in 3D, its faces, whether it is closed, and its volume."""
    rows = {"mesh": f"{len(mesh.vertices):,} vertices, {len(mesh.faces):,} faces"}
    if not len(mesh.faces):
        return _table(rows)
    closed = bool(mesh.is_watertight)
    rows |= {"closed": "yes" if closed else "no", "box": _box(mesh.bounds)}
    return _shape(mesh) + _table(rows | ({"volume": f"{mesh.volume:.6g}"} if closed else {}))


def study_html(study: Study) -> str:
    """A study: its table, what failed, its meshes in 3D, and the pictures of its report, if that was written."""
    from ff3d.views.html import study_cell
    from ff3d.views.tables import text_table

    text = f"<pre>{html.escape(f'{study.plan}')}\n\n{html.escape(text_table(study))}</pre>"
    failed = [f"{row.mesh}, {row.arm}, seed {row.seed} failed: {row.failure}" for row in study.rows if row.failure]
    text += "".join(f"<div>{html.escape(line)}</div>" for line in failed)
    with suppress(OSError, ValueError):  # its meshes are no longer there
        if document := study_cell(study):
            text += _frame(document, f"width: 100%; height: {STUDY}px")
    files = [study.folder / f"{mesh}.png" for mesh in study.meshes]
    return text + "".join(_image(file.read_bytes()) for file in files if file.exists())


def image_html(fit: ImageFit) -> str:
    """A fit to a picture: the truth and what was fitted, side by side, and its scores."""
    import numpy as np

    from ff3d.theory.images import to_bytes

    both = [fit.picture.pixels, fit.pixels]
    picture = np.concatenate([to_bytes(it[..., :3] if it.ndim == 3 else it) for it in both], axis=1)
    row = fit.to_json()
    kept = ("mapping", "scale", "parameters", "psnr_train", "psnr_test", "ssim")
    known = {name: row[name] for name in kept if row.get(name) is not None}
    texts = {name: value if isinstance(value, str) else f"{value:.6g}" for name, value in known.items()}
    return _image(_png(picture)) + _table(texts)


def _shape(mesh: trimesh.Trimesh) -> str:
    """A view in 3D over a picture, which is seen where a notebook shows no frames, or a browser has no WebGL."""
    from ff3d.views.html import mesh_cell
    from ff3d.views.rendering import default_camera, render

    size = (PICTURE, PICTURE)
    picture = _image(_png(render(mesh, default_camera(mesh, size), size=size)))
    frame = _frame(mesh_cell(mesh), "position: absolute; inset: 0; width: 100%; height: 100%")
    return f'<div style="position: relative; width: {PICTURE}px; height: {PICTURE}px">{picture}{frame}</div>'


def _frame(document: str, style: str) -> str:
    """A document in an inline frame, with scripts and no access to what is around it."""
    title = "drag turns, the wheel comes nearer"
    inside = html.escape(document)
    return f'<iframe sandbox="allow-scripts" title="{title}" style="border: 0; {style}" srcdoc="{inside}"></iframe>'


def _png(picture: Picture) -> bytes:
    import io

    from PIL import Image

    data = io.BytesIO()
    Image.fromarray(picture).save(data, format="PNG")
    return data.getvalue()


def _image(png: bytes) -> str:
    import base64

    return f'<img style="max-width: 100%" src="data:image/png;base64,{base64.b64encode(png).decode()}">'


def _table(rows: dict[str, str]) -> str:
    cells = "".join(
        f"<tr><th>{html.escape(name)}</th><td>{html.escape(value)}</td></tr>" for name, value in rows.items() if value
    )
    return f"<table>{cells}</table>"


def _box(bounds: Any) -> str:
    return " to ".join("(" + ", ".join(f"{value:.4g}" for value in corner) + ")" for corner in bounds)
