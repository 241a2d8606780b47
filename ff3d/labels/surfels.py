"""Oriented point clouds: read them, estimate their normals, and query what lies inside.

A cloud becomes surfels: one small triangle for each point, in its tangent plane and as large as the area that the
point stands for. The winding number of Barill et al. 2018, "Fast winding numbers for soups and clouds", summed over
surfels is that of their point dipoles from afar, and near a point it has no pole: no surfel adds more than
1/2. libigl's tree of triangles is also built some ten times as fast as its octree of dipoles.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from ff3d.geometry.arrays import Floats, Ints, Labels, PointFloats
from ff3d.geometry.coordinates import UnitCube, centered, check_points, order_in_space
from ff3d.geometry.sampling import rows_by_weight
from ff3d.geometry.triangles import unit_vectors
from ff3d.shapes.point_cloud import FEWEST, PointCloud, logger

if TYPE_CHECKING:
    import trimesh

NEIGHBOURS = 16
WIDEST = 256  # neighbours, in a cloud so noisy that fewer show no surface
# Surface variation (Pauly et al. 2002: the share of the smallest variance) of the median neighbourhood: of a plane 0,
# of a ball 1/3. Seen without noise: under 0.04; of random points in a cube, at any size: over 0.18.
FLAT, SHAPELESS = 0.04, 0.14

ROUGH, TORN = 0.12, 0.25  # surface variation and share of contradicting neighbours from which a normal is doubtful

MARGIN = 0.1  # a winding number this near to 1/2 settles nothing: just under a sheet it is 1/2
BATCH = 4096  # points whose neighbourhoods are worked on at once: their temporaries stay in the cache


def _neighbours(points: Floats, count: int) -> tuple[Floats, Ints]:
    """Distances and indices (n, k) of each point's nearest others, nearest first; k = count or all others."""
    from scipy.spatial import cKDTree

    count = min(count, len(points) - 1)
    distances, indices = cKDTree(points).query(points, count + 1)
    # a point is mostly, but among equals not always, its own first neighbour
    itself = indices == np.arange(len(points))[:, None]
    itself[~itself.any(axis=1), -1] = True
    return distances[~itself].reshape(-1, count), indices[~itself].reshape(-1, count).astype(np.int64)


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


def _tangents(normals: Floats) -> tuple[Floats, Floats]:
    """Two unit vectors (n, 3) each that make a right-handed frame with the normals."""
    axes = np.eye(3)[np.abs(normals).argmin(axis=1)]
    first = unit_vectors(np.cross(normals, axes))
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
    where, across = check_points(points), unit_vectors(check_points(normals))
    if where.shape != across.shape or len(where) < 2:
        raise ValueError(f"points and normals must have one shape (n, 3), n > 1, got {where.shape} and {across.shape}")
    side = float(np.ptp(where, axis=0).max()) or 1.0
    return _areas(centered(where), across, *_neighbours(centered(where), neighbours)) * side**2


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
    where = centered(check_points(points))
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
    along = unit_vectors(points[other] - points[one])
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
    every = np.arange(count)
    parents[roots] = roots
    signs = np.where(_agreement(points, normals, every, parents) < 0, -1.0, 1.0)
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


class PointCloudOracle:
    """The winding number of a point cloud's surfels, above 1/2.

    cloud: with outward normals, or with none: then they are estimated, and a warning says how many are doubtful. A
    cloud whose normals point inward (negative volume) is read with its normals reversed, and a warning says so. The
    points of a cloud so noisy that 16 neighbours show no surface are moved into the planes of up to 256.
    cloud: as used: the input's points, moved where noisy, and outward normals.  areas (n,): input units^2.
    cube: about the points.  inside_out, estimated: as above.  doubtful: share of estimated normals, 0 where they were
    given.  notes: all of this in words, a line each.
    Raises ValueError for under 10 points, or all in one place.
    """

    def __init__(self, cloud: PointCloud):
        import igl

        if len(cloud.points) < FEWEST:
            raise ValueError(f"a cloud needs at least {FEWEST} points, got {len(cloud.points)}")
        self.cube = UnitCube.padded(cloud.points)
        points, normals = self.cube.to_unit(cloud.points), cloud.normals
        count = _scale_of_noise(points, NEIGHBOURS)
        notes = []
        if count > NEIGHBOURS:
            notes.append(f"the cloud is noisy: each point is moved into the plane of its {count} neighbours")
            logger.info("%s", notes[-1])
            points = _smooth(points, count)[0]
        self.estimated, self.doubtful, self.inside_out = normals is None, 0.0, False
        if normals is None:
            normals, self.doubtful = estimate_normals(points)
            doubtful = f"{100 * self.doubtful:.1f}% of them doubtful"
            notes.append(f"the cloud has no normals: they are estimated from its points, {doubtful}")
            logger.warning("%s", notes[-1])
        areas = _areas(points, normals, *_neighbours(points, NEIGHBOURS))
        if not self.estimated:
            self.inside_out = bool(_outward(points, normals, areas, np.zeros(len(points), dtype=np.int64))[0] < 0)
            if self.inside_out:
                normals = -normals
                notes.append("the cloud's normals point inward (negative volume): they are reversed")
                logger.warning("%s", notes[-1])
        self.notes = tuple(notes)
        self.areas, self._areas = areas * self.cube.scale**2, areas
        self.cloud = PointCloud(self.cube.from_unit(points) if count > NEIGHBOURS else cloud.points, normals)
        self._points, self._normals, self._spacing = points, normals, np.sqrt(areas)
        corners = _surfels(points, normals, areas)
        self._tree: Any = igl.FastWindingNumberBVH()
        self._tree.init(corners.reshape(-1, 3), np.arange(3 * len(points)).reshape(-1, 3), 2)

    def winding_number(self, points: ArrayLike) -> PointFloats:
        """points (n, 3), input coordinates -> (n,): near 1 inside, near 0 outside, in between where points lack."""
        return self._number(self.cube.to_unit(check_points(points)))

    def __call__(self, points: ArrayLike) -> Labels:
        """points (n, 3), input coordinates -> (n,) bool, True inside."""
        return self.winding_number(points) > 0.5

    @property
    def surface(self) -> trimesh.Trimesh:
        """The surfels, a small triangle for each point, in input coordinates."""
        import trimesh

        corners = self.cube.from_unit(_surfels(self._points, self._normals, self._areas).reshape(-1, 3))
        return trimesh.Trimesh(corners, np.arange(len(corners)).reshape(-1, 3), process=False)

    @cached_property
    def unsettled(self) -> float:
        """As `unsettled_share`, with its usual settings."""
        return self.unsettled_share()

    def unsettled_share(self, *, spacings: float = 2.0, most: int = 20_000) -> float:
        """The share of the cloud's points, in [0, 1], whose two sides are not distinguished.

        spacings: how far from the point the sides are queried along its normal, in square roots of its area.
        most: points queried, evenly spread over the cloud's order.
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
        near = order_in_space(unit)
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
    chosen = rows_by_weight(np.cumsum(weights / weights.max()), rng.random(count))
    first, second = _tangents(cloud.normals[chosen])
    radii, turns = np.sqrt(weights[chosen] / np.pi * rng.random(count)), 2 * np.pi * rng.random(count)
    spokes = np.cos(turns)[:, None] * first + np.sin(turns)[:, None] * second
    return cloud.points[chosen] + radii[:, None] * spokes
