"""Which way faces look, chosen at once for all that hang together: the space between them is inside or outside.

Where three or more faces meet in an edge, no patch of them can be judged alone. The space about such an edge falls into
sectors, one between each face and the next around it; sectors join into cells of space, and a cell is inside or outside
as a whole: the cells of Zhou et al. 2016, "Mesh arrangements for solid geometry", sections 4 and 5. What has inside on
one side alone is surface and looks outward; the rest is left out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ff3d.geometry.arrays import Bools, Floats, Ints
from ff3d.geometry.sampling import spread
from ff3d.geometry.triangles import HalfEdges, components, cross_products, signed_volumes, unit_vectors

SHARP = 0.9  # cosine of the angle between normals from which an edge of two faces may part patches of a holed surface
NARROW = 4e-12  # units: the height of a triangle over an edge from which its angle about the edge is rounding alone
ALIKE = 1e-6  # radians: faces nearer than that about an edge have no certain order
# The price of parting spaces that meet, by the length that they meet along and the size of the surface, against one for
# the area of a patch: 0.1 takes an area as large as that length times the size. Where a face may be missing less.
PRICE, DOUBTFUL_PRICE = 0.1, 0.01
# The share of the surface that is wound outward less that wound inward: under which winding says nothing of voids, and
# from which on it says all
MUDDLED, PLAIN = 0.5, 0.85
ODD = 0.1  # of the length where patches meet: where the number of faces may be odd if they are those of closed bodies
CLOSED = 0.15  # of its area: the gap, as a vector, that the walls about a void may leave
CANCELLED = 0.01  # what a face counts of which the file has as many wound the other way
RAYS, PLACES, MOST_PLACES = 8, 16, 16384  # rays a place and side; places a patch; places of all patches


def signed_balance(edges: HalfEdges, sign: Ints) -> Ints:
    """What is left at each edge (e,) of the directions of faces of these signs (f,); 0 where they close."""
    return edges.sums(edges.direction * sign.astype(np.int8)[edges.face])


def closed_bodies(edges: HalfEdges, sign: Ints, body: Ints) -> Bools:
    """Whether each body's own faces, of these signs, balance at every edge; body (f,) -> (largest body + 1,) bool."""
    bodies = int(body.max(initial=-1)) + 1
    unsure = ((edges.count != 2) | (signed_balance(edges, sign) != 0))[edges.edge]
    face = edges.face[unsure]
    pairs, place = np.unique(edges.edge[unsure].astype(np.int64) * max(bodies, 1) + body[face], return_inverse=True)
    lack = np.bincount(place, edges.direction[unsure] * sign[face], minlength=len(pairs))
    closed = np.ones(bodies, dtype=bool)
    closed[pairs[lack != 0] % max(bodies, 1)] = False
    return closed


@dataclass(frozen=True)
class Orientation:
    """What `orient` chose for each face.

    sign: 1 as it is, -1 turned, 0 left out.  body: what is turned as one (f,).  one_sided: on a one-sided surface (f,).
    """

    sign: Ints
    body: Ints
    one_sided: Bools


def orient(edges: HalfEdges, faces: Ints, vertices: Floats, *, area: Floats, votes: Ints, copies: Ints) -> Orientation:
    """Wind faces that hang together alike, as most of their area is in the file, and leave out walls between bodies.

    faces (f, 3), vertices (v, 3), unit coordinates.  area (f,).  copies (f,): how many faces of the file each stands
    for; votes (f,): how many of these are wound like it less how many are not.

    Patches, of faces joined through edges of two, are wound alike. Those that balance at every edge where more than two
    faces meet are bodies of their own. What else hangs together is chosen from the cells of space between.
    """
    patch, turn, one_sided = wind_alike(edges, area * votes)
    crowded = edges.count > 2
    if not crowded.any():
        return Orientation(turn, patch, one_sided)
    cluster = components(*edges.neighbours, len(faces))
    at = crowded[edges.edge]
    patches = int(patch.max()) + 1
    pairs, place = np.unique(edges.edge[at].astype(np.int64) * patches + patch[edges.face[at]], return_inverse=True)
    factor = np.bincount(place, (edges.direction * turn[edges.face])[at], minlength=len(pairs))
    unbalanced = np.zeros(patches, dtype=bool)
    unbalanced[pairs[factor != 0] % patches] = True
    mixed = np.zeros(int(cluster.max()) + 1, dtype=bool)
    mixed[cluster[unbalanced[patch]]] = True
    chosen = np.flatnonzero(mixed[cluster])
    if not len(chosen):
        return Orientation(turn, patch, one_sided)
    space = _Space.about(
        edges, faces, vertices, copies=copies, cluster=cluster[chosen], chosen=chosen, patch=patch, turn=turn
    )
    turn[chosen] = space.signs(area[chosen], votes[chosen], copies[chosen])
    body = patch.copy()
    body[chosen] = patches + cluster[chosen]
    return Orientation(turn, np.unique(body, return_inverse=True)[1], one_sided & ~mixed[cluster])


def wind_alike(edges: HalfEdges, weight: Floats) -> tuple[Ints, Ints, Bools]:
    """The patch of each face (f,), 1 or -1 to wind it as most of its patch by weight is, and whether it is one-sided.

    A one-sided patch, which no winding suits, stays as it is.
    """
    at = np.flatnonzero((edges.count[edges.edge[:-1]] == 2) & (edges.edge[:-1] == edges.edge[1:]))
    left, right = edges.face[at], edges.face[at + 1]
    alike = edges.direction[at] != edges.direction[at + 1]
    count = len(weight)
    if alike.all():
        patch = components(left, right, count)
        return patch, np.where(np.bincount(patch, weight) < 0, -1, 1)[patch], np.zeros(count, dtype=bool)
    # every face stands twice, as it is and turned; links join what goes together
    other = np.where(alike, right, right + count)
    links = np.concatenate([left, left + count]), np.concatenate([other, (other + count) % (2 * count)])
    label = components(*links, 2 * count).reshape(2, -1)
    _, patch = np.unique(label.min(axis=0), return_inverse=True)
    turn = np.where(label[0] <= label[1], 1, -1)
    turn *= np.where(np.bincount(patch, weight * turn) < 0, -1, 1)[patch]
    return patch, turn, label[0] == label[1]


@dataclass(frozen=True)
class _Space:
    """The sides of faces, 2 k the front of face k and 2 k + 1 its back, and where the space before them joins.

    corners (f, 3, 3).  volume (f,), under each face.  cluster (f,): what hangs together, from 0 on.
    left, right (l,): sides that meet in a sector about an edge; length: of that edge.
    loose: whether the link may be cut where the surface has holes; sure: whether no face is missing there.
    size, holed: of a cluster, and whether it has holes.  even: whether an even number of the file's faces meets at its
    edges.
    """

    corners: Floats
    volume: Floats
    cluster: Ints
    left: Ints
    right: Ints
    length: Floats
    loose: Bools
    sure: Bools
    size: Floats
    holed: Bools
    even: Bools

    @classmethod
    def about(
        cls,
        edges: HalfEdges,
        faces: Ints,
        vertices: Floats,
        *,
        copies: Ints,
        cluster: Ints,
        chosen: Ints,
        patch: Ints,
        turn: Ints,
    ) -> _Space:
        """The space about the faces `chosen`, in clusters; patch, turn (f,): patches, and what winds them alike."""
        place = np.full(len(faces), -1)
        place[chosen] = np.arange(len(chosen))
        cluster = np.unique(cluster, return_inverse=True)[1]
        at = np.flatnonzero(place[edges.face] >= 0)
        edge, direction, face = edges.edge[at], edges.direction[at], edges.face[at].astype(np.int64)
        count = np.bincount(edge, minlength=len(edges.ends))
        order, angle, certain = _around(edges, faces, vertices, at=at, way=direction * turn[face], patch=patch[face])
        edge, direction, face, certain = edge[order], direction[order], place[face[order]], certain[order]
        begin = np.ones(len(edge), dtype=bool)
        begin[1:] = np.diff(edge) != 0
        start = np.flatnonzero(begin)[np.cumsum(begin) - 1]
        after = np.arange(len(edge)) + 1
        last = np.ones(len(edge), dtype=bool)
        last[:-1] = begin[1:]
        after[last] = start[last]
        # the front of a face wound along its edge looks on, the way that angles grow; its back looks back
        on, back = 2 * face + (direction < 0), 2 * face + (direction > 0)
        step = np.where(last, angle[after] + 2 * np.pi - angle, angle[after] - angle)
        doubtful = (count[edge] > 2) & ~(certain & certain[after] & (step > ALIKE))
        # where a face may be missing: an edge that ends where the surface ends
        rim = np.zeros(len(vertices), dtype=bool)
        rim[edges.ends[count == 1]] = True
        full = np.zeros(len(vertices), dtype=bool)
        full[edges.ends[count > 2]] = True
        ends = edges.ends[edge]
        doubtful |= rim[ends].any(axis=1) & ((count[edge] > 2) | (full | rim)[ends].all(axis=1))
        corners = vertices[faces[chosen]]
        normal = unit_vectors(cross_products(corners))
        flat = np.einsum("ij,ij->i", normal[face], normal[face[after]]) * -direction * direction[after] > SHARP
        holed = np.zeros(int(cluster.max()) + 1, dtype=bool)
        holed[cluster[face[doubtful | (count[edge] == 1)]]] = True
        odd = np.bincount(edge, copies[chosen[face]], minlength=len(count))[edge] % 2 == 1
        long = np.linalg.norm(vertices[ends[:, 1]] - vertices[ends[:, 0]], axis=1)
        length = np.where((count[edge] > 2) & ~rim[ends].any(axis=1), long, 0.0)
        even = np.bincount(cluster[face], length * odd) < ODD * np.bincount(cluster[face], length)
        low = np.full((len(holed), 3), np.inf)
        high = -low
        np.minimum.at(low, cluster, corners.min(axis=1))
        np.maximum.at(high, cluster, corners.max(axis=1))
        joined = count[edge] > 1
        return cls(
            corners=corners,
            volume=signed_volumes(vertices, faces[chosen], 0.5),
            cluster=cluster,
            left=on[joined],
            right=back[after][joined],
            length=long[joined],
            loose=((count[edge] > 2) | doubtful | ~flat)[joined],
            sure=~doubtful[joined],
            size=(high - low).max(axis=1),
            holed=holed,
            even=even,
        )

    def signs(self, area: Floats, votes: Ints, copies: Ints) -> Ints:
        """1 for faces (f,) that stay as they are, -1 for those to turn, 0 for those with one space on both sides."""
        group = components(self.left, self.right, 2 * len(area))
        # where the surface runs through itself, cells may join that are apart: then a face has one on both sides
        torn = self.holed.copy()
        torn[self.cluster[group[0::2] == group[1::2]]] = True
        soft = self.loose & torn[self.cluster[self.left // 2]]
        group = components(self.left[~soft], self.right[~soft], 2 * len(area))
        inside = self._bounded(group)
        weight = np.where(votes == 0, CANCELLED, 1.0) * area
        faces = np.argsort(self.cluster, kind="stable")
        links = np.flatnonzero(soft)
        owner = self.cluster[self.left[links] // 2]
        links = links[np.argsort(owner, kind="stable")]
        face_end = np.cumsum(np.bincount(self.cluster))
        link_end = np.cumsum(np.bincount(owner, minlength=len(face_end)))
        for number in np.flatnonzero(torn):
            before = face_end[number - 1] if number else 0, link_end[number - 1] if number else 0
            self._cut(faces[before[0] : face_end[number]], links[before[1] : link_end[number]], group, weight, inside)
        inside[self._voids(inside, area, votes, copies)] = False
        sign = inside[1::2].astype(np.int64) - inside[0::2].astype(np.int64)
        agreement = np.bincount(self.cluster, area * votes * sign)
        return sign * np.where(agreement < 0, -1, 1)[self.cluster]

    def _bounded(self, group: Ints) -> Bools:
        """Whether the space before each side (2 f,) is bounded: all is but one cell of each cluster.

        The volume of a bounded cell, seen from its own boundary, is above zero, and that of the space around it all is
        less than nothing by the volume of all.
        """
        under = np.repeat(self.volume, 2)
        under[0::2] *= -1
        volume = np.bincount(group, under)
        owner = np.repeat(self.cluster, 2)
        order = np.lexsort((volume[group], owner))
        first = np.ones(len(order), dtype=bool)
        first[1:] = np.diff(owner[order]) != 0
        around = np.zeros(len(volume), dtype=bool)
        around[group[order[first]]] = True
        return ~around[group]

    def _cut(self, chosen: Ints, links: Ints, group: Ints, area: Floats, inside: Bools) -> None:
        """Decide the sides of a torn cluster, `chosen` faces, by a cut that parts the sides that see the outside.

        links: its loose ones.
        """
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import breadth_first_order, maximum_flow

        sides = np.stack([2 * chosen, 2 * chosen + 1], axis=1)
        names, node = np.unique(group[sides], return_inverse=True)
        node = node.reshape(-1, 2)
        patch = np.unique(node[:, 0] * len(names) + node[:, 1], return_inverse=True)[1]
        seen = _views(self.corners[chosen], patch, area[chosen])
        pull = np.bincount(node.ravel(), np.stack([seen, -seen], axis=1).ravel(), minlength=len(names))
        left, right = (np.searchsorted(names, group[sides[links]]) for sides in (self.left, self.right))
        price = self.length[links] * self.size[self.cluster[chosen[0]]]
        price *= np.where(self.sure[links], PRICE, DOUBTFUL_PRICE)
        source, sink = len(names), len(names) + 1
        every = np.arange(len(names))
        rows = np.concatenate([left, right, np.full(len(names), source), every])
        columns = np.concatenate([right, left, every, np.full(len(names), sink)])
        weight = np.concatenate([price, price, np.maximum(pull, 0), np.maximum(-pull, 0)])
        scale = 2**29 / (float(weight.sum()) or 1.0)
        graph = coo_array(((weight * scale).astype(np.int32), (rows, columns)), shape=(sink + 1, sink + 1)).tocsr()
        graph.sum_duplicates()
        graph.setdiag(0)
        graph.eliminate_zeros()
        left_over = graph - maximum_flow(graph, source, sink).flow
        left_over.data[left_over.data < 0] = 0
        left_over.eliminate_zeros()
        outside = np.zeros(sink + 1, dtype=bool)
        outside[breadth_first_order(left_over, source, return_predecessors=False)] = True
        inside[sides] = ~outside[node]

    def _voids(self, inside: Bools, area: Floats, votes: Ints, copies: Ints) -> Ints:
        """The sides of bounded cells that are voids all the same: shut in by single walls that are wound that way.

        A cell next to the outside is solid, and so is one with a wall of two faces, one for the body on each side.
        A single wall about a void is wound as it must be as often as the surface next to the outside is; one in a
        solid looks either way.
        """
        front, back = inside[0::2], inside[1::2]
        owner = np.repeat(self.cluster, 2)
        # first the outside of each cluster, one cell
        cell = len(self.holed) + self._cells(inside)
        cell = np.unique(np.where(inside, cell, owner), return_inverse=True)[1]
        cells = int(cell.max()) + 1
        shut = front & back & (cell[0::2] != cell[1::2])
        if not shut.any():
            return np.zeros(0, dtype=np.int64)

        def total(values: Floats, at: Bools) -> Floats:
            """Of each cluster, over its faces `at`."""
            return np.asarray(np.bincount(self.cluster[at], values[at], len(self.holed)), dtype=np.float64)

        def walls(values: Floats, at: Bools, other: float = 1.0) -> Floats:
            """Of each cell, over the faces `at` that it lies before, and `other` times those that it lies behind."""
            ahead, behind = (np.bincount(cell[side::2][at], values[at], minlength=cells) for side in (0, 1))
            return ahead + other * behind

        bare = (front != back) & (votes != 0)
        outward = total(np.where(back, area, -area) * np.sign(votes), bare)
        shown = np.maximum(total(area, bare), np.finfo(np.float64).tiny)
        usual, known = total(area * copies, bare) / shown, np.abs(outward) / shown
        into = area * np.sign(votes) * np.where(outward < 0, -1, 1)[self.cluster]
        # three alike are a single wall copied twice
        double = shut & (copies >= 1.5 * usual[self.cluster]) & ((copies % 2 == 0) | (votes < copies))
        owner = owner[np.unique(cell, return_index=True)[1]]
        size = walls(area, shut)
        solid = np.zeros(cells, dtype=bool)
        solid[np.where(front, cell[0::2], cell[1::2])[bare]] = True
        solid[: len(self.holed)] = False
        lean = walls(into, shut, -1.0) / np.maximum(size, np.finfo(np.float64).tiny)
        void = lean > PLAIN * np.where(known > MUDDLED, known, 2)[owner]
        # closed bodies leave an even number of faces at every edge: what lies between them is counted out, unless
        # all is wound as a body within another would be
        between = self._even_cells(cell, owner, area, copies)
        apart = self.even[owner] & (np.bincount(owner, between & solid) < 0.5 * np.bincount(owner, solid))[owner]
        void = np.where(apart, between & ~((known[owner] > PLAIN) & (lean < -PLAIN)), void)
        ways = cross_products(self.corners).T / 2
        gap = np.linalg.norm([walls(way, shut, -1.0) for way in ways], axis=0)
        void &= ~solid & (gap < CLOSED * size) & (walls(area, double) <= 0.2 * size)
        return np.flatnonzero(void[cell] & inside)

    def _cells(self, inside: Bools) -> Ints:
        """The cell that each bounded side (2 f,) looks into.

        By links where no face is missing. What those leave alone goes to the cell that it meets on most of its way.
        """
        links = np.flatnonzero(inside[self.left] & inside[self.right])
        left, right, length, sure = self.left[links], self.right[links], self.length[links], self.sure[links]
        cell = components(left[sure], right[sure], len(inside))
        while True:
            one, other = cell[left], cell[right]
            way = np.bincount(one, length, len(inside)) + np.bincount(other, length, len(inside))
            apart = np.flatnonzero(one != other)
            low, high = np.minimum(one, other)[apart], np.maximum(one, other)[apart]
            pairs, place = np.unique(low * len(inside) + high, return_inverse=True)
            met = np.bincount(place, length[apart], len(pairs))
            low, high = np.divmod(pairs, len(inside))
            most = met > 0.5 * np.minimum(way[low], way[high])
            if not most.any():
                return cell
            cell = components(low[most], high[most], len(inside))[cell]

    def _even_cells(self, cell: Ints, owner: Ints, area: Floats, copies: Ints) -> Bools:
        """Whether an even number of the file's faces lies between each cell and the space around its cluster.

        Counted through the largest walls: where faces are missing, ways may differ.
        """
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import minimum_spanning_tree

        front, back, cells = cell[0::2], cell[1::2], len(owner)
        pairs, place = np.unique(np.minimum(front, back) * cells + np.maximum(front, back), return_inverse=True)
        size = np.bincount(place, area)
        odd = np.bincount(place, np.where(copies % 2 == 1, area, -area)) > 0
        one, other = pairs // cells, pairs % cells
        apart = np.flatnonzero((one != other) & (size > 0))
        graph = coo_array((1 / size[apart], (one[apart], other[apart])), shape=(cells, cells))
        one, other = (ends.astype(np.int64) for ends in minimum_spanning_tree(graph.tocsr()).nonzero())
        odd = odd[np.searchsorted(pairs, one * cells + other)]
        # every cell stands twice, counted evenly and oddly
        links = np.concatenate([one, one + cells]), np.concatenate([other + odd * cells, other + ~odd * cells])
        label = components(*links, 2 * cells)
        even: Bools = label[:cells] == label[owner]  # the cell around a cluster has its number
        return even


def _around(
    edges: HalfEdges, faces: Ints, vertices: Floats, *, at: Ints, way: Ints, patch: Ints
) -> tuple[Ints, Floats, Bools]:
    """The order (h,) of half-edges `at`, by edge and there by angle, right-handed along it; the angles in that order.

    way (h,): 1 where the front of the face, as its patch is wound, looks the way that angles grow, else -1; patch (h,).
    Faces at one angle are ordered as if each were a little further in, and by their patches, alike along their border.
    Third, whether the angle of each half-edge is certain. Edges of fewer than three faces need none: 0.
    """
    edge, angle, certain = edges.edge[at], np.zeros(len(at)), np.ones(len(at), dtype=bool)
    many = np.flatnonzero(edges.count[edge] > 2)
    ends = edges.ends[edge[many]]
    apex = vertices[faces[edges.face[at[many]]].sum(axis=1) - ends.sum(axis=1)]
    start = vertices[ends[:, 0]]
    along = unit_vectors(vertices[ends[:, 1]] - start)
    across = apex - start
    for _ in range(2):  # the second time for the rounding of the first
        across -= np.einsum("ij,ij->i", across, along)[:, None] * along
    one = unit_vectors(np.cross(along, np.eye(3)[np.abs(along).argmin(axis=1)]))
    other = np.cross(along, one)
    turn = np.arctan2(np.einsum("ij,ij->i", across, other), np.einsum("ij,ij->i", across, one))
    certain[many] = np.linalg.norm(across, axis=1) > NARROW
    # from just before the first face on, so that what lies at its angle is not torn apart
    first = np.searchsorted(edge[many], edge[many])
    angle[many] = np.mod(turn - turn[first] + 1e-3, 2 * np.pi)
    order = np.lexsort((angle, edge))
    new = (np.diff(edge[order]) != 0) | (np.diff(angle[order]) > ALIKE)
    run = np.concatenate([[0], np.cumsum(new)])
    order = order[np.lexsort(((patch * way)[order], -way[order], run))]
    return order, angle[order], certain


def _views(corners: Floats, patch: Ints, area: Floats) -> Floats:
    """How much farther out the front of each face lies than its back: areas (f,), those of a patch as one.

    By the share of rays from either side, in all directions, that leave the surface without meeting it again.
    """
    from embreex.mesh_construction import TriangleMesh
    from embreex.rtcore_scene import EmbreeScene

    low, high = corners.min(axis=(0, 1)), corners.max(axis=(0, 1))
    size = float((high - low).max())
    local = (corners - (low + high) / 2) / size
    scene = EmbreeScene()
    TriangleMesh(
        scene, local.reshape(-1, 3).astype(np.float32), np.arange(3 * len(local), dtype=np.int32).reshape(-1, 3)
    )
    patches = int(patch.max()) + 1
    each = int(np.clip(MOST_PLACES // patches, 1, PLACES))
    rng = np.random.default_rng(0)
    face = spread(patch, area, each)
    where = np.einsum("nk,nkd->nd", rng.dirichlet((1.0, 1.0, 1.0), len(face)), local[face])
    normal = unit_vectors(cross_products(local[face]))
    rays = int(np.clip(RAYS * MOST_PLACES // len(face), 1, RAYS))
    way = unit_vectors(rng.standard_normal((rays, len(face), 3)))
    way *= np.where(np.einsum("rnd,nd->rn", way, normal) < 0, -1.0, 1.0)[..., None]
    free = []
    for side in (1.0, -1.0):
        origin = np.broadcast_to(where + side * 1e-6 * normal, way.shape).reshape(-1, 3).astype(np.float32)
        hit = scene.run(np.ascontiguousarray(origin), (side * way).reshape(-1, 3).astype(np.float32))
        free.append((np.asarray(hit) < 0).reshape(rays, -1).mean(axis=0))
    seen = (free[0] - free[1]).reshape(patches, each).mean(axis=1)
    views: Floats = area * seen[patch]
    return views
