"""What lies at a path, as arrays to be shown: meshes, scans, fields, runs, studies, closed meshes, labelled points."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

import numpy as np

from ff3d.checks import one_line
from ff3d.files import file_sha256, home_path, read_rows
from ff3d.geometry.arrays import Bools, Floats, Ints
from ff3d.surfaces.grid_levels import ExtractionError
from ff3d.views.rendering import signed_error

if TYPE_CHECKING:
    import trimesh

    from ff3d.datasets.reading import StoredSet
    from ff3d.fields.field import LatticeField, OccupancyField
    from ff3d.labels.oracles import LabelledShape, Oracle
    from ff3d.shapes.point_cloud import PointCloud

log = logging.getLogger("ff3d")

MOST = 16  # shapes at once
MOST_POINTS = 200_000  # of a cloud on the screen, every so manieth of more
SAME_BOX = 0.25  # shapes whose boxes differ by less, of the longest side, are laid on one another as they are

Values = Callable[[Floats], Floats]
Arrays = tuple[Floats, Ints]  # vertices (v, 3), faces (f, 3)


@dataclass(frozen=True, eq=False)
class Item:
    """One thing to be seen, in input coordinates.

    vertices: (v, 3).  faces: (f, 3), none of points.  normals: (v, 3), of points, unit; labels: of points, True inside;
    None if they have none.
    make_values: makes the function points (n, 3) -> (n,), > 0 inside and rising with the depth, NaN where it is not
    known, that a plane is coloured by; may raise ValueError for what encloses nothing.  distances: they are distances.
    levels: how many a lattice has.  at_level: its surface with only so many of them.
    fitted: it is a field's, to be compared with what it was fitted to.
    """

    name: str
    vertices: Floats
    faces: Ints = field(default_factory=lambda: np.zeros((0, 3), dtype=np.int64))
    normals: Floats | None = None
    labels: Bools | None = None
    make_values: Callable[[], Values] | None = None
    distances: bool = True
    levels: int = 0
    at_level: Callable[[int], Arrays] | None = None
    fitted: bool = False

    @cached_property
    def values(self) -> Values | None:
        """See `make_values`, called once."""
        return self.make_values() if self.make_values else None

    @cached_property
    def box(self) -> Floats:
        """(2, 3), lowest and highest corner."""
        return np.stack([self.vertices.min(axis=0), self.vertices.max(axis=0)])

    @property
    def mesh(self) -> trimesh.Trimesh:
        """Vertices and faces as a mesh."""
        import trimesh

        return trimesh.Trimesh(self.vertices, self.faces, process=False)

    def error(self, truth: Item) -> Floats:
        """How far each vertex (v,) lies from the surface or the points of `truth`, input units; negative inside."""
        if not len(truth.faces):
            from scipy.spatial import cKDTree

            return np.asarray(cKDTree(truth.vertices).query(self.vertices)[0])
        contains = _outside
        if truth.values is not None:
            values = truth.values

            def contains(points: Floats) -> Bools:
                return values(points) > 0

        return signed_error(self.vertices, truth.mesh, contains)


def _outside(points: Floats) -> Bools:
    return np.zeros(len(points), dtype=bool)


def load_items(paths: Sequence[str | Path], *, resolution: int = 128, device: str = "auto") -> list[Item]:
    """Everything at these paths, in their order, `MOST` at most.

    A path: a mesh or point cloud file, or a name that `find_shape` knows; a field's .safetensors; a folder of ff3d fit,
    compare, benchmark, watertight or prepare; an .npz of labelled points, test points or voxels.
    resolution: cells along the longest side of a field's surface.
    What was there already, as of runs whose truth is the same, is left out; other shapes of one name are numbered.
    Raises ValueError for what cannot be shown.
    """
    items: list[Item] = []
    namesakes: dict[str, list[Item]] = {}
    for path in paths:
        try:
            for item in _items_at(path, resolution, device):
                known = namesakes.setdefault(item.name, [])
                if any(_same(item, other) for other in known):
                    continue
                if len(items) == MOST:
                    log.warning("%s: at most %d shapes are shown at once, the others are left out", path, MOST)
                    return items
                known.append(item)
                items.append(item if len(known) == 1 else replace(item, name=f"{item.name} ({len(known)})"))
        except ExtractionError as error:
            if len(paths) == 1:
                raise
            log.warning("%s: left out: %s", path, one_line(error))
    return items


def _same(item: Item, other: Item) -> bool:
    """Whether two items show the same: vertices, faces, labels."""
    pairs: Any = ((item.vertices, other.vertices), (item.faces, other.faces), (item.labels, other.labels))
    return all(one is two or np.array_equal(one, two) for one, two in pairs)


def _items_at(path: str | Path, resolution: int, device: str) -> Iterator[Item]:
    from ff3d.closing.files import ROWS as CLOSED
    from ff3d.datasets.prepare import ROWS as PREPARED
    from ff3d.datasets.reading import stored_sets
    from ff3d.studies.plan import PLAN

    place = home_path(path)
    if place.suffix == ".safetensors":
        from ff3d.fields.field import load_field

        yield field_item(place.stem, load_field(place, device=device), resolution)
    elif place.is_file() and place.suffix == ".npz":
        yield from _stored_points(place)
    elif not place.is_dir():
        yield shape_item(path)
    elif (place / "config.json").exists():
        yield from _run(place, resolution, device)
    elif (place / PLAN).exists():
        yield from _study(place)
    elif (place / CLOSED).exists():
        yield from _of_rows(place / CLOSED, lambda row: _items_at(place / row["file"], resolution, device))
    elif (place / PREPARED).exists():
        yield from _of_rows(place / PREPARED, lambda row: _of_sets(PurePath(row["file"]).name, stored_sets(place, row)))
    else:
        raise ValueError(
            f"{place}: nothing to show here; expected a folder of ff3d fit, compare, benchmark, watertight or prepare"
        )


def _of_rows(path: Path, items_of: Callable[[dict[str, Any]], Iterable[Item]]) -> Iterator[Item]:
    """What the rows of a .jsonl stand for, but for those that failed or cannot be read."""
    errors, shown = [], 0
    for row in read_rows(path).values():
        if "failure" in row:
            continue
        try:
            for item in items_of(row):
                yield item
                shown += 1
        except (ValueError, OSError) as error:
            errors.append(error)
            log.warning("%s: left out: %s", row["file"], one_line(error))
    if not shown:
        raise errors[0] if len(errors) == 1 else ValueError(f"{path}: none of its rows can be shown")


def _of_sets(name: str, sets: Iterable[StoredSet]) -> Iterator[Item]:
    """Sets of points: queries as labelled points, those on the surface as a scan."""
    from ff3d.shapes.point_cloud import PointCloud

    for each in sets:
        title = f"{name.removesuffix('.npz')} {each.name}".rstrip()
        if each.normals is not None:
            yield _of_shape(title, PointCloud(each.points, each.normals))
        else:
            yield _points_item(title, each.points, each.inside)


def shape_item(path: str | Path) -> Item:
    """A mesh or a point cloud, as its file has it."""
    from ff3d.shapes.point_cloud import load_shape

    return _of_shape(Path(path).stem, load_shape(path))


def shape_item_of(surface: LabelledShape) -> Item:
    """What a fit is fitted to."""
    from ff3d.shapes.point_cloud import PointCloud

    if isinstance(surface.shape, PointCloud):
        return _of_shape(surface.stem, surface.shape)
    return _of_shape(surface.stem, surface.mesh, surface.oracle)


def _of_shape(name: str, shape: trimesh.Trimesh | PointCloud, labels: Oracle | None = None) -> Item:
    vertices = np.asarray(shape.vertices, dtype=np.float64)
    faces: Any = getattr(shape, "faces", None)

    @cache
    def oracle() -> Oracle:
        from ff3d.labels.oracles import load_surface

        return labels or load_surface(shape).oracle

    if faces is None:
        step, normals = -(-len(vertices) // MOST_POINTS), getattr(shape, "normals", None)
        return Item(
            name,
            vertices[::step],
            normals=None if normals is None else normals[::step],
            make_values=lambda: lambda points: np.where(oracle()(points), 1.0, -1.0),
            distances=False,
        )

    def values() -> Values:
        inside, surface = oracle(), item.mesh
        return lambda points: -signed_error(points, surface, inside)

    item = Item(name, vertices, np.asarray(faces, dtype=np.int64), make_values=values)
    return item


def field_item(name: str, shape: OccupancyField | LatticeField, resolution: int, *, levels: bool = True) -> Item:
    """A field's surface, its logits, and of a lattice its levels, but where they are not wanted."""
    from ff3d.fields.field import OUTSIDE_LOGIT, LatticeField

    count, unit, at_level = 0, 1.0, None
    if isinstance(shape, LatticeField):
        lattice, count = shape, shape.lattice.frame.levels * levels
        unit = lattice.lattice.frame.cell * lattice.cube.scale  # its logits are distances in cells

        def at_level(level: int) -> Arrays:
            return _arrays(lattice.coarser(level).extract_mesh(resolution))

    def values(points: Floats) -> Floats:
        logits = shape.logits(points).astype(np.float64)
        return np.where(logits > OUTSIDE_LOGIT, logits * unit, np.nan)

    return Item(
        name,
        *_arrays(shape.extract_mesh(resolution)),
        make_values=lambda: values,
        distances=at_level is not None,
        levels=count,
        at_level=at_level,
        fitted=True,
    )


def _run(folder: Path, resolution: int, device: str) -> Iterator[Item]:
    from ff3d.runs import Run

    run = Run(folder)
    mesh = run.record()["mesh"]
    yield from _known_truth(Path(mesh["name"]).stem, mesh["sha256"])
    yield field_item(folder.name, run.load(device=device), resolution)


def _study(folder: Path) -> Iterator[Item]:
    """Of each mesh the truth, if it is a sample, and what the first seed of each variant gave."""
    from ff3d.storage import Storage
    from ff3d.studies.study import read_rows as rows_of

    seen: set[tuple[str, ...]] = set()
    for row in sorted(rows_of(Storage(folder)).values(), key=lambda row: row.mesh):
        file = folder / row.name / "mesh.ply"
        if (row.mesh,) not in seen:
            seen.add((row.mesh,))
            yield from _known_truth(row.mesh, row.sha256)
        if (row.mesh, row.arm) not in seen and file.exists():
            seen.add((row.mesh, row.arm))
            item = shape_item(file)
            yield Item(f"{row.mesh} {row.arm}", item.vertices, item.faces, make_values=item.make_values, fitted=True)


def _known_truth(name: str, sha256: str) -> Iterator[Item]:
    """The sample of this name, if it is the file that was fitted to."""
    from ff3d.formats.text import MeshError
    from ff3d.shapes.sources import find_mesh

    try:
        path = find_mesh(name)
    except MeshError:
        return
    if file_sha256(path) == sha256:
        yield shape_item(path)


def _stored_points(path: Path) -> Iterator[Item]:
    """What is in an .npz: labelled points of `prepare`, test sets, voxels, else a point cloud."""
    from ff3d.datasets.reading import load_arrays, read_sets

    try:
        arrays = load_arrays(path)
        if sets := read_sets(arrays):
            yield from _of_sets(path.name, sets)
            return
        if {"occupancy", "origin", "spacing"} <= arrays.keys():
            yield _points_item(path.stem, *_voxels(**{key: arrays[key] for key in ("occupancy", "origin", "spacing")}))
            return
    except Exception as error:
        raise ValueError(f"{path}: not an .npz that can be shown ({one_line(error)})") from error
    if any(name.endswith("_inside") for name in arrays):
        from ff3d.points.test_sets import load_test_sets

        for kind, (points, inside) in load_test_sets(path).items():
            yield _points_item(f"{path.stem} {kind}", points, inside)
        return
    yield shape_item(path)


def _points_item(name: str, points: Floats, inside: Bools | None) -> Item:
    step = -(-len(points) // MOST_POINTS)
    labels = None if inside is None else inside[::step]
    return Item(name, np.asarray(points, dtype=np.float64)[::step], labels=labels)


def _voxels(occupancy: Any, origin: Any, spacing: Any) -> tuple[Floats, Bools]:
    """The centres of the voxels inside that have a neighbour outside."""
    padded = np.pad(occupancy, 1)
    buried = occupancy.copy()
    for axis in range(3):
        for turn in (1, -1):
            buried &= np.roll(padded, turn, axis)[1:-1, 1:-1, 1:-1]
    centers = origin + float(spacing) * (np.argwhere(occupancy & ~buried) + 0.5)
    return centers, np.ones(len(centers), dtype=bool)


def _arrays(mesh: trimesh.Trimesh) -> Arrays:
    return np.asarray(mesh.vertices, dtype=np.float64), np.asarray(mesh.faces, dtype=np.int64)


def truth_of(items: Sequence[Item], item: Item) -> Item | None:
    """What an item's errors are measured to: the last one before it, else the first, that is not fitted; None if none.

    Only one whose box about agrees with the item's.
    """
    before = [it for it in items[: items.index(item)] if not it.fitted and it.labels is None]
    others = [it for it in items if not it.fitted and it.labels is None and it is not item]
    found = [it for it in [*before[::-1], *others] if alike(it, item)]
    return found[0] if found and (item.fitted or found[0] in before) else None


def alike(one: Item, other: Item) -> bool:
    """Whether the boxes of two items agree but for a share of the longest side."""
    side = max(float(np.ptp(it.box, axis=0).max()) for it in (one, other))
    return bool((np.abs(one.box - other.box) <= SAME_BOX * side).all())
