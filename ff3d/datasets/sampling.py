"""The sets of points of one shape, each with its target or its normals."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.random import Generator

from ff3d.closing.config import ClosingConfig
from ff3d.closing.distance_field import outward
from ff3d.closing.watertight import close
from ff3d.datasets.config import LAYOUTS, QUERIES, SetName, SetsConfig
from ff3d.files import file_sha256
from ff3d.geometry.arrays import Floats, Points
from ff3d.geometry.coordinates import UnitCube, grown_box
from ff3d.geometry.distances import NearestFaces, TruncatedDistance
from ff3d.geometry.hidden_walls import separating_surface
from ff3d.geometry.sampling import SampleMix, Surface, sample_segments, sample_uniform
from ff3d.geometry.triangles import creases, unit_vectors
from ff3d.labels.counted_surface import with_area
from ff3d.labels.oracles import load_surface
from ff3d.labels.surfels import PointCloudOracle
from ff3d.labels.winding_number import WindingNumberOracle
from ff3d.shapes.point_cloud import load_shape

if TYPE_CHECKING:
    import trimesh

log = logging.getLogger("ff3d")

STREAM = 1906_2  # beside the seed: training points and test points of the same seed are other points
DETAIL = 256  # details of the surface, along the longest side: where walls in the solid meet it
SETS: tuple[SetName, ...] = ("mixed", "volume", "near", "sharp", "surface", "salient")  # number their random streams


@dataclass(frozen=True)
class Samples:
    """The sets of a shape, in the coordinates that are written: input coordinates are those * scale + loc.

    points: of each set, (n, 3), as they are stored.  values: of a set of queries (n,), bool (inside) or distances,
    float32, positive inside; of the others (n, 3), outward unit normals.
    inside: the share of the first set of queries that is inside; None where that is not known.
    closed: the mesh that was drawn from in place of the shape, input coordinates, if that was closed first.
    notes: what was repaired or left out, a line each.
    """

    points: dict[SetName, Any]
    values: dict[SetName, Any]
    loc: Points
    scale: float
    inside: float | None
    closed: trimesh.Trimesh | None
    notes: tuple[str, ...]


def draw_samples(path: Path, config: SetsConfig, max_memory: int | None = None) -> Samples:
    """The sets of the shape in a file. The same file and settings give the same points.

    Targets are those of the points as they are stored, rounded.  max_memory: bytes to close the shape in.
    Raises what `load_surface` and `watertight` do; of these OpenSurfaceError not for the target unsigned.
    """
    shape = _Shape(path, config, max_memory)
    points: dict[SetName, Any] = {}
    values: dict[SetName, Any] = {}
    kind = np.float16 if LAYOUTS[config.layout].half_precision else np.float32
    for name, count in config.counts:
        # a stream for each mesh, but for `mixed`, so that not all have the same points in their volume
        seed = config.seed if name == "mixed" else [config.seed, STREAM, SETS.index(name), shape.number]
        rng = np.random.default_rng(seed)
        drawn, normals = shape.draw(name, count, rng)
        points[name] = (shape.cube.to_unit(drawn) - 0.5).astype(kind)
        stored = shape.cube.from_unit(points[name].astype(np.float64) + 0.5)
        values[name] = shape.target(stored, near=name != "volume") if normals is None else normals.astype(kind)
    queries = [values[name] for name in config.names if name in QUERIES and config.target != "unsigned"]
    return Samples(
        points,
        values,
        np.array(shape.cube.center),
        shape.cube.scale,
        float((queries[0] > 0).mean()) if queries else None,
        shape.closed,
        (*shape.notes, *shape.remarks),
    )


class _Shape:
    """A shape that points are drawn from.

    mesh: what counts as its surface.  cube: the written coordinates, plus 1/2.  number: of its file, for its streams.
    """

    def __init__(self, path: Path, config: SetsConfig, max_memory: int | None):
        self.config = config
        self.closed: trimesh.Trimesh | None = None
        self.remarks: tuple[str, ...] = ()
        self.number = int(file_sha256(path)[:16], 16)
        self.layout = LAYOUTS[config.layout]
        given: Any = path
        if config.resolution is not None:
            given = load_shape(path)
            # plain marching cubes have no sharp edges, and those of a point cloud are nowhere
            sharp = hasattr(given, "faces") and bool({"sharp", "salient"} & set(config.names))
            options = ClosingConfig(resolution=config.resolution, sharp=sharp)
            closed = close(given, options, max_memory=max_memory)
            given = self.closed = closed.mesh
        signless = config.target == "unsigned"
        surface = load_surface(given, inspecting=signless)
        shape: Any = surface.shape
        self.mesh, self.oracle, self.notes = surface.mesh, surface.oracle, surface.notes
        if self.closed is not None:
            self.notes = closed.notes
        elif signless and hasattr(shape, "faces"):  # every face counts, whether it encloses something or not
            self.mesh, self.notes = with_area(shape), ()
        if isinstance(self.oracle, PointCloudOracle) and config.target != "occupancy":
            other = "--target occupancy or " if "occupancy" in self.layout.targets else ""
            raise ValueError(f"a point cloud has no faces to measure distances to; take {other}--watertight first")
        low, high = np.asarray(self.mesh.bounds, dtype=np.float64)
        self.size = float((high - low).max())
        self.cube = UnitCube(tuple((low + (high - low) / 2).tolist()), self.size / (2 * self.layout.half))

    @cached_property
    def separating(self) -> trimesh.Trimesh:
        """What of the surface points are drawn on and distances measured to: its faces look outward."""
        if self.closed is not None or self.config.target == "unsigned" or isinstance(self.oracle, PointCloudOracle):
            return self.mesh
        detail = self.size / DETAIL
        return outward(separating_surface(self.mesh, self.oracle, detail), self.oracle, detail)

    @cached_property
    def surface(self) -> Surface:
        """The same, to draw points on."""
        return Surface.of(self.separating)

    @cached_property
    def salient(self) -> tuple[Floats, Floats]:
        """The ends (e, 2, 3) and normals (e, 3) of its salient edges."""
        edges = creases(self.surface.corners, self.config.angle)
        if not len(edges[0]):
            self.remarks = (f"no edge of {self.config.angle:g} degrees: the whole surface stands for salient edges",)
            log.info("%s", self.remarks[0])
        return edges

    def draw(self, name: SetName, count: int, rng: Generator) -> tuple[Points, Points | None]:
        """Points (count, 3) of a set, input coordinates, in random order; with normals if they are on the surface."""
        if name == "mixed":
            box = grown_box(self.mesh, self.config.margin * self.cube.scale)
            mix = SampleMix(self.config.uniform, self.config.near)
            return mix.draw(self.surface, box, self.cube.scale, count, rng), None
        if name == "volume":
            return sample_uniform(self._box, count, rng), None
        on_edges = name in ("sharp", "salient") and len(self.salient[0]) > 0
        if on_edges:
            points, chosen = sample_segments(self.salient[0], count, rng)
            normals = self.salient[1][chosen]
        else:
            points, chosen = self.surface.sample(count, rng, "even")
            normals = unit_vectors(self.surface.crosses[chosen])
        order = rng.permutation(count)
        if name in ("surface", "salient"):
            return points[order], normals[order]
        widths = self.cube.scale * np.array(self.config.near if name == "near" else self.config.sharp)
        noise = rng.standard_normal((count, 3)) * widths[np.arange(count) % len(widths), None]
        return (points + noise)[order], None

    @property
    def _box(self) -> Floats:
        """The box (2, 3) of `volume`."""
        if self.layout.reach is None:
            return grown_box(self.mesh, self.config.margin * self.cube.scale)
        reach = self.layout.reach * self.cube.scale
        return np.array([[-reach], [reach]]) + self.cube.center

    def target(self, points: Points, *, near: bool) -> Any:
        """The target of points (n, 3), input coordinates: bool (n,), or distances (n,) float32.

        near: whether many lie near the surface.
        """
        if self.config.target == "occupancy":
            return self._inside(points, near)
        distance = np.asarray(self._distance(points), dtype=np.float32)
        if self.config.target == "signed":
            np.negative(distance, out=distance, where=~self._inside(points, near))
        return distance

    def _inside(self, points: Points, near: bool) -> Any:
        if isinstance(self.oracle, WindingNumberOracle) and not near:
            return (
                self.oracle.winding_number(points) > 0.5
            )  # the same labels, and no grid, which far points do not need
        return self.oracle(points)

    @cached_property
    def _distance(self) -> Callable[[Points], Any]:
        """The distance of points (n, 3), input coordinates, in the coordinates that are written."""
        mesh, unit = self.separating, self.cube.scale
        if self.config.truncation is not None:
            return TruncatedDistance(mesh.vertices, mesh.faces, self.config.truncation, unit=unit)
        nearest = NearestFaces(mesh)
        return lambda points: nearest(points)[0] / unit
