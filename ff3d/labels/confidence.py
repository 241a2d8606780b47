"""How sure labels are: where the winding number hesitates, and whether a second, independent oracle agrees."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from tqdm.auto import tqdm

from ff3d.geometry.arrays import Floats
from ff3d.geometry.coordinates import grown_box
from ff3d.geometry.sampling import SampleMix
from ff3d.labels.oracles import Oracle
from ff3d.labels.second_oracles import RayOracle
from ff3d.labels.surfels import PointCloudOracle
from ff3d.labels.winding_number import WindingNumberOracle

if TYPE_CHECKING:
    import trimesh


UNSURE = 0.25  # a winding number this near to 1/2 says little
GROWTH = 0.02  # of the box that is queried, units
WIDTH = 0.01  # of the points near the surface, units
PLACES = 5
SUMMED = 50_000_000  # pairs of a point and a surfel


@dataclass(frozen=True)
class Place:
    """Some of the points in question, that lie together."""

    center: tuple[float, float, float]  # input coordinates
    radius: float  # input units: half of them lie nearer
    points: int

    def __str__(self) -> str:
        return f"({', '.join(f'{x:.5g}' for x in self.center)}) within {self.radius:.3g}: {self.points} points"


@dataclass(frozen=True)
class Doubt:
    """Where the winding number of a mesh lies within `UNSURE` of 1/2.

    share: of the box about the mesh.  unsettled: the share of the surface that has outside on both its sides.
    """

    share: float
    unsettled: float
    places: tuple[Place, ...]


@dataclass(frozen=True)
class Disagreement:
    """Two oracles on the same points.  share: of the points that they label differently; places: the worst ones."""

    points: int
    second: str
    share: float
    places: tuple[Place, ...]


def doubt(
    mesh: trimesh.Trimesh, oracle: WindingNumberOracle | PointCloudOracle, *, count: int = 100_000, seed: int = 0
) -> Doubt:
    """Query `count` points, uniform in the box about the mesh, or about the surfels of a cloud."""
    rng = np.random.default_rng(seed)
    unit = oracle.cube.scale
    points = SampleMix(1.0, ()).draw(mesh, grown_box(mesh, GROWTH * unit), unit, count, rng)
    unsure = np.abs(oracle.winding_number(points) - 0.5) < UNSURE
    return Doubt(float(unsure.mean()), oracle.unsettled, _places(points[unsure], 0.1 * unit))


def second_opinion(
    mesh: trimesh.Trimesh,
    oracle: WindingNumberOracle | PointCloudOracle,
    *,
    count: int = 100_000,
    seed: int = 0,
    progress: bool = False,
) -> Disagreement:
    """Label `count` points, half uniform and half near the surface, by `oracle` and by another.

    Rays that vote, if the mesh is closed: they share with it how faces were repaired, and nothing else. The exact sum
    over all faces of the file as they are, if it is not; of a point cloud, over its surfels, of as many points as that
    takes `SUMMED` of.
    The worst places are those of the points that lie farthest from the surface.
    """
    import igl

    cloud = isinstance(oracle, PointCloudOracle)
    count = min(count, max(1000, SUMMED // len(mesh.faces))) if cloud else count
    rng = np.random.default_rng(seed)
    unit = oracle.cube.scale
    points = SampleMix(0.5, (WIDTH,)).draw(mesh, grown_box(mesh, GROWTH * unit), unit, count, rng)
    second: Oracle
    name = "rays"
    try:
        if cloud:
            second, name = exact_sum(mesh, oracle), "the exact sum over the surfels"
        else:
            second = RayOracle(mesh)
    except ValueError:
        second, name = exact_sum(mesh, oracle), "the exact sum over the faces as they are"
    first = oracle(points)
    chunks = np.split(points, list(range(5000, count, 5000)))
    other = np.concatenate([second(chunk) for chunk in tqdm(chunks, desc="check", delay=2, disable=not progress)])
    differ = points[first != other]
    if not len(differ):
        return Disagreement(count, name, 0.0, ())
    squared, _, _ = igl.point_mesh_squared_distance(
        oracle.cube.to_unit(differ), oracle.cube.to_unit(mesh.vertices), np.asarray(mesh.faces, dtype=np.int64)
    )
    worst = differ[np.argsort(-squared, kind="stable")]
    return Disagreement(count, name, len(differ) / count, _places(worst, 0.1 * unit))


def exact_sum(mesh: trimesh.Trimesh, oracle: WindingNumberOracle | PointCloudOracle) -> Oracle:
    """The winding number above 1/2, summed in float64 over every face as it is (reversed if the oracle did so)."""
    import igl

    vertices = np.ascontiguousarray(oracle.cube.to_unit(mesh.vertices))
    faces = np.array(mesh.faces, dtype=np.int64)
    turned = isinstance(oracle, WindingNumberOracle) and oracle.inside_out  # surfels are outward already
    faces = np.ascontiguousarray(faces[:, ::-1]) if turned else faces
    return lambda points: igl.winding_number(vertices, faces, np.ascontiguousarray(oracle.cube.to_unit(points))) > 0.5


def _places(points: Floats, reach: float) -> tuple[Place, ...]:
    """Clusters of the points (n, 3), in their order: each takes all that lie within `reach` of its first."""
    places: list[Place] = []
    while len(points) and len(places) < PLACES:
        near = np.linalg.norm(points - points[0], axis=1) <= reach
        center = points[near].mean(axis=0)
        radius = float(np.median(np.linalg.norm(points[near] - center, axis=1)))
        places.append(Place(tuple(center.tolist()), radius, int(near.sum())))
        points = points[~near]
    return tuple(sorted(places, key=lambda place: -place.points))
