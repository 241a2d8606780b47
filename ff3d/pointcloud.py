"""Oriented point clouds: read them, estimate their normals, and ask what lies inside.

A cloud becomes surfels: one small triangle for each point, in its tangent plane and as large as the area that the
point stands for. The winding number of Barill et al. 2018, "Fast winding numbers for soups and clouds", summed over
surfels is that of their point dipoles from afar, and near a point it has no pole: no surfel adds more than
1/2. libigl's tree of triangles is also built some ten times as fast as its octree of dipoles.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ff3d.formats import Floats, Ints, MeshError, merge_exactly, read_ply_points, reading
from ff3d.mesh import UnitCube, check_points, find_mesh, load_mesh

if TYPE_CHECKING:
    import trimesh

logger = logging.getLogger(__name__)

FEWEST = 10  # points of a cloud
NEIGHBOURS = 16
WIDEST = 256  # neighbours, in a cloud so noisy that fewer show no surface
# Surface variation (Pauly et al. 2002: the share of the smallest variance) of the median neighbourhood: of a plane 0,
# of a ball 1/3. Seen without noise: under 0.04; of random points in a cube, at any size: over 0.18.
FLAT, SHAPELESS = 0.04, 0.14
ROUGH, TORN = 0.12, 0.25  # surface variation and share of contradicting neighbours from which a normal is doubtful
MARGIN = 0.1  # a winding number this near to 1/2 settles nothing: just under a sheet it is 1/2
BATCH = 4096  # points whose neighbourhoods are worked on at once: their temporaries stay in the cache


@dataclass(frozen=True)
class PointCloud:
    """points (n, 3) float64, input coordinates; normals (n, 3) float64 of unit length, outward, or None.

    Normals are made unit. Raises ValueError for other shapes, and for numbers that are not finite or normals of zero.
    """

    points: Floats
    normals: Floats | None = None

    def __post_init__(self) -> None:
        points = check_points(self.points)
        object.__setattr__(self, "points", points)
        if self.normals is None:
            return
        normals = check_points(self.normals)
        if normals.shape != points.shape:
            raise ValueError(f"normals must have the shape of the points, {points.shape}, got {normals.shape}")
        if not normals.any(axis=1).all():
            raise ValueError(f"normals must not be zero, got {(~normals.any(axis=1)).sum()}; pass None instead")
        object.__setattr__(self, "normals", _unit(normals))

    @property
    def vertices(self) -> Floats:
        """The points: a cloud can stand where a mesh is asked for its extent."""
        return self.points


def _unit(vectors: Floats) -> Floats:
    """vectors (..., 3) made unit; zero stays zero."""
    scaled = vectors / np.maximum(np.abs(vectors).max(axis=-1, keepdims=True), np.finfo(np.float64).tiny)
    length = np.sqrt((scaled**2).sum(axis=-1, keepdims=True))
    unit: Floats = scaled / np.where(length > 0, length, 1.0)
    return unit


# ---------------------------------------------------------------------------------------------- load


def load_points(path: str | Path) -> PointCloud:
    """Load a point cloud: PLY, text (.xyz .txt .pts) of 3 or 6 columns, .npy (n, 3 or 6), .npz of points and normals.

    Text columns are split by blanks, commas or semicolons, # starts a comment, and a first line of one number is
    the count. Points come in the file's order; of exact duplicates the first stays, and a logged line says how many
    went. Normals with a zero or NaN among them are dropped altogether, with a warning.
    Raises MeshError if the file is missing, of an unknown ending, damaged or cut short; if it holds under 10
    distinct points, a coordinate that is not finite, or points all in one plane, on one line or in one place.
    """
    file = Path(path).expanduser()
    ending = file.suffix.lower()
    if not file.is_file():
        raise MeshError(f"{file}: {'is a folder' if file.is_dir() else 'no such file'}; give a point cloud's path")
    if ending not in POINT_READERS:
        raise MeshError(f"{file}: unknown ending {ending!r}; ff3d reads points from {', '.join(POINT_READERS)}")
    with reading(file):
        return _clean(*POINT_READERS[ending](file), file)


def load_shape(path: str | Path) -> trimesh.Trimesh | PointCloud:
    """The mesh or the point cloud in a file: a PLY without faces, and .xyz .txt .pts .npy .npz, are point clouds.

    Otherwise as `load_mesh` and `load_points`.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        file = find_mesh(path)
    ending = file.suffix.lower()
    cloud = ending in POINT_READERS
    if ending == ".ply":
        with file.open("rb") as stream:
            header = stream.read(2**16).partition(b"end_header")[0]
        elements = dict(re.findall(rb"^element\s+(\w+)\s+(\d+)", header, re.MULTILINE))
        cloud = not (int(elements.get(b"face", 0)) or b"tristrips" in elements)
    return load_points(file) if cloud else load_mesh(file)


def _clean(points: Floats, normals: Floats | None, file: Path) -> PointCloud:
    """The cloud without its duplicates; MeshError for the faults that `load_points` lists."""
    if not len(points):
        raise MeshError("it holds no points; export or download it again")
    broken = int((~np.isfinite(points)).any(axis=1).sum())
    if broken:
        raise MeshError(f"{broken} of its {len(points)} points are not finite (NaN or infinity); remove them")
    kept = np.sort(merge_exactly(points)[0])
    if len(kept) < len(points):
        logger.info("%s: %d of %d points are exact duplicates: dropped", file, len(points) - len(kept), len(points))
    points, normals = points[kept], None if normals is None else normals[kept]
    extent = float((points.max(axis=0) / 2 - points.min(axis=0) / 2).max())
    if extent == 0:
        raise MeshError("all its points lie in one place; export it again, or with more digits")
    if extent > 1e100:
        raise MeshError(f"it spans {2 * extent:.3g} units, whose volume float64 cannot hold; scale it down")
    if len(points) < FEWEST:
        raise MeshError(f"{len(points)} distinct points are too few, at least {FEWEST} are needed; scan more densely")
    spread = np.linalg.eigvalsh(np.cov(_local(points).T))
    if spread[0] <= 1e-14 * spread[2]:
        raise MeshError("all its points lie in one plane or on one line, which encloses nothing; give a whole scan")
    if normals is not None:
        useless = int((~(np.isfinite(normals).all(axis=1) & normals.any(axis=1))).sum())
        if useless:
            logger.warning("%s: %d normals are zero or not finite: all are dropped, to be estimated", file, useless)
            normals = None
    return PointCloud(points, normals)


def _split(table: NDArray[Any]) -> tuple[Floats, Floats | None]:
    """Rows of 3 or 6 numbers -> points and normals."""
    if table.ndim != 2 or table.shape[1] not in (3, 6):
        raise MeshError(f"expected rows of 3 numbers (x y z) or 6 (x y z nx ny nz), got shape {table.shape}; cut them")
    if not np.issubdtype(table.dtype, np.floating) and not np.issubdtype(table.dtype, np.integer):
        raise MeshError(f"expected numbers, got {table.dtype}; save it as float64")
    table = table.astype(np.float64)
    return table[:, :3], table[:, 3:] if table.shape[1] == 6 else None


def _read_text(path: Path) -> tuple[Floats, Floats | None]:
    text = path.read_bytes().decode("utf-8", errors="replace").replace(",", " ").replace(";", " ")
    rows = [words for line in text.splitlines() if (words := line.partition("#")[0].split())]
    promised = int(rows.pop(0)[0]) if rows and len(rows[0]) == 1 else len(rows)
    widths = [len(row) for row in rows]
    odd = next((i for i, width in enumerate(widths) if width != widths[0]), None)
    if odd is not None:
        raise MeshError(
            f"row {odd + 1} has {widths[odd]} columns, the first {widths[0]}: cut short or damaged; export it again"
        )
    if promised != len(rows):
        raise MeshError(f"it promises {promised} points and holds {len(rows)}: cut short; export or download it again")
    if not rows:
        raise MeshError("it holds no points; export or download it again")
    return _split(np.array(list(map(float, chain.from_iterable(rows)))).reshape(len(rows), -1))


def _read_npy(path: Path) -> tuple[Floats, Floats | None]:
    return _split(np.load(path, allow_pickle=False))


def _read_npz(path: Path) -> tuple[Floats, Floats | None]:
    with np.load(path, allow_pickle=False) as arrays:
        if "points" not in arrays:
            raise MeshError(f"expected an array named points, got {', '.join(arrays) or 'none'}; rename it")
        points, normals = arrays["points"], arrays.get("normals")
    for name, array in {"points": points, "normals": normals}.items():
        if array is not None and array.shape != (len(points), 3):
            raise MeshError(f"expected points and normals of one shape (n, 3), got {name} {array.shape}; reshape them")
    return _split(points)[0], None if normals is None else _split(normals)[0]


POINT_READERS: dict[str, Callable[[Path], tuple[Floats, Floats | None]]] = {
    ".ply": read_ply_points,
    ".xyz": _read_text,
    ".txt": _read_text,
    ".pts": _read_text,
    ".npy": _read_npy,
    ".npz": _read_npz,
}


# ---------------------------------------------------------------------------------------------- neighbourhoods


def _local(points: Floats) -> Floats:
    """points about the centre of their box, over its longest side: no square under- or overflows."""
    low, high = points.min(axis=0), points.max(axis=0)
    local: Floats = (points - (low + (high - low) / 2)) / (float((high - low).max()) or 1.0)
    return local


def _neighbours(points: Floats, count: int) -> tuple[Floats, Ints]:
    """Distances and indices (n, k) of each point's nearest others, nearest first; k = count or all others."""
    from scipy.spatial import cKDTree

    count = min(count, len(points) - 1)
    distances, indices = cKDTree(points).query(points, count + 1)
    # a point is mostly, but among equals not always, its own first neighbour
    own = indices == np.arange(len(points))[:, None]
    own[~own.any(axis=1), -1] = True
    return distances[~own].reshape(-1, count), indices[~own].reshape(-1, count).astype(np.int64)


def _planes(points: Floats, indices: Ints, owners: Ints) -> tuple[Floats, Floats, Floats]:
    """The plane through each owner's neighbours and itself: means (m, 3), normals (m, 3), surface variations (m,)."""
    means, normals, variations = np.empty((len(owners), 3)), np.empty((len(owners), 3)), np.empty(len(owners))
    step = max(1, BATCH * NEIGHBOURS // max(1, indices.shape[1]))
    for start in range(0, len(owners), step):
        batch = slice(start, start + step)
        center = points[owners[batch]]
        offsets = np.concatenate([np.zeros_like(center)[:, None], points[indices[batch]] - center[:, None]], axis=1)
        mean = offsets.mean(axis=1)
        offsets -= mean[:, None]
        values, vectors = np.linalg.eigh(np.swapaxes(offsets, 1, 2) @ offsets)
        means[batch], normals[batch] = center + mean, vectors[:, :, 0]
        variations[batch] = np.maximum(values[:, 0], 0) / np.maximum(values.sum(axis=1), np.finfo(np.float64).tiny)
    return means, normals, variations


def _scale_of_noise(points: Floats, neighbours: int) -> int:
    """How many neighbours show a surface best: `neighbours`, or twice as many and so on in a noisy cloud.

    Seen on up to 1000 points. Where even `WIDEST` show none it stays at `neighbours`.
    """
    from scipy.spatial import cKDTree

    owners = np.unique(np.linspace(0, len(points) - 1, 1000).astype(np.int64))
    widest = min(WIDEST, len(points) // 10)
    if widest <= neighbours:
        return neighbours
    indices = cKDTree(points).query(points[owners], widest + 1)[1][:, 1:]
    counts = [neighbours << i for i in range(10) if neighbours << i <= widest]
    seen = []
    for count in counts:
        seen.append(float(np.median(_planes(points, indices[:, :count], owners)[2])))
        if seen[-1] < FLAT:
            return count
    best = int(np.argmin(seen))
    return counts[best] if seen[best] < SHAPELESS else neighbours


def _smooth(points: Floats, count: int) -> tuple[Floats, Floats, Floats]:
    """points moved into the planes of their `count` neighbours, those planes' normals and surface variations."""
    means, normals, variations = _planes(points, _neighbours(points, count)[1], np.arange(len(points)))
    return points - normals * np.einsum("nd,nd->n", points - means, normals)[:, None], normals, variations


# ---------------------------------------------------------------------------------------------- areas


def _tangents(normals: Floats) -> tuple[Floats, Floats]:
    """Two unit vectors (n, 3) each that make a right-handed frame with the normals."""
    axes = np.eye(3)[np.abs(normals).argmin(axis=1)]
    first = _unit(np.cross(normals, axes))
    return first, np.cross(normals, first)


def point_areas(points: ArrayLike, normals: ArrayLike, *, neighbours: int = NEIGHBOURS) -> Floats:
    """The area (n,) that each point stands for, in input units^2: of its Voronoi cell in its tangent plane.

    points, normals (n, 3): one cloud; the sign of the normals matters only between sheets. The cell's radius is
    measured in 32 directions, and ends at the 8th neighbour where the sampling ends. Neighbours around an edge are
    turned into the plane at their distance; those of another sheet (beside the plane by over 60 degrees, or turned
    away by over 107) do not count.
    Source: Barill et al. 2018, section 4 (there by a Voronoi diagram of each neighbourhood).
    Raises ValueError for other shapes, numbers that are not finite, or under 2 points.
    """
    where, across = check_points(points), _unit(check_points(normals))
    if where.shape != across.shape or len(where) < 2:
        raise ValueError(f"points and normals must have one shape (n, 3), n > 1, got {where.shape} and {across.shape}")
    side = float(np.ptp(where, axis=0).max()) or 1.0
    return _areas(_local(where), across, *_neighbours(_local(where), neighbours)) * side**2


def _areas(points: Floats, normals: Floats, distances: Floats, indices: Ints) -> Floats:
    angles = (np.arange(32) + 0.5) * (2 * np.pi / 32)
    directions = np.stack([np.cos(angles), np.sin(angles)])
    cap = np.maximum(distances[:, min(8, distances.shape[1]) - 1], np.finfo(np.float64).tiny)
    frames = np.stack(_tangents(normals), axis=2)
    areas = np.empty(len(points))
    for start in range(0, len(points), BATCH):
        batch = slice(start, start + BATCH)
        offsets, near = points[indices[batch]] - points[batch, None], indices[batch]
        flat = offsets @ frames[batch]
        whole, length = (offsets**2).sum(axis=2), np.linalg.norm(flat, axis=2)
        elsewhere = (length < 0.5 * np.sqrt(whole)) | (np.einsum("nkd,nd->nk", normals[near], normals[batch]) < -0.3)
        # a bisector cuts direction u at |x|^2 / 2 u.x: the largest inverse is the nearest cut
        scale = np.where(elsewhere, 0.0, 2 / np.maximum(np.sqrt(whole) * length, np.finfo(np.float64).tiny))
        cuts = ((flat * scale[..., None]) @ directions).max(axis=1)
        areas[batch] = (np.pi / 32) * (np.maximum(cuts, 1 / cap[batch, None]) ** -2).sum(axis=1)
    return areas


# ---------------------------------------------------------------------------------------------- normals


def estimate_normals(points: ArrayLike, *, neighbours: int = NEIGHBOURS) -> tuple[Floats, float]:
    """Outward unit normals (n, 3) of points (n, 3), and the share of them that is doubtful, in [0, 1].

    Directions are those of the planes through the nearest neighbours (more of them in a noisy cloud), signs are
    handed on along a minimum spanning tree of each connected part of the neighbour graph, and each part is turned so
    that it encloses a positive volume. Doubtful: no surface seen there, or over a quarter of the neighbours disagree.
    Sources: Hoppe et al. 1992, "Surface reconstruction from unorganized points"; the sign is handed on by reflection,
    as in Koenig and Gumhold 2009, "Consistent propagation of normal orientations in point clouds", which holds around
    sharp edges and across thin walls.
    Raises ValueError for another shape, numbers that are not finite, or under 10 points.
    """
    where = _local(check_points(points))
    if len(where) < FEWEST:
        raise ValueError(f"normals need at least {FEWEST} points, got {len(where)}")
    where, normals, variations = _smooth(where, _scale_of_noise(where, neighbours))
    distances, indices = _neighbours(where, neighbours)
    signs, parts, torn = _orient(where, normals, indices)
    normals = normals * signs[:, None]
    areas = _areas(where, normals, distances, indices)
    normals *= _outward(where, normals, areas, parts)[:, None]
    return normals, float(((variations > ROUGH) | (torn > TORN)).mean())


def _agreement(points: Floats, normals: Floats, one: Ints, other: Ints) -> Floats:
    """Cosine of one's normal, reflected into the plane halfway to the other, and the other's: -1 if one is flipped."""
    along = _unit(points[other] - points[one])
    a, b = normals[one], normals[other]
    product = np.einsum("nd,nd->n", along, a) * np.einsum("nd,nd->n", along, b)
    agreement: Floats = np.einsum("nd,nd->n", a, b) - 2 * product
    return agreement


def _orient(points: Floats, normals: Floats, indices: Ints) -> tuple[Floats, Ints, Floats]:
    """Signs (n,) that make the normals consistent, the part (n,) of each point, the share (n,) of its neighbours
    that still disagree."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import breadth_first_order, connected_components, minimum_spanning_tree

    count = len(points)
    owners, others = np.repeat(np.arange(count), indices.shape[1]), indices.reshape(-1)
    agreement = _agreement(points, normals, owners, others)
    weights = 1 - np.abs(agreement) + 1e-6  # csgraph takes a weight of zero for no edge
    low, high = np.minimum(owners, others), np.maximum(owners, others)
    keys, first = np.unique(low * count + high, return_index=True)
    graph = coo_array((np.maximum(weights[first], 1e-6), (keys // count, keys % count)), shape=(count, count)).tocsr()
    parts = connected_components(graph, directed=False)[1].astype(np.int64)
    tree = minimum_spanning_tree(graph).tocoo()
    roots = np.unique(parts, return_index=True)[1]
    # one node more, tied to each part, so that one walk meets all
    start = np.concatenate([tree.row, np.full(len(roots), count)])
    end = np.concatenate([tree.col, roots])
    walk = coo_array((np.ones(len(start)), (start, end)), shape=(count + 1, count + 1)).tocsr()
    parents = breadth_first_order(walk, count, directed=False)[1][:count].astype(np.int64)
    own = np.arange(count)
    parents[roots] = roots
    signs = np.where(_agreement(points, normals, own, parents) < 0, -1.0, 1.0)
    signs[roots] = 1.0
    while (parents[parents] != parents).any():  # the product of all signs up to the root, twice as far each time
        signs *= signs[parents]
        parents = parents[parents]
    torn = (agreement * signs[owners] * signs[others] < 0).reshape(count, -1).mean(axis=1)
    return signs, parts, torn


def _outward(points: Floats, normals: Floats, areas: Floats, parts: Ints) -> Floats:
    """Signs (n,) with which each part encloses a positive volume about its own centre."""
    sizes = np.maximum(np.bincount(parts), 1)
    centers = np.stack([np.bincount(parts, axis) for axis in points.T], axis=1) / sizes[:, None]
    volumes = np.bincount(parts, areas * np.einsum("nd,nd->n", points - centers[parts], normals))
    return np.where(volumes < 0, -1.0, 1.0)[parts]


# ---------------------------------------------------------------------------------------------- oracle


class PointCloudOracle:
    """The winding number of a point cloud's surfels, above 1/2.

    cloud: with outward normals, or with none: then they are estimated, and a warning says how many are doubtful. A
    cloud whose normals point inward (negative volume) is read with its normals reversed, and a warning says so. The
    points of a cloud so noisy that 16 neighbours show no surface are moved into the planes of up to 256.
    cloud: as used: the input's points, moved where noisy, and outward normals.  areas (n,): input units^2.
    inside_out, estimated: as above.  doubtful: share of estimated normals, 0 where they were given.
    Raises ValueError for under 10 points, or all in one place.
    """

    def __init__(self, cloud: PointCloud):
        import igl

        if len(cloud.points) < FEWEST:
            raise ValueError(f"a cloud needs at least {FEWEST} points, got {len(cloud.points)}")
        self._cube = UnitCube.padded(cloud.points)
        points, normals = self._cube.to_unit(cloud.points), cloud.normals
        count = _scale_of_noise(points, NEIGHBOURS)
        if count > NEIGHBOURS:
            logger.info("the cloud is noisy: each point is moved into the plane of its %d neighbours", count)
            points = _smooth(points, count)[0]
        self.estimated, self.doubtful, self.inside_out = normals is None, 0.0, False
        if normals is None:
            normals, self.doubtful = estimate_normals(points)
            logger.warning(
                "the cloud has no normals: they are estimated from its points, %.1f%% of them doubtful",
                100 * self.doubtful,
            )
        areas = _areas(points, normals, *_neighbours(points, NEIGHBOURS))
        if not self.estimated:
            self.inside_out = bool(_outward(points, normals, areas, np.zeros(len(points), dtype=np.int64))[0] < 0)
            if self.inside_out:
                normals = -normals
                logger.warning("the cloud's normals point inward (negative volume): they are reversed")
        self.areas, self._areas = areas * self._cube.scale**2, areas
        self.cloud = PointCloud(self._cube.from_unit(points) if count > NEIGHBOURS else cloud.points, normals)
        self._points, self._normals, self._spacing = points, normals, np.sqrt(areas)
        corners = _surfels(points, normals, areas)
        self._tree: Any = igl.FastWindingNumberBVH()
        self._tree.init(corners.reshape(-1, 3), np.arange(3 * len(points)).reshape(-1, 3), 2)

    def winding_number(self, points: ArrayLike) -> Floats:
        """points (n, 3), input coordinates -> (n,): near 1 inside, near 0 outside, in between where points lack."""
        return self._number(self._cube.to_unit(check_points(points)))

    def __call__(self, points: ArrayLike) -> NDArray[np.bool_]:
        """points (n, 3), input coordinates -> (n,) bool, True inside."""
        return self.winding_number(points) > 0.5

    @property
    def surface(self) -> trimesh.Trimesh:
        """The surfels, a small triangle for each point, in input coordinates."""
        import trimesh

        corners = self._cube.from_unit(_surfels(self._points, self._normals, self._areas).reshape(-1, 3))
        return trimesh.Trimesh(corners, np.arange(len(corners)).reshape(-1, 3), process=False)

    @cached_property
    def unsettled(self) -> float:
        """As `unsettled_share`, with its usual settings."""
        return self.unsettled_share()

    def unsettled_share(self, *, spacings: float = 2.0, most: int = 20_000) -> float:
        """The share of the cloud's points, in [0, 1], whose two sides are not told apart.

        spacings: how far the sides are asked from the point along its normal, in square roots of its area.
        most: points asked, evenly spread over the cloud's order.
        A side counts only if its winding number is over 0.1 away from 1/2. Near 0 for a closed surface, near 1 for a
        single sheet or for points without a surface: above about a quarter the labels mean little.
        """
        chosen = np.unique(np.linspace(0, len(self._points) - 1, most).astype(np.int64))
        offsets = spacings * self._spacing[chosen, None] * self._normals[chosen]
        inner, outer = (self._number(self._points[chosen] + side * offsets) for side in (-1, 1))
        return float(((inner < 0.5 + MARGIN) | (outer > 0.5 - MARGIN)).mean())

    def _number(self, unit: Floats) -> Floats:
        if not len(unit):
            return np.zeros(0)
        # neighbours in space one after the other walk the same branches of the tree
        near = np.lexsort((64 * np.clip(unit, -1, 1.98).T).astype(np.int8))
        number = np.empty(len(unit))
        number[near] = self._tree.winding_number(np.ascontiguousarray(unit[near]), 2.0)
        return number


def _surfels(points: Floats, normals: Floats, areas: Floats) -> Floats:
    """Corners (n, 3, 3) of equilateral triangles about the points, in their tangent planes, of these areas."""
    first, second = _tangents(normals)
    radii = np.sqrt(areas * 4 / 27**0.5)
    angles = np.arange(3) * (2 * np.pi / 3)
    spokes = np.cos(angles)[:, None] * first[:, None] + np.sin(angles)[:, None] * second[:, None]
    return np.ascontiguousarray(points[:, None] + radii[:, None, None] * spokes)


def sample_cloud(cloud: PointCloud, areas: ArrayLike, count: int, rng: np.random.Generator) -> Floats:
    """`count` points (count, 3) on a cloud's surface, uniform by area, input coordinates.

    A point of the cloud is chosen by its area (n,), then one in the disc of that area in its tangent plane.
    Raises ValueError if the cloud has no normals, or areas are not (n,), finite, and at least one of them positive.
    """
    weights = np.asarray(areas, dtype=np.float64)
    if cloud.normals is None:
        raise ValueError("a cloud without normals has no tangent planes; take PointCloudOracle(cloud).cloud")
    if weights.shape != (len(cloud.points),) or not np.isfinite(weights).all() or not weights.max(initial=0) > 0:
        raise ValueError(f"areas must be one for each of {len(cloud.points)} points, finite, got {weights.shape}")
    cumulative = np.cumsum(weights / weights.max())
    chosen = np.searchsorted(cumulative, rng.random(count) * cumulative[-1], side="right")
    chosen = np.minimum(chosen, np.flatnonzero(weights)[-1])
    first, second = _tangents(cloud.normals[chosen])
    radii, turns = np.sqrt(weights[chosen] / np.pi * rng.random(count)), 2 * np.pi * rng.random(count)
    spokes = np.cos(turns)[:, None] * first + np.sin(turns)[:, None] * second
    return cloud.points[chosen] + radii[:, None] * spokes
