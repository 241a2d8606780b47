"""A field measured against a shape: IoU at test points, distances of its mesh, and a note of what was not measured."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike
from tqdm.auto import tqdm

from ff3d.geometry.arrays import Floats, Labels, Points
from ff3d.geometry.hidden_walls import separating_surface
from ff3d.geometry.sampling import Surface
from ff3d.geometry.triangles import unit_vectors
from ff3d.labels.oracles import is_cloud
from ff3d.metrics import LabelledPoints, Overlap, SurfaceMetrics, overlap, remarks, surface_distances
from ff3d.points.test_sets import TEST_KINDS, test_points
from ff3d.surfaces.grid_levels import ExtractionError

if TYPE_CHECKING:
    import trimesh

    from ff3d.fields.field import Field
    from ff3d.labels.oracles import LabelledShape, Oracle

RESOLUTION, FINEST = 256, 2048  # cells along the longest side of an extracted mesh: the usual, the most chosen unasked
CELLS_ACROSS = 1.5  # of the thinnest part that is to be found
THINNEST = 1e-4  # sizes: what is thinner is taken to be so thin
THIN_SHARE = 0.05  # of the area that may be thinner
WALLS = 256  # pieces, along the longest side, into which a reference is cut where hidden walls meet the rest
LARGER, FAR_LARGER = 5, 50  # times: boxes that are noted, and that are not those of one shape even where they meet
UNITS = {10.0: "mm and cm", 25.4: "mm and inches", 100.0: "cm and m", 304.8: "mm and feet", 1000.0: "mm and m"}


@dataclass(frozen=True)
class Measurement:
    """How good a field is.

    overlaps: for each kind of test points.  surface: of the extracted mesh against the reference; None where there is
    no mesh.  resolution: of that mesh.  notes: what was not measured and why, and what looks better than it is.
    """

    overlaps: dict[str, Overlap]
    surface: SurfaceMetrics | None = None
    resolution: int | None = None
    notes: tuple[str, ...] = ()

    @property
    def iou(self) -> dict[str, float]:
        """IoU by kind of test points."""
        return {kind: found.iou for kind, found in self.overlaps.items()}

    def to_json(self) -> dict[str, Any]:
        """Plain data: `iou`, the measures of the surface by name, resolution and notes."""
        plain: dict[str, Any] = {"iou": {kind: found.known for kind, found in self.overlaps.items()}}
        if self.surface is not None:
            plain |= dataclasses.asdict(self.surface) | {"resolution": self.resolution}
        return plain | ({"notes": list(self.notes)} if self.notes else {})


def measure(
    field: Field,
    reference: LabelledShape,
    *,
    tests: dict[str, LabelledPoints] | None = None,
    resolution: int | None = None,
    seed: int = 0,
    progress_bar: bool = False,
) -> Measurement:
    """Measure a field against a shape.

    tests: by default the test points of each kind, drawn from `seed`.  resolution: of the extracted mesh, cells along
    the longest side of the field's box; by default 256, or more where the shape is thinner than two of those cells.
    Distances are to what of the reference parts inside from outside: walls hidden in it do not count.
    Raises ValueError if the boxes of the two do not meet, or are those of different units.
    """
    larger = check_boxes(field.bounds, reference.mesh.bounds)
    if tests is None:
        tests = {kind: test_points(reference, kind, seed=seed) for kind in TEST_KINDS}
    overlaps = overlaps_of(field.contains, tests, progress_bar=progress_bar)
    notes = [*([larger] if larger else []), *remarks(overlaps)]
    resolution, note = _resolution(field, reference, overlaps) if resolution is None else (resolution, None)
    notes += [note] if note else []
    try:
        shape = field.extract_mesh(resolution, progress=progress_bar)
    except (ExtractionError, MemoryError) as error:
        reason = str(error) or type(error).__name__
        return Measurement(overlaps, notes=(*notes, f"no mesh, so no Chamfer distance, F-score or normals: {reason}"))
    surface = surface_distances(shape, separating_reference(reference), seed=seed)
    return Measurement(overlaps, surface, resolution, tuple(notes))


def overlaps_of(
    contains: Callable[[Points], Labels], tests: dict[str, LabelledPoints], *, progress_bar: bool = False
) -> dict[str, Overlap]:
    """On each test set, how what `contains`, points (n, 3) -> bool (n,), says overlaps with the labels."""
    bar = tqdm(tests.items(), desc="evaluate", unit=" sets", delay=2, leave=False, disable=not progress_bar)
    return {kind: overlap(contains, points) for kind, points in bar}


def separating_reference(reference: LabelledShape) -> trimesh.Trimesh:
    """What of a reference distances are to: the faces that have inside on one side alone; of a scan, all of it."""
    mesh = reference.mesh
    if is_cloud(reference):
        return mesh
    return separating_surface(mesh, reference.oracle, float(np.ptp(mesh.bounds, axis=0).max()) / WALLS)


def check_boxes(field: ArrayLike, reference: ArrayLike) -> str | None:
    """A note if one of two boxes (2, 3), the field's and the reference's, is `LARGER` times as large as the other.

    Raises ValueError if they cannot be those of one shape: if they do not meet, or one is `FAR_LARGER` times as large.
    """
    one, other = np.asarray(field, dtype=np.float64), np.asarray(reference, dtype=np.float64)
    meet = (np.maximum(one[0], other[0]) <= np.minimum(one[1], other[1])).all()
    sizes = [float(np.ptp(box, axis=0).max()) for box in (one, other)]
    ratio = max(sizes) / min(sizes) if min(sizes) > 0 else math.inf
    # the field's box is larger than its shape by a margin, which would make 937 of 1,000
    factor, unit = next((it for it in UNITS.items() if abs(ratio / it[0] - 1) < 0.15), (ratio, ""))
    larger = "reference" if sizes[1] > sizes[0] else "field"
    how = f"the {larger} is about {factor:,.4g} times larger{f' ({unit}?)' * bool(unit)}"
    if meet and ratio < FAR_LARGER:
        return how if ratio >= LARGER else None
    what = "the boxes are not of one shape" if meet else "the boxes do not meet"
    how = f": {how}" if ratio > 2 else ""
    boxes = " and ".join(f"{_corner(box[0])} to {_corner(box[1])}" for box in (one, other))
    raise ValueError(f"{what}{how}; the field's and the reference's go from {boxes}; scale or move one")


def thickness(
    mesh: trimesh.Trimesh, oracle: Oracle, *, most: float, share: float = THIN_SHARE, count: int = 1000
) -> float:
    """How thick a shape is where it is thin: all but `share` of its area has more inside under it. Input units.

    Seen from `count` points of the surface, straight in, in steps of a fifth from `THINNEST` of its size: right to
    that. Infinite if it is more than `most`, or if nothing of the surface has inside on one side alone.
    """
    surface = Surface.of(mesh)
    points, faces = surface.sample(count, np.random.default_rng(0))
    normals = unit_vectors(surface.crosses[faces])
    size = float(np.ptp(surface.corners.reshape(-1, 3), axis=0).max())
    lift = THINNEST / 100 * size * normals
    inward = oracle(points - lift)
    known = inward != oracle(points + lift)
    points, normals = points[known], np.where(inward[known, None], -1.0, 1.0) * normals[known]
    if not len(points):
        return math.inf
    depth, deep, active = THINNEST * size, np.full(len(points), math.inf), np.arange(len(points))
    while depth < 1.2 * most and len(active):
        inside = oracle(points[active] + depth * normals[active])
        deep[active[~inside]] = depth
        active, depth = active[inside], 1.2 * depth
    return float(np.quantile(deep, share, method="lower"))


def _resolution(field: Field, reference: LabelledShape, overlaps: dict[str, Overlap]) -> tuple[int, str | None]:
    """The resolution at which a shape as thin as the reference is found, and a note if it is not the usual one."""
    if is_cloud(reference) or not any(found.found for found in overlaps.values()):
        return RESOLUTION, None
    longest = float(np.ptp(field.bounds, axis=0).max())
    thin = thickness(reference.mesh, reference.oracle, most=CELLS_ACROSS * longest / RESOLUTION)
    needed = math.ceil(CELLS_ACROSS * longest / thin)
    if needed <= RESOLUTION:
        return RESOLUTION, None
    chosen = min(needed, FINEST)
    return chosen, f"the shape is about {thin:.3g} thin: extracted at resolution {chosen}, not at {RESOLUTION}"


def _corner(point: Floats) -> str:
    return "(" + ", ".join(f"{x:.4g}" for x in point) + ")"
