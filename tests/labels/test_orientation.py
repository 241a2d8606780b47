"""Bodies that touch, corners equal only nearly, thin and one-sided surfaces: labels against the exact solid."""

from itertools import pairwise

import igl
import numpy as np
import pytest
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st

from ff3d.geometry.triangles import HalfEdges, areas
from ff3d.labels.oracles import OpenSurfaceError, make_oracle
from ff3d.labels.orientation import orient, wind_alike
from ff3d.labels.repair import repair, repaired
from ff3d.labels.winding_number import WindingNumberOracle
from ff3d.shapes.broken_bodies import finer, heap, layered
from ff3d.shapes.broken_solids import Shape, box_arrays, hull_shape, lathe_shape, random_rotation
from ff3d.shapes.faults import halved, unwelded

RNG = np.random.default_rng


def mesh_of(vertices, faces):
    return trimesh.Trimesh(vertices, faces, process=False)


def both(*pieces):
    """Vertices and faces of several pieces in one mesh; corners that coincide are one."""
    starts = np.cumsum([0, *(len(vertices) for vertices, _ in pieces)])
    vertices = np.concatenate([vertices for vertices, _ in pieces])
    faces = np.concatenate([faces + start for (_, faces), start in zip(pieces, starts, strict=False)])
    vertices, inverse = np.unique(vertices, axis=0, return_inverse=True)
    return vertices, inverse.reshape(-1)[faces]


def box(low, high, inverted=False):
    vertices, faces = box_arrays(np.array(low, dtype=float), np.array(high, dtype=float))
    return vertices, faces[:, ::-1] if inverted else faces


def in_boxes(*boxes):
    return lambda p: np.any([((p > low) & (p < high)).all(axis=1) for low, high in boxes], axis=0)


def ball(radius=1.0, subdivisions=3):
    mesh = trimesh.creation.icosphere(subdivisions=subdivisions, radius=radius)
    return np.array(mesh.vertices), np.array(mesh.faces, dtype=np.int64)


def in_mesh(vertices, faces):
    import igl

    vertices, faces = np.ascontiguousarray(vertices), np.ascontiguousarray(faces)
    return lambda p: igl.winding_number(vertices, faces, np.ascontiguousarray(p)) > 0.5


def points_about(vertices, faces, count=4000, std=0.02):
    """Uniform in the box and, as many, near the surface."""
    rng = RNG(7)
    low, high = vertices.min(axis=0), vertices.max(axis=0)
    side = (high - low).max()
    corners = vertices[faces]
    area = areas(corners)
    chosen = rng.choice(len(faces), count, p=area / area.sum())
    near = np.einsum("nk,nkd->nd", rng.dirichlet((1, 1, 1), count), corners[chosen])
    uniform = rng.uniform(low - 0.02 * side, high + 0.02 * side, (count, 3))
    return np.concatenate([uniform, near + std * side * rng.standard_normal((count, 3))])


def wrong(vertices, faces, contains, points=None):
    """How many of thousands of points get another label than the solid's; not those within 1e-6 of the surface's size,
    where float32 decides."""
    points = points_about(vertices, faces) if points is None else points
    differ = points[make_oracle(mesh_of(vertices, faces))(points) != contains(points)]
    if not len(differ):
        return 0
    squared = igl.point_mesh_squared_distance(differ, np.asarray(vertices), np.asarray(faces, dtype=np.int64))[0]
    return int((np.sqrt(squared) > 1e-6 * np.ptp(vertices, axis=0).max()).sum())


@pytest.mark.parametrize("layers", [3, 5, 10])
@pytest.mark.parametrize("walls", ["single", "double"])
def test_a_block_of_layers_turned_inside_out_is_the_block(layers, walls):
    rng = RNG(layers)
    for _ in range(4):
        heights = np.concatenate([[0.0], np.cumsum(rng.uniform(0.05, 1, layers))])
        pieces = [box((0, 0, low), (2, 1, high)) for low, high in pairwise(heights)]
        vertices, faces = both(*pieces)
        if walls == "single":
            faces = faces[np.sort(np.unique(np.sort(faces, axis=1), axis=0, return_index=True)[1])]
        block = in_boxes(((0, 0, 0), (2, 1, heights[-1])))
        assert wrong(vertices, faces, block) == 0
        assert wrong(vertices, faces[:, ::-1], block) == 0


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6), share=st.floats(0, 1), by_face=st.booleans())
def test_layers_wound_at_random_are_the_block(seed, share, by_face):
    rng = RNG(seed)
    shape, _ = layered(rng, 600.0)
    turned = rng.random(len(shape.faces)) < share if by_face else (rng.random(20) < share)[shape.owners]
    faces = np.where(turned[:, None], shape.faces[:, ::-1], shape.faces)
    assert wrong(shape.vertices, faces, shape.contains) == 0


@pytest.mark.parametrize("which", [(0, 1), (1, 0), (1, 1)], ids=str)
def test_two_boxes_that_share_a_face_or_an_edge_are_both_solid_whichever_is_reversed(which):
    first = box((0, 0, 0), (1, 1, 1), which[0])
    for low, high in (((1, 0, 0), (2.5, 1, 1)), ((1, 1, 0), (2, 3, 1)), ((1, 1, 1), (2, 2, 2))):
        solid = in_boxes(((0, 0, 0), (1, 1, 1)), (low, high))
        vertices, faces = both(first, box(low, high, which[1]))
        points = points_about(vertices, faces)
        shared = in_boxes(((0.9, 0, 0), (1.1, 1, 1)))(points) & (np.abs(points[:, 0] - 1) < 1e-9)
        assert wrong(vertices, faces, solid, points[~shared]) == 0


@pytest.mark.parametrize("hollow", [False, True], ids=["full", "hollow"])
@pytest.mark.parametrize("seed", range(6))
def test_27_boxes_of_which_a_tenth_are_reversed_are_solid_and_a_hollow_stays(seed, hollow):
    rng = RNG(seed)
    lines = [np.concatenate([[0.0], np.cumsum(rng.uniform(0.3, 1, 3))]) for _ in range(3)]
    cells = [(i, j, k) for i in range(3) for j in range(3) for k in range(3) if not (hollow and i == j == k == 1)]
    ends = [([lines[d][c[d]] for d in range(3)], [lines[d][c[d] + 1] for d in range(3)]) for c in cells]
    turned = set(rng.permutation(len(cells))[:3].tolist())
    vertices, faces = both(*(box(low, high, k in turned) for k, (low, high) in enumerate(ends)))
    outer = in_boxes(([0, 0, 0], [line[3] for line in lines]))
    inner = in_boxes(([line[1] for line in lines], [line[2] for line in lines]))
    assert wrong(vertices, faces, lambda p: outer(p) & ~(hollow & inner(p))) == 0


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_columns_that_touch_along_edges_are_solid_though_two_faces_in_five_are_flipped(seed):
    rng = RNG(seed)
    x, y = (np.concatenate([[0.0], np.cumsum(rng.uniform(0.3, 1, 4))]) for _ in range(2))
    ends = [((x[i], y[j], 0), (x[i + 1], y[j + 1], 2)) for i in range(4) for j in range(4) if (i + j) % 2 == 0]
    shape = finer(Shape("columns", *both(*(box(*corners) for corners in ends)), in_boxes(*ends)), 1000.0)
    flipped = rng.random(len(shape.faces)) < 0.4
    faces = np.where(flipped[:, None], shape.faces[:, ::-1], shape.faces)
    assert wrong(shape.vertices, faces, shape.contains) == 0


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_boxes_in_a_grid_are_their_union_however_whole_boxes_are_wound(seed):
    rng = RNG(seed)
    shape, _ = heap(rng, 400.0)
    turned = (rng.random(shape.owners.max() + 1) < rng.uniform(0, 0.3))[shape.owners]
    faces = np.where(turned[:, None], shape.faces[:, ::-1], shape.faces)
    assert wrong(shape.vertices, faces, shape.contains) == 0


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10**6), which=st.sampled_from([(0,), (1,), (0, 1)]))
def test_a_solid_cut_in_two_capped_parts_is_whole_whichever_part_is_reversed(seed, which):
    rng = RNG(seed)
    shape, _ = halved(hull_shape(rng, 600.0), rng)
    turned = np.isin(shape.owners, which)
    faces = np.where(turned[:, None], shape.faces[:, ::-1], shape.faces)
    assert wrong(shape.vertices, faces, shape.contains) == 0


def test_a_ball_cut_in_two_capped_parts_is_whole_though_the_larger_is_reversed():
    vertices, faces = ball()
    shape, _ = halved(Shape("ball", vertices, faces, in_mesh(vertices, faces)), RNG(1))
    larger = np.bincount(shape.owners).argmax()
    turned = np.where((shape.owners == larger)[:, None], shape.faces[:, ::-1], shape.faces)
    assert wrong(shape.vertices, turned, shape.contains) == 0


@pytest.mark.parametrize("apart", [0, 1e-9, 1e-8, 1e-7, 1e-6])
def test_a_pipe_whose_inner_wall_is_turned_and_whose_caps_are_unwelded_is_a_pipe(apart):
    sides, rng = 60, RNG(1)
    angle = 2 * np.pi * np.arange(sides) / sides
    i = np.arange(sides)
    j = (i + 1) % sides

    def ring(radius, z):
        return np.stack([radius * np.cos(angle), radius * np.sin(angle), np.full(sides, z)], axis=1)

    band = np.concatenate([np.stack([i, j, j + sides], axis=1), np.stack([i, j + sides, i + sides], axis=1)])
    walls = [(np.concatenate([ring(r, -1), ring(r, 1)]), band) for r in (1, 0.7)]  # both look outwards
    caps = []
    for z, way in ((1, 1), (-1, -1)):
        corners = np.concatenate([ring(1, z), ring(0.7, z)])
        caps.append((corners + 2 * apart * rng.uniform(-1, 1, corners.shape), band[:, ::way]))
    starts = 2 * sides * np.arange(4)
    vertices = np.concatenate([corners for corners, _ in (*walls, *caps)])
    faces = np.concatenate([rows + start for (_, rows), start in zip((*walls, *caps), starts, strict=True)])

    def pipe(p):
        middle = (np.floor(np.arctan2(p[:, 1], p[:, 0]) * sides / (2 * np.pi)) + 0.5) * (2 * np.pi / sides)
        radius = (p[:, 0] * np.cos(middle) + p[:, 1] * np.sin(middle)) / np.cos(np.pi / sides)
        return (radius < 1) & (radius > 0.7) & (np.abs(p[:, 2]) < 1)

    points = points_about(vertices, faces)
    assert wrong(vertices, faces, pipe, points) <= (2 if apart else 0)  # within `apart` of the surface
    notes = repaired(mesh_of(vertices, faces))[1].notes
    assert any("one with them for the winding, not moved" in note for note in notes) == (apart > 0)


@pytest.mark.parametrize(("apart", "share"), [(1e-9, 0.2), (1e-7, 0.2), (1e-6, 0.4)])
def test_soups_of_which_the_corners_nearly_meet_are_solid_and_no_corner_moves(apart, share):
    rng = RNG(3)
    for shape in (Shape("ball", *ball(0.5), in_mesh(*ball(0.5))), hull_shape(rng, 300.0), lathe_shape(rng, 900.0)):
        vertices, faces = unwelded(shape.vertices, shape.faces, apart, rng)
        flipped = rng.random(len(faces)) < share
        faces = np.where(flipped[:, None], faces[:, ::-1], faces)
        cube, fixed = repaired(mesh_of(vertices, faces))
        given = {tuple(corner) for corner in cube.to_unit(vertices).tolist()}
        assert all(tuple(corner) in given for corner in fixed.vertices.tolist())
        assert len(fixed.faces) == len(faces)
        assert not len(fixed.rim)
        points = points_about(vertices, faces)
        assert wrong(vertices, faces, shape.contains, points) <= 2


def test_corners_are_joined_for_the_winding_by_the_meshs_own_measure_only():
    # a plate whose two sides lie 1e-6 apart, as a soup whose corners lie 1e-8 apart: its sides are not joined
    vertices, faces = box((0, 0, 0), (1, 0.7, 1e-6))
    vertices, faces = unwelded(vertices, faces, 1e-8, RNG(0))
    fixed = repair(0.9 * vertices + 0.05, faces[:, ::-1])
    assert len(fixed.faces) == 12
    assert not len(fixed.rim)
    assert fixed.inside_out


@pytest.mark.parametrize("thickness", [1e-4, 2e-5, 1e-6, 1e-7])
@pytest.mark.parametrize("way", [1, -1], ids=["outward", "reversed"])
def test_closed_plates_are_solid_down_to_a_ten_millionth_of_their_size(thickness, way):
    shape = finer(Shape("plate", *box((0, 0, 0), (1, 0.7, thickness)), in_boxes(((0, 0, 0), (1, 0.7, thickness)))), 800)
    points = RNG(0).uniform((-0.1, -0.1, -0.1), (1.1, 0.8, 0.1), (4000, 3))
    assert wrong(shape.vertices, shape.faces[:, ::way], shape.contains, points) == 0
    within = RNG(1).uniform((0, 0, 0.4 * thickness), (1, 0.7, 0.6 * thickness), (4000, 3))
    # points a millionth apart are one to the tree's float32
    assert wrong(shape.vertices, shape.faces[:, ::way], shape.contains, within) <= (0 if thickness > 1e-6 else 400)
    two = both(*(box((0, 0, z), (1, 0.7, z + thickness), inverted) for z, inverted in ((0, False), (0.3, True))))
    solid = in_boxes(((0, 0, 0), (1, 0.7, thickness)), ((0, 0, 0.3), (1, 0.7, 0.3 + thickness)))
    assert wrong(*two, solid, points) == 0


@pytest.mark.parametrize("thickness", [1e-4, 1e-6, 1e-7])
@pytest.mark.parametrize("way", [1, -1], ids=["outward", "reversed"])
def test_a_ball_and_its_reverse_a_millionth_apart_are_a_shell(thickness, way):
    (outer, faces), (inner, _) = ball(1.0), ball(1.0 - thickness)
    vertices, shell = np.concatenate([outer, inner]), np.concatenate([faces, faces[:, ::-1] + len(outer)])
    solid, hollow = in_mesh(outer, faces), in_mesh(inner, faces)
    points = RNG(0).uniform(-1.05, 1.05, (4000, 3))
    assert wrong(vertices, shell[:, ::way], lambda p: solid(p) & ~hollow(p), points) == 0
    fixed = repaired(mesh_of(vertices, shell[:, ::way]))[1]
    a, b, c = np.moveaxis(fixed.vertices[fixed.faces], 1, 0)
    volume = np.einsum("ij,ij->", a - 0.5, np.cross(b - 0.5, c - 0.5)) / 6
    assert volume == pytest.approx(4 * np.pi * thickness * 0.45**3, rel=0.02)


def test_a_flat_pillow_and_a_sheet_enclose_nothing():
    vertices = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0.0]])
    pillow = np.array([[0, 1, 2], [0, 2, 3], [1, 0, 3], [1, 3, 2]])  # two triangulations of one square
    for faces in (pillow, pillow[:2]):
        with pytest.raises(OpenSurfaceError, match="an open surface that encloses nothing"):
            make_oracle(mesh_of(vertices, faces))


def klein_bottle(count=48):
    """Its figure of eight, Lawson's: closed, and one-sided."""
    u, v = np.meshgrid(np.arange(count), np.arange(count), indexing="ij")
    a, b = 2 * np.pi * u / count, 2 * np.pi * v / count
    radius = 2 + np.cos(a / 2) * np.sin(b) - np.sin(a / 2) * np.sin(2 * b)
    z = np.sin(a / 2) * np.sin(b) + np.cos(a / 2) * np.sin(2 * b)
    vertices = np.stack([radius * np.cos(a), radius * np.sin(a), z], axis=-1).reshape(-1, 3)

    def at(i, j):
        return np.where(i < count, i * count + j % count, (-j) % count)

    quads = (at(u, v), at(u + 1, v), at(u + 1, v + 1)), (at(u, v), at(u + 1, v + 1), at(u, v + 1))
    return vertices, np.concatenate([np.stack(corners, axis=-1).reshape(-1, 3) for corners in quads])


def test_a_klein_bottle_is_one_sided_not_open():
    vertices, faces = klein_bottle()
    assert (HalfEdges.of(faces, len(vertices)).count == 2).all()
    with pytest.raises(OpenSurfaceError, match="a one-sided surface, like a Moebius strip or a Klein bottle"):
        make_oracle(mesh_of(vertices, faces))


@pytest.mark.parametrize("width", [3, 30, 1000])
@pytest.mark.parametrize("height", [-1.2, -0.4])
def test_a_ball_on_a_ground_or_half_in_it_is_the_ball(width, height):
    vertices, faces = ball()
    steps = np.linspace(-width, width, 9)
    ground = np.array([(x, y, height) for x in steps for y in steps])
    i, j = (index.ravel() for index in np.meshgrid(np.arange(8), np.arange(8), indexing="ij"))
    a, b, c, d = 9 * i + j, 9 * i + j + 9, 9 * i + j + 10, 9 * i + j + 1
    sheet = np.concatenate([np.stack([a, b, c], axis=1), np.stack([a, c, d], axis=1)])
    for ways in ((1, 1), (-1, 1), (1, -1)):
        together = np.concatenate([faces[:, :: ways[0]], sheet[:, :: ways[1]] + len(vertices)])
        points = RNG(0).uniform(-1.5, 1.5, (4000, 3))
        assert wrong(np.concatenate([vertices, ground]), together, in_mesh(vertices, faces), points) == 0


def test_a_sheet_within_the_box_of_the_solids_is_left_out_and_said():
    vertices, faces = both(box((0, 0, 0), (1, 1, 1)), box((5, 5, 5), (6, 6, 6)))
    sheet = np.array([[2, 2, 2], [4, 2, 2], [4, 4, 3], [2, 4, 3.0]])
    faces = np.concatenate([faces, np.array([[0, 1, 2], [0, 2, 3]]) + len(vertices)])
    fixed = repaired(mesh_of(np.concatenate([vertices, sheet]), faces))[1]
    assert len(fixed.faces) == 24
    assert not len(fixed.rim)
    assert "2 face(s) of sheets that enclose nothing" in fixed.notes[0]


def test_a_cavity_that_touches_the_shell_along_an_edge_stays_a_cavity():
    outer, hollow = box((0, 0, 0), (2, 2, 2)), box((0, 0, 0.0), (1, 1, 2), inverted=True)
    # the hollow's long edge is the outer box's own
    vertices, faces = both(outer, hollow)
    solid, void = in_boxes(((0, 0, 0), (2, 2, 2))), in_boxes(((0, 0, 0), (1, 1, 2)))
    points = RNG(0).uniform(-0.1, 2.1, (4000, 3))
    for way in (1, -1):
        assert wrong(vertices, faces[:, ::way], lambda p: solid(p) & ~void(p), points) == 0


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_a_file_and_the_same_file_reversed_are_labelled_alike(seed):
    """Open shells within one another, four faces each: no part has a volume of its own."""
    rng = RNG(seed)
    corners, faces = [], []
    for k in range(10):
        tip, spread = rng.uniform(-0.2, 0.2, 3), 0.1 * (k + 1)
        turn = random_rotation(rng)
        square = spread * np.array([[-1, -1, -1], [1, -1, -1], [1, 1, -1], [-1, 1, -1.0]]) @ turn.T
        corners.append(np.concatenate([square, [tip + spread * turn[:, 2]]]))
        faces.append(np.array([[0, 1, 4], [1, 2, 4], [2, 3, 4], [3, 0, 4]]) + 5 * k)
    vertices, faces = np.concatenate(corners), np.concatenate(faces)
    turned = rng.random(len(faces)) < 0.1
    faces = np.where(turned[:, None], faces[:, ::-1], faces)
    points = points_about(vertices, faces, 5000)
    one, other = (WindingNumberOracle(mesh_of(vertices, faces[:, ::way])) for way in (1, -1))
    assert np.array_equal(one(points), other(points))
    assert one.unsettled == pytest.approx(other.unsettled, abs=0.01)


def test_a_wall_in_a_ring_that_parts_nothing_is_left_out():
    """One cell on both sides of it: a torus stays whole with a disc across its tube."""
    torus = trimesh.creation.torus(1.0, 0.4, major_sections=24, minor_sections=12)
    vertices, faces = np.array(torus.vertices), np.array(torus.faces)
    rim = np.flatnonzero(np.abs(np.arctan2(vertices[:, 1], vertices[:, 0])) < 1e-6)
    rim = rim[np.argsort(np.arctan2(vertices[rim, 2], np.hypot(*vertices[rim, :2].T) - 1))]
    disc = np.stack([rim, np.roll(rim, -1), np.full(len(rim), len(vertices))], axis=1)
    vertices = np.concatenate([vertices, [vertices[rim].mean(axis=0)]])
    for walls in ((disc,), (disc, disc[:, ::-1]), (disc, disc)):
        assert wrong(vertices, np.concatenate([faces, *walls]), in_mesh(vertices, faces)) == 0


def test_winding_alike_finds_one_sided_patches_and_the_majority():
    vertices, faces = ball()
    edges = HalfEdges.of(np.where(np.arange(len(faces))[:, None] % 3 == 0, faces[:, ::-1], faces), len(vertices))
    patch, turn, one_sided = wind_alike(edges, areas(vertices[faces]))
    assert patch.max() == 0
    assert np.array_equal(turn, np.where(np.arange(len(faces)) % 3 == 0, -1, 1))
    assert not one_sided.any()
    vertices, faces = klein_bottle(12)
    assert wind_alike(HalfEdges.of(faces, len(vertices)), areas(vertices[faces]))[2].all()


def test_what_is_chosen_for_bodies_of_whole_boxes_does_not_depend_on_how_any_is_wound():
    """The slow twin: of all windings of three boxes in a row, each gives the outline of the row."""
    pieces = [((k, 0, 0), (k + 1, 1, 1)) for k in range(3)]
    for number in range(8):
        vertices, faces = both(*(box(*ends, bool(number >> k & 1)) for k, ends in enumerate(pieces)))
        _, first, votes = np.unique(np.sort(faces, axis=1), axis=0, return_index=True, return_counts=True)
        chosen = orient(
            HalfEdges.of(faces[first], len(vertices)),
            faces[first],
            vertices / 4,
            area=areas(vertices[faces[first]]),
            votes=np.where(votes == 1, 1, 0),
            copies=votes,
        )
        assert np.array_equal(chosen.sign != 0, votes == 1)
