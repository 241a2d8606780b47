"""The test sets of the comparison: labelled points, uniform in the box and near the surface, drawn or from a file."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ff3d.checks import one_line
from ff3d.files import check_archive
from ff3d.geometry.coordinates import UnitCube, grown_box
from ff3d.geometry.sampling import sample_surface, sample_uniform
from ff3d.labels.oracles import Oracle, Shape, surface_and_oracle
from ff3d.metrics import LabelledPoints

TEST_KINDS = ("uniform", "boundary_face", "boundary_area")
# Tancik et al. 2020 and the authors' notebook, in units (the side of the paper's cube)
TEST_COUNT, TEST_GROWTH, TEST_NOISE = 64**3, 1e-3, 0.01


def test_points(
    shape: Shape, kind: str, *, count: int = TEST_COUNT, seed: int = 0, oracle: Oracle | None = None
) -> LabelledPoints:
    """A test set of the comparison in Tancik et al. 2020: `count` labelled points, input coordinates.

    - `uniform`: in the bounding box grown by 1e-3 unit.
    - `boundary_face` (or `boundary`): on uniformly chosen faces, as in the authors' notebook, so that the points
      crowd where triangles are small; plus N(0, 0.01 unit) noise.
    - `boundary_area`: the same, area-weighted.

    A unit is the side of the paper's cube, `UnitCube.paper(mesh.vertices).scale`. Box, unit and faces are those of what
    counts as surface.  shape: as of `load_surface`.  oracle: labels, by default the shape's own.
    Raises ValueError for an unknown kind, OpenSurfaceError for a sheet.
    """
    kind = "boundary_face" if kind == "boundary" else kind
    if kind not in TEST_KINDS:
        raise ValueError(f"unknown kind of test points {kind!r}; known: boundary, {', '.join(TEST_KINDS)}")
    mesh, oracle = surface_and_oracle(shape, oracle)
    unit = UnitCube.paper(mesh.vertices).scale
    rng = np.random.default_rng([seed, TEST_KINDS.index(kind)])
    if kind == "uniform":
        points = sample_uniform(grown_box(mesh, TEST_GROWTH * unit), count, rng)
    else:
        on_surface, _ = sample_surface(mesh, count, rng, weight="face" if kind == "boundary_face" else "area")
        points = on_surface + rng.standard_normal((count, 3)) * (TEST_NOISE * unit)
    return LabelledPoints(points, oracle(points))


test_points.__test__ = False  # type: ignore[attr-defined]  # pytest: not a test, for all its name


def load_test_sets(path: str | Path) -> dict[str, LabelledPoints]:
    """Read a .npz of frozen test sets: for each kind, `kind` (n, 3) and `kind_inside`, bool or packed bits.

    Raises ValueError, naming the file, if it is no .npz, has none of the kinds, the counts do not fit, or a point is
    not finite.
    """
    path = Path(path)
    sets: dict[str, LabelledPoints] = {}
    try:
        check_archive(path)
        with np.load(path, allow_pickle=False) as archive:
            for kind in TEST_KINDS:
                if kind in archive and f"{kind}_inside" in archive:
                    points, inside = archive[kind], archive[f"{kind}_inside"]
                    if inside.dtype != bool and (inside.dtype, inside.shape) != (np.uint8, ((len(points) + 7) // 8,)):
                        raise ValueError(f"{kind}_inside is neither bool nor packed bits of {len(points)} labels")
                    bits = inside if inside.dtype == bool else np.unpackbits(inside, count=len(points)).astype(bool)
                    if points.ndim != 2 or points.shape[1] != 3 or bits.shape != (len(points),):
                        raise ValueError(f"{kind} has shape {points.shape} and {bits.shape} labels")
                    if not np.isfinite(points).all():
                        raise ValueError(f"{kind} has points that are not finite")
                    sets[kind] = LabelledPoints(points.astype(np.float64), bits)
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file; expected a .npz of test sets") from None
    except Exception as error:
        raise ValueError(f"{path}: not a readable .npz of test sets ({one_line(error)})") from error
    if not sets:
        raise ValueError(f"{path}: holds none of {', '.join(TEST_KINDS)}")
    return sets
