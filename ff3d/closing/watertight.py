"""watertight: a mesh, broken or not, or an oriented point cloud, to a closed mesh, without a network."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ff3d.closing.config import RESOLUTION, ClosingConfig, length_of
from ff3d.closing.distance_field import (
    TOLERANCE,
    DistanceField,
    Slabs,
    any_of,
    either,
    guide_of,
    guide_to,
    highest,
    joined,
    outward,
)
from ff3d.closing.flood import FloodOracle
from ff3d.geometry.arrays import Floats, Inside
from ff3d.geometry.cores import available_memory
from ff3d.geometry.distances import NearestFaces
from ff3d.geometry.hidden_walls import LOSABLE, separating_surface
from ff3d.geometry.sampling import Surface
from ff3d.surfaces import cleaning
from ff3d.surfaces.extraction import check_memory, extract_mesh
from ff3d.surfaces.grid_levels import ExtractionError, Guide, Logits
from ff3d.surfaces.sharp import sharpen

if TYPE_CHECKING:
    import trimesh

    from ff3d.labels.oracles import Oracle, Shape

log = logging.getLogger("ff3d")

MARGIN = 2.38  # cells between surface and box: with it, flat sides of round sizes lie in no plane of the grid
BULGE = 0.05  # sizes by which the membrane over a hole may stand out of the box
REFINE = 6  # steps of root finding for each vertex, at most
CLOUD_TOLERANCE = 0.005  # of a point cloud's winding number: how near to 1/2 they end
SAMPLES = 50_000  # points on a surface whose distance to another one is measured, and as many of its vertices
THINNEST = 2  # cells through a slab
ROUNDS, ROUGHEST, FINEST = 8, 16, 8192  # of raising the resolution until an error is met; the range of that


@dataclass(frozen=True)
class _Field:
    """What is extracted: the logits, a guide to where they are 0, and the surface that the mesh is to follow.

    oracle: of what is inside; None of slabs, which have no sharp edges.
    """

    logits: Logits
    guide: Guide
    surface: trimesh.Trimesh
    oracle: Inside | None = None


@dataclass(frozen=True)
class Closed:
    """A closed mesh and how it came about.

    mesh: closed, edge-manifold, outward, input coordinates.  surface: what of the shape the mesh is to follow: without
    walls hidden in the solid.  resolution: cells along the longest side of the shape's box.  cell: their side, input
    units.  notes: what was repaired, a line each.
    """

    mesh: trimesh.Trimesh
    surface: trimesh.Trimesh
    resolution: int
    cell: float
    notes: tuple[str, ...]


def watertight(
    shape: Shape,
    *,
    oracle: Oracle | None = None,
    max_memory: int | None = None,
    progress: bool = False,
    **options: Any,
) -> trimesh.Trimesh:
    """The surface of what a shape encloses, as a closed mesh in the shape's coordinates.

    shape: a mesh, with whatever faults; an oriented point cloud; or the file or name of one.
    options: those of `ClosingConfig`: `resolution=256`, `error="0.1%"`, `offset=0.01`, `simplify=20_000`, ...
    oracle: labels of one's own, points (n, 3) to bool (n,).  max_memory: bytes.  progress: show a tqdm bar.

    Marching cubes (`extract_mesh`) of the signed distance: its length is exact, to the triangles that part inside from
    outside, its sign the generalized winding number's, which closes holes. So a solid stays a solid, nothing is grown,
    and parts, thin walls and gaps stay apart as far as a cell resolves them. Of a point cloud, of the winding number.

    Every edge has two faces, each face has area, the faces look outward; nothing is random.
    Raises OpenSurfaceError for a shape that encloses nothing, ExtractionError if it is thinner than a cell, ValueError
    for options that are out of range, and what `load_shape` and `extract_mesh` raise.
    """
    config = ClosingConfig(**options)
    return close(shape, config, oracle=oracle, max_memory=max_memory, progress=progress).mesh


def close(
    shape: Shape,
    config: ClosingConfig,
    *,
    oracle: Oracle | None = None,
    max_memory: int | None = None,
    progress: bool = False,
) -> Closed:
    """As `watertight`, with what is needed to measure the result."""
    _check_early(shape, config, max_memory)
    closing = _Closing(shape, config, oracle, max_memory, progress)
    if config.error is None:
        return closing.cleaned(closing.extracted(closing.resolution))
    error = length_of(config.error, closing.size)
    if closing.offset or closing.sheets is not None:  # the result is not meant to follow the surface
        return closing.cleaned(closing.extracted(math.ceil(closing.size / error)))
    resolution = max(ROUGHEST, math.ceil(closing.size / (2 * error)))
    for _ in range(ROUNDS):
        closed = closing.extracted(min(resolution, FINEST))
        away = largest_distance(closed.surface, closed.mesh)
        if away <= error:
            return closing.cleaned(closed)
        log.info("resolution %d: the surface lies up to %.3g away, %.3g allowed", closed.resolution, away, error)
        if resolution >= FINEST:
            break
        resolution = math.ceil(resolution * min(2.0, max(1.3, 1.1 * away / error)))
    raise ValueError(
        f"an error of {error:.3g} is not met at resolution {closed.resolution}: parts of the surface lie "
        f"{away:.3g} from the result, perhaps thinner than a cell; allow a larger error, or give a resolution"
    )


def _check_early(shape: Any, config: ClosingConfig, max_memory: int | None) -> None:
    """Raise MemoryError before the shape is labelled if its resolution is far from fitting; `extract_mesh` is exact."""
    if config.error is not None or len(getattr(shape, "faces", ())) == 0:
        return
    low, high = np.asarray(shape.bounds, dtype=np.float64)
    if np.isfinite(high - low).all() and (high > low).any():
        longest = float((high - low).max())
        box = np.stack([low, np.maximum(high, low + longest / 100)])
        check_memory(box, config.resolution or RESOLUTION, 2 * (max_memory or available_memory()))


def largest_distance(surface: trimesh.Trimesh, other: trimesh.Trimesh, *, seed: int = 0) -> float:
    """The largest distance seen from a surface to another one, input units, by exact distances to its triangles.

    Of `SAMPLES` points spread evenly by area, and of as many vertices at most.
    """
    rng = np.random.default_rng(seed)
    points = Surface.of(surface).sample(SAMPLES, rng, "even")[0]
    vertices = np.asarray(surface.vertices)
    chosen = rng.choice(len(vertices), min(SAMPLES, len(vertices)), replace=False)
    return float(NearestFaces(other)(np.concatenate([points, vertices[chosen]]))[0].max())


class _Closing:
    """A shape that is being closed: what of it is solid, what is a sheet, at one resolution after the other."""

    def __init__(
        self, shape: Shape, config: ClosingConfig, oracle: Oracle | None, max_memory: int | None, progress: bool
    ):
        from ff3d.labels.oracles import in_memory, is_cloud

        shape = in_memory(shape)
        self.config, self.max_memory, self.progress = config, max_memory, progress
        self.notes: tuple[str, ...] = ()
        self.oracle: Any = None  # of what is solid
        self.solid: trimesh.Trimesh | None = None
        self.sheets: trimesh.Trimesh | None = None
        if config.sheets == "refuse":
            self._load(shape, oracle)
        else:
            self._split(shape, oracle)
        meshes: list[Any] = [self.solid, self.sheets]
        boxes = np.concatenate([_box(mesh) for mesh in meshes if mesh is not None])
        self.size = float(np.ptp(boxes, axis=0).max())
        self.is_cloud = is_cloud(shape, self.oracle)  # has points alone, and no distances between them
        self.offset = length_of(config.offset, self.size)
        if config.sharp and config.sheets == "thicken" and self.solid is None:
            raise ValueError("all of the shape is sheets, and slabs have no sharp edges: leave sharp out")
        self.thickness = 0.0 if config.thickness is None else length_of(config.thickness, self.size)
        if self.is_cloud and (self.offset or config.sharp):
            raise ValueError("a point cloud has no faces to be sharp or moved by; leave sharp and offset out")

    def _load(self, shape: Shape, oracle: Oracle | None) -> None:
        """All of the shape is solid, or refused."""
        from ff3d.labels.oracles import load_surface, surface_and_oracle
        from ff3d.shapes.solids import Solid

        if oracle is None:
            surface = load_surface(shape)
            if isinstance(surface.shape, Solid):
                raise ValueError("a solid is a function: ff3d.extract_mesh(solid.values, solid.bounds) closes it")
            self.solid, self.oracle, self.notes = surface.mesh, surface.oracle, surface.notes
        else:
            self.solid, self.oracle = surface_and_oracle(shape, oracle)

    def _split(self, shape: Shape, oracle: Oracle | None) -> None:
        """Solid parts and sheets, each by itself."""
        from ff3d.closing.sheets import split_sheets
        from ff3d.labels.oracles import LabelledShape, load_surface

        mesh: Any = shape.shape if isinstance(shape, LabelledShape) else shape
        if oracle is not None or not hasattr(mesh, "faces"):
            raise ValueError(f"sheets {self.config.sheets!r} is for meshes, labelled by ff3d; leave it out here")
        solid, self.sheets = split_sheets(mesh)
        if solid is not None:
            surface = load_surface(solid)
            self.solid, self.oracle, self.notes = surface.mesh, surface.oracle, surface.notes
        if self.sheets is not None:
            done = {"thicken": "made slabs", "fill": "closed by a flood fill from outside"}[self.config.sheets]
            self.notes = (*self.notes, f"{len(self.sheets.faces)} face(s) of sheets: {done}")
            log.info("%s", self.notes[-1])

    @property
    def resolution(self) -> int:
        """That of the options; the usual one is raised where a slab would have less than two cells."""
        if self.config.resolution is not None or self.sheets is None or not self.thickness:
            return self.config.resolution or RESOLUTION
        return max(RESOLUTION, math.ceil(THINNEST * self.size / self.thickness))

    def extracted(self, resolution: int) -> Closed:
        """The closed mesh at a resolution, as it comes from marching cubes."""
        cell = self.size / resolution
        fields = [] if self.solid is None and self.config.sheets == "thicken" else [self._solid(cell)]
        if self.sheets is not None and self.config.sheets == "thicken":
            fields.append(self._slabs(cell))
        boxes = np.concatenate([_box(field.surface) for field in fields])
        low, high = boxes.min(axis=0), boxes.max(axis=0)
        # a membrane over a hole may stand out of the box
        bulge = 0.0 if getattr(self.oracle, "closed", self.oracle is None) else BULGE * self.size
        margin = MARGIN * cell + max(0.0, self.offset + self.thickness / 2) + bulge
        counts = np.ceil((high - low + 2 * margin) / cell).astype(int)
        bounds = np.stack([low - margin, low - margin + counts * cell])
        mesh = self._extract(fields, bounds, int(counts.max()))
        solid, *slabs = fields
        if self.config.sharp and solid.oracle is not None:
            surface = outward(solid.surface, solid.oracle, cell)
            mesh = sharpen(mesh, NearestFaces(surface).with_normals, lower=bounds[0], cell=cell)
        followed = joined(solid.surface, slabs[0].surface) if slabs else solid.surface
        return Closed(mesh, followed, resolution, cell, self.notes)

    def _extract(self, fields: list[_Field], bounds: Floats, resolution: int) -> trimesh.Trimesh:
        """Marching cubes of what one of the fields has inside."""
        from ff3d.labels.oracles import OpenSurfaceError

        try:
            return extract_mesh(
                highest([field.logits for field in fields]),
                bounds,
                resolution=resolution,
                guide=either([field.guide for field in fields]),
                refine=REFINE,
                tolerance=CLOUD_TOLERANCE if self.is_cloud else TOLERANCE,
                max_memory=self.max_memory,
                progress=self.progress,
            )
        except ExtractionError as error:
            if self.config.sheets != "fill" or self.solid is not None:
                raise
            raise OpenSurfaceError(
                "sheets that cut nothing off at this resolution: their gaps are wider than a cell; lower the "
                'resolution, or take sheets "thicken" with a thickness'
            ) from error

    def cleaned(self, closed: Closed) -> Closed:
        """Without the cavities, floaters and faces that the options name."""
        mesh, config = closed.mesh, self.config
        if config.cavities == "fill":
            mesh = cleaning.fill_cavities(mesh)
        if config.drop_floaters is not None:
            mesh = cleaning.drop_floaters(mesh, config.drop_floaters)
        if config.simplify is not None or config.simplify_error is not None:
            error = None if config.simplify_error is None else length_of(config.simplify_error, self.size)
            mesh = cleaning.simplify(mesh, faces=config.simplify, error=error)
        return replace(closed, mesh=mesh)

    def _solid(self, cell: float) -> _Field:
        """What the solid parts enclose, and, to be filled, what the sheets cut off."""
        from ff3d.labels.winding_number import WindingNumberOracle

        mesh, oracle = self.solid, self.oracle
        guides = []
        if self.is_cloud:
            assert mesh is not None
            inside = getattr(oracle, "winding_number", oracle)  # of an oracle of one's own there are labels alone
            return _Field(lambda points: inside(points) - 0.5, guide_to(NearestFaces(mesh), 0.0), mesh)
        if isinstance(oracle, WindingNumberOracle):
            guides.append(guide_of(oracle, self.offset))
        if self.sheets is not None:
            mesh = joined(mesh, self.sheets)
            flood = FloodOracle(mesh, cell)
            oracle = flood if oracle is None else any_of([oracle, flood])
            guides.append(guide_to(NearestFaces(mesh), abs(self.offset) + 2 * flood.cell))  # sqrt(3) cells, and some
        assert mesh is not None
        # what is hidden, however small, would be hollowed out inward of it
        surface = separating_surface(mesh, oracle, cell, losable=0.0 if self.offset < 0 else LOSABLE)
        guides = guides or [guide_to(NearestFaces(surface), abs(self.offset))]
        return _Field(DistanceField(surface, oracle, cell=cell, offset=self.offset), either(guides), surface, oracle)

    def _slabs(self, cell: float) -> _Field:
        """The sheets, thickened."""
        assert self.sheets is not None
        thickness = self.thickness + 2 * self.offset
        if thickness < THINNEST * cell:
            raise ValueError(
                f"slabs of {thickness:.3g} are thinner than {THINNEST} cells of {cell:.3g}; take a resolution of at "
                f"least {math.ceil(THINNEST * self.size / thickness)}"
                if thickness > 0
                else f"an offset of {self.offset:.3g} leaves nothing of slabs of {self.thickness:.3g}"
            )
        slabs = Slabs(self.sheets, thickness=thickness, cell=cell)
        return _Field(slabs, guide_to(NearestFaces(self.sheets), thickness / 2), self.sheets)


def _box(mesh: trimesh.Trimesh) -> Floats:
    """The box (2, 3) about the faces of a mesh. Raises ValueError if there are none, or vertices are not finite."""
    used = np.asarray(mesh.vertices, dtype=np.float64)[np.unique(mesh.faces)]
    if not len(used) or not np.isfinite(used).all():
        raise ValueError("a shape to close must have faces, with finite vertices")
    return np.stack([used.min(axis=0), used.max(axis=0)])
