"""IoU of point sets; Chamfer distance, F-score and normal consistency of surfaces. No network in it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.random import Generator

from ff3d.geometry.arrays import Floats, Labels, Points
from ff3d.geometry.coordinates import order_in_space
from ff3d.geometry.sampling import Surface
from ff3d.geometry.triangles import loose

if TYPE_CHECKING:
    import trimesh


class LabelledPoints(NamedTuple):
    """points (n, 3), input coordinates, and occupancy (n,) bool, True inside."""

    points: Points
    occupancy: Labels


@dataclass(frozen=True)
class SurfaceMetrics:
    """How far two surfaces lie apart. Lengths are shares of the longest side of the reference's bounding box.

    accuracy: mean distance of points on the reconstruction to the reference; completeness: the other way round.
    chamfer: their mean (of distances, not of squares).  hausdorff: the largest distance seen, either way.
    precision, recall: shares of those points nearer than the threshold; f_score: their harmonic mean.
    normal_consistency: mean |cosine| between a point's normal and that of the nearest face, both ways averaged.
    Where the nearest point lies on an edge, that is one of the edge's faces.
    """

    accuracy: float
    completeness: float
    chamfer: float
    hausdorff: float
    precision: float
    recall: float
    f_score: float
    normal_consistency: float


def iou_of_labels(predicted: Labels, actual: Labels) -> float:
    """Intersection over union of {predicted} and {actual}, bool (n,) each, in [0, 1]; 1 if both are empty.

    Raises ValueError if they are not bool, or not of one shape (n,).

    >>> iou_of_labels(np.array([True, True, False, False]), np.array([True, False, True, False])) == 1 / 3
    True
    """
    first, second = np.asarray(predicted), np.asarray(actual)
    if first.ndim != 1 or first.shape != second.shape:
        raise ValueError(f"labels must have one shape (n,), got {first.shape} and {second.shape}")
    if first.dtype != bool or second.dtype != bool:
        raise ValueError(f"labels must be bool, got {first.dtype} and {second.dtype}; of logits take `logits > 0`")
    union = np.count_nonzero(first | second)
    return float(np.count_nonzero(first & second) / union) if union else 1.0


def iou(contains: Callable[[Points], Labels], test: LabelledPoints) -> float:
    """IoU of what `contains`, points (n, 3) -> bool (n,), says of the test points with their labels."""
    return iou_of_labels(contains(test.points), test.occupancy)


class Overlap(NamedTuple):
    """How two sets of labels of the same points overlap: their IoU, and the points behind it.

    points: how many.  inside: of them by the labels.  found: by what is measured.
    """

    iou: float
    points: int
    inside: int
    found: int

    @property
    def known(self) -> float | None:
        """The IoU, or None where both sets are empty: then it is 1 and says nothing."""
        return self.iou if self.inside or self.found else None


def overlap(contains: Callable[[Points], Labels], test: LabelledPoints) -> Overlap:
    """How what `contains`, points (n, 3) -> bool (n,), says of the test points overlaps with their labels."""
    predicted, actual = np.asarray(contains(test.points)), np.asarray(test.occupancy)
    score = iou_of_labels(predicted, actual)
    return Overlap(score, len(actual), int(np.count_nonzero(actual)), int(np.count_nonzero(predicted)))


def nothing_found(overlaps: Mapping[str, Overlap]) -> str | None:
    """Why what was measured is no shape at all, None if it is one.

    It is none if it has the same label at all test points, or if the test points have nothing inside.
    """
    points, inside, found = (sum(them) for them in zip(*(it[1:] for it in overlaps.values()), strict=True))
    if not inside:
        return f"nothing inside in {points:,} test points: there is no shape to be found in this box"
    if found in (0, points) and inside < points:
        side = "inside" if found else "outside"
        return (
            f"the field found nothing: it is {side} at all {points:,} test points, of which {inside:,} are inside; "
            "lower the learning rate, or fit for longer"
        )
    return None


def remarks(overlaps: Mapping[str, Overlap]) -> list[str]:
    """What IoUs do not show, a line each: that nothing was found, and where both sets are empty."""
    nothing = nothing_found(overlaps)
    if nothing:
        return [nothing]
    empty = [(kind, found) for kind, found in overlaps.items() if found.known is None]
    return [f"nothing inside in {found.points:,} {kind} test points: no IoU there" for kind, found in empty]


def surface_distances(
    reconstruction: trimesh.Trimesh,
    reference: trimesh.Trimesh,
    *,
    count: int = 100_000,
    threshold: float = 0.01,
    seed: int = 0,
) -> SurfaceMetrics:
    """Distances between two surfaces: `count` area-weighted points on each, exact distance to the other's triangles.

    threshold: of the F-score, a share of the longest side of the reference's bounding box.
    Distances to triangles (libigl) have no floor from the sampling's spacing, unlike those between point sets.
    Faces without area are no part of a surface. Nothing is infinitely far from something (F-score 0); two
    surfaces that both have no area are alike.
    Sources: F-score: Tatarchenko et al. 2019, "What do single-view 3D reconstruction networks learn?" (1% of the
    side). Normal consistency: Mescheder et al. 2019, "Occupancy Networks".
    Raises ValueError if count or threshold is not positive, or a vertex not finite.
    """
    if count < 1 or not threshold > 0:
        raise ValueError(f"count and threshold must be positive, got {count} and {threshold}")
    whole = map(Surface.of, (reconstruction, reference))
    one, other = (Surface(it.corners[it.crosses.any(axis=1)]) for it in whole)
    if not (len(one.corners) and len(other.corners)):
        alike = float(len(one.corners) == len(other.corners))
        far = 0.0 if alike else np.inf
        return SurfaceMetrics(far, far, far, far, alike, alike, alike, alike)
    low, high = other.corners.min(axis=(0, 1)), other.corners.max(axis=(0, 1))
    # in the reference's own measure, so that far or tiny meshes lose no digits
    one, other = (Surface((it.corners - low) / (high - low).max()) for it in (one, other))
    rng = np.random.default_rng(seed)
    there, there_cosines = _distances(one, other, count, rng)
    back, back_cosines = _distances(other, one, count, rng)
    precision, recall = float((there < threshold).mean()), float((back < threshold).mean())
    accuracy, completeness = float(there.mean()), float(back.mean())
    return SurfaceMetrics(
        accuracy=accuracy,
        completeness=completeness,
        chamfer=(accuracy + completeness) / 2,
        hausdorff=float(max(there.max(), back.max())),
        precision=precision,
        recall=recall,
        f_score=2 * precision * recall / (precision + recall) if precision + recall else 0.0,
        normal_consistency=float(there_cosines.mean() + back_cosines.mean()) / 2,
    )


def _distances(one: Surface, other: Surface, count: int, rng: Generator) -> tuple[Floats, Floats]:
    """Of points on one surface to the other: distances (count,), |cosines| of the normals."""
    import igl

    points, faces = one.sample(count, rng)
    order = order_in_space(points)
    squared, nearest = np.empty(count), np.empty(count, dtype=np.int64)
    squared[order], nearest[order], _ = igl.point_mesh_squared_distance(points[order], *loose(other.corners))
    normals = [surface.crosses[chosen] for surface, chosen in ((one, faces), (other, nearest))]
    first, second = (it / np.linalg.norm(it, axis=1, keepdims=True) for it in normals)
    return np.sqrt(squared), np.abs(np.einsum("ij,ij->i", first, second))
