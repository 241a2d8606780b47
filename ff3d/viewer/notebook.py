"""What a notebook shows of a result that is the last line of a cell: a picture, and its numbers in a table."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import trimesh

    from ff3d.fields.field import LatticeField, OccupancyField
    from ff3d.studies.study import Study
    from ff3d.theory.images import ImageFit
    from ff3d.views.rendering import Picture

PICTURE, CELLS = 320, 96  # pixels; cells along the longest side of a field's surface


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
    """A field: its surface, its mapping, how many numbers it is made of, and its box."""
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
        return _picture_of(field.extract_mesh(CELLS)) + _table(rows)
    except ExtractionError:
        return _table(rows | {"surface": "none: it is inside nowhere"})


def mesh_html(mesh: trimesh.Trimesh) -> str:
    """A mesh: as lit clay, its faces, whether it is closed, and its volume."""
    rows = {"mesh": f"{len(mesh.vertices):,} vertices, {len(mesh.faces):,} faces"}
    if not len(mesh.faces):
        return _table(rows)
    closed = bool(mesh.is_watertight)
    rows |= {"closed": "yes" if closed else "no", "box": _box(mesh.bounds)}
    return _picture_of(mesh) + _table(rows | ({"volume": f"{mesh.volume:.6g}"} if closed else {}))


def study_html(study: Study) -> str:
    """A study: its table, what failed, and the pictures of its report, if that was written."""
    from ff3d.views.tables import text_table

    text = f"<pre>{html.escape(f'{study.plan}')}\n\n{html.escape(text_table(study))}</pre>"
    failed = [f"{row.mesh}, {row.arm}, seed {row.seed} failed: {row.failure}" for row in study.rows if row.failure]
    text += "".join(f"<div>{html.escape(line)}</div>" for line in failed)
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


def _picture_of(mesh: trimesh.Trimesh) -> str:
    from ff3d.views.rendering import default_camera, render

    size = (PICTURE, PICTURE)
    return _image(_png(render(mesh, default_camera(mesh, size), size=size)))


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
