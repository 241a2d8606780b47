import re
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ff3d.shapes.solids import SOLIDS
from ff3d.surfaces.extraction import extract_mesh, memory_needed
from ff3d.surfaces.grid_levels import MARGIN, ExtractionError, grid_axes

CUBE = np.array([[-1.0, -1, -1], [1, 1, 1]])


def ball(radius=0.8, center=(0, 0, 0)):
    return lambda points: radius - np.linalg.norm(points - np.asarray(center), axis=1)


def block(low, high):
    return lambda points: np.minimum(points - low, high - points).min(axis=1)


def torus(points):
    return 0.25 - np.hypot(np.hypot(points[:, 0], points[:, 1]) - 0.6, points[:, 2])


def everywhere(points):
    return np.ones(len(points))


def on_grid(values, **options) -> trimesh.Trimesh:
    """The mesh of a table of logits (x, y, z), one a grid point, cells of side 1."""
    top = np.array(values.shape) - 1
    return extract_mesh(lambda points: values[tuple(np.rint(points).astype(int).T)], [[0, 0, 0], top], **options)


def check_solid(shape: trimesh.Trimesh) -> None:
    """Closed, two faces at each edge and turned alike, one fan at each vertex, no face without area, outward."""
    faces = np.asarray(shape.faces)
    directed = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    keys = directed @ [len(shape.vertices), 1]
    assert len(np.unique(keys)) == len(keys)
    assert np.array_equal(np.sort(keys), np.sort(directed[:, ::-1] @ [len(shape.vertices), 1]))
    # each corner leads from one edge of the vertex's fan to the next: in one fan all corners of a vertex are joined
    assert np.array_equal(np.unique(faces), np.arange(len(shape.vertices)))
    edge = {int(key): at for at, key in enumerate(keys)}
    around = np.array([edge[int(key)] for key in directed[:, ::-1] @ [len(shape.vertices), 1]])
    fans = trimesh.graph.connected_component_labels(
        np.stack([np.roll(np.arange(len(keys)).reshape(3, -1), 1, axis=0).ravel(), around], axis=1), len(keys)
    )
    assert fans.max() + 1 == len(shape.vertices)
    area = np.linalg.norm(np.cross(*(shape.triangles[:, k] - shape.triangles[:, 0] for k in (1, 2))), axis=1)
    assert area.min() > 0
    assert (shape.triangles[:, 0] * np.cross(shape.triangles[:, 1], shape.triangles[:, 2])).sum() > 0


# --- the surface is the right one


def test_the_volume_of_a_sphere_converges_with_second_order():
    shapes = [extract_mesh(ball(), CUBE, resolution=n) for n in (16, 32, 64)]
    errors = [4 / 3 * np.pi * 0.8**3 - shape.volume for shape in shapes]
    assert 0 < errors[-1] < 2e-3
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.1)
    assert errors[1] / errors[2] == pytest.approx(4, rel=0.1)


@pytest.mark.parametrize("resolution", [9, 16, 33, 64])
def test_the_vertices_of_a_sphere_lie_on_it(resolution):
    shape = extract_mesh(ball(), CUBE, resolution=resolution)
    check_solid(shape)
    cell = 2 / resolution
    # linear interpolation of a distance along an edge errs by at most cell^2 / (8 radius)
    assert np.abs(np.linalg.norm(shape.vertices, axis=1) - 0.8).max() < cell**2 / (8 * 0.8 - 8 * cell) + MARGIN * cell
    assert (shape.face_normals * shape.triangles_center).sum(axis=1).min() > 0
    assert shape.euler_number == 2


def test_a_torus_has_one_hole():
    shape = extract_mesh(torus, CUBE, resolution=40)
    check_solid(shape)
    assert shape.euler_number == 0
    assert shape.volume == pytest.approx(2 * np.pi**2 * 0.6 * 0.25**2, rel=0.02)


def test_nothing_is_lost_a_million_units_away():
    far = np.array([1e6, -2e6, 5e5])
    near, there = extract_mesh(ball(), CUBE, resolution=32), extract_mesh(ball(center=far), CUBE + far, resolution=32)
    assert np.array_equal(near.faces, there.faces)
    # float64 is 2e-10 apart there, and the logits with it; a vertex lies where their ratio says
    np.testing.assert_allclose(there.vertices - far, near.vertices, atol=1e-8)


def test_a_plane_is_exact_whatever_the_size_of_its_logits():
    for size in (1e-20, 1e-6, 1.0, 1e20):
        shape = extract_mesh(lambda points, size=size: size * (0.3 - points[:, 2]), CUBE, resolution=7)
        top = shape.vertices[shape.vertices[:, 2] > 0.2, 2]
        np.testing.assert_allclose(top, 0.3, atol=1e-6)


def test_infinite_logits_are_inside_and_outside():
    shape = extract_mesh(lambda points: np.where(ball()(points) > 0, np.inf, -np.inf), CUBE, resolution=16)
    check_solid(shape)
    assert shape.volume == pytest.approx(4 / 3 * np.pi * 0.8**3, rel=0.1)


# --- the grid and the box


@pytest.mark.parametrize("resolution", [1, 2, 3, 5, 8, 21])
@pytest.mark.parametrize("sides", [(1, 1, 1), (1, 2.3, 0.4), (5, 0.01, 1), (0.7, 0.9, 3)])
def test_where_all_is_inside_the_mesh_is_the_box(resolution, sides):
    box = np.array([[1, 2, 3], np.add([1, 2, 3], sides)], dtype=float)
    shape = extract_mesh(everywhere, box, resolution=resolution)
    check_solid(shape)
    margin = 1.001 * MARGIN * max(sides) / resolution
    assert (shape.bounds[0] < box[0]).all()
    assert (shape.bounds[1] > box[1]).all()
    np.testing.assert_allclose(shape.bounds, box, atol=margin)


@pytest.mark.parametrize("sides", [(1, 1, 1), (1, 2.3, 0.4), (3, 0.9, 1.1)])
def test_cells_are_cubes_and_no_point_outside_the_box_is_evaluated(sides):
    evaluated = []

    def logits(points):
        evaluated.append(points)
        return np.ones(len(points))

    extract_mesh(logits, [[0, 0, 0], sides], resolution=10, chunk=50)
    points = np.concatenate(evaluated)
    cell = max(sides) / 10
    for k, side in enumerate(sides):
        axis = np.unique(points[:, k])
        assert axis[0] == 0
        assert axis[-1] == side
        np.testing.assert_allclose(np.diff(axis)[1:-1], cell)
        assert (np.diff(axis)[[0, -1]] > 0.49 * cell).all()
        assert (np.diff(axis)[[0, -1]] < 1.01 * cell).all()
    assert len(np.unique(points, axis=0)) == len(points)


@pytest.mark.parametrize("resolution", [10, 17])
@pytest.mark.parametrize("sides", [(1, 1, 1), (0.93, 0.77, 1)])
def test_a_half_space_is_closed_at_the_sides_of_the_box(resolution, sides):
    shape = extract_mesh(
        lambda points: 0.437 - points[:, 0] - 0.1 * points[:, 1], [[0, 0, 0], sides], resolution=resolution
    )
    check_solid(shape)
    exact = (0.437 - 0.05 * sides[1]) * sides[1] * sides[2]
    assert shape.volume == pytest.approx(exact, rel=6 * MARGIN / resolution * 2 + 1e-9)
    assert shape.euler_number == 2


@pytest.mark.parametrize("huge", [1, 1e6, 1e300])
def test_the_cap_lies_on_the_side_however_large_the_logits_are(huge):
    shape = extract_mesh(lambda points: huge * points[:, 0], CUBE, resolution=6)
    np.testing.assert_allclose(shape.bounds, [[0, -1, -1], [1, 1, 1]], atol=1.01 * MARGIN * 2 / 6)


@pytest.mark.parametrize("chunk", [1, 100, 1000, 10**9])
def test_the_chunk_changes_nothing_and_is_kept_to(chunk):
    sizes = []

    def logits(points):
        sizes.append(len(points))
        return torus(points)

    box = [[-1, -1, -0.4], [1, 1, 0.4]]
    whole, parts = extract_mesh(torus, box, resolution=25), extract_mesh(logits, box, resolution=25, chunk=chunk)
    assert np.array_equal(whole.vertices, parts.vertices)
    assert np.array_equal(whole.faces, parts.faces)
    assert max(sizes) <= max(chunk, 11)
    assert sum(sizes) == 26 * 26 * 11


def test_progress_is_shown_on_request(capsys):
    extract_mesh(ball(), CUBE, resolution=8)
    assert capsys.readouterr().err == ""
    extract_mesh(ball(), CUBE, resolution=8, progress=True)
    assert "100%" in capsys.readouterr().err


# --- sparse is dense, number for number


def check_same(one: trimesh.Trimesh, other: trimesh.Trimesh) -> None:
    assert np.array_equal(one.vertices, other.vertices)
    assert np.array_equal(one.faces, other.faces)


def counted(logits):
    """The function, and a list of all points at which it was evaluated."""
    evaluated = []

    def counting(points):
        evaluated.append(points.copy())
        return logits(points)

    return counting, evaluated


def always(centers, side):
    return np.ones(len(centers), dtype=bool)


@pytest.mark.slow
@given(arrays(np.float64, (4, 5, 6), elements=st.floats(-2, 2)))
@settings(max_examples=100)
def test_dense_is_the_surface_that_scikit_image_gives(values):
    """Its vertices halfway along edges, its faces up to their order and their first corner."""
    from skimage.measure import marching_cubes

    values.flat[0] = 1
    signs = np.where(np.pad(values, 1, constant_values=-1) > 0, np.float32(1), np.float32(-1))
    vertices, faces, _, _ = marching_cubes(signs, 0.0, gradient_direction="ascent", method="lorensen")
    shape = on_grid(np.where(values > 0, 1.0, -1.0), resolution=5)
    inside = ((shape.vertices > 0) & (shape.vertices < np.array(values.shape) - 1)).all(axis=1)
    halves = np.where(inside[:, None], shape.vertices, np.round(shape.vertices * 2) / 2)
    # on the border a vertex lies 1e-3 off a grid point: back halfway, outward
    low, high = shape.vertices < 0, shape.vertices > np.array(values.shape) - 1
    halves = halves - 0.5 * low + 0.5 * high + 1

    def turned(corners):
        first = np.lexsort(corners.transpose(2, 0, 1)[::-1], axis=1)[:, 0]
        return sorted(np.roll(it, -k, axis=0).tobytes() for it, k in zip(corners, first, strict=True))

    assert turned(halves[shape.faces]) == turned(vertices[faces].astype(np.float64))


@pytest.mark.slow
@given(st.integers(0, 2**32 - 1), st.integers(2, 40), st.sampled_from([1, 2, 3, 8, 40]))
@settings(max_examples=60)
def test_with_a_guide_noise_is_the_same_sparse_and_dense(seed, resolution, start):
    sides = np.random.default_rng(seed).uniform(0.2, 1, 3)
    rng = np.random.default_rng(seed)
    directions, phases = rng.normal(0, resolution / 3, (8, 3)), rng.uniform(0, 2 * np.pi, 8)
    box = [[0, 0, 0], sides]

    def logits(points):
        # one product at a time: a matrix product rounds by the size of the batch
        return (
            sum(
                np.sin(points[:, 0] * d[0] + points[:, 1] * d[1] + points[:, 2] * d[2] + p)
                for d, p in zip(directions, phases, strict=True)
            )
            + 0.8
        )

    try:
        dense = extract_mesh(logits, box, resolution=resolution, method="dense")
    except ExtractionError:
        return
    check_same(extract_mesh(logits, box, resolution=resolution, start=start, guide=always), dense)


@pytest.mark.slow
@given(st.integers(0, 2**32 - 1), st.integers(2, 70), st.booleans())
@settings(max_examples=30)
def test_blends_with_a_guide_by_distance_are_the_same_sparse_and_dense(seed, resolution, shifted):
    rng = np.random.default_rng(seed)
    parts = [ball(*rng.uniform(0.4, 0.9, 1), rng.uniform(-1, 1, 3)) for _ in range(3)]
    parts += [block(low, low + rng.uniform(0.5, 1, 3)) for low in rng.uniform(-1, 0.5, (3, 3))]
    box = CUBE * rng.uniform(0.5, 1, 3) + shifted * 1e3

    def logits(points):
        return np.max([part(points - shifted * 1e3) for part in parts], axis=0)

    try:
        dense = extract_mesh(logits, box, resolution=resolution, method="dense")
    except ExtractionError:
        return

    def guide(centers, side):  # no value changes faster than the distance
        return np.abs(logits(centers)) <= side * 0.867

    options = {"start": max(1, resolution // rng.integers(2, 20)), "chunk": 5000}
    sparse = extract_mesh(logits, box, resolution=resolution, guide=guide, **options)
    check_same(sparse, dense)
    check_solid(sparse)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bunny", "knot", "gyroid", "bracket"])
@pytest.mark.parametrize("resolution", [128, 150])
def test_the_samples_are_the_same_sparse_and_dense(name, resolution):
    solid = SOLIDS[name]
    sparse, dense = (
        extract_mesh(solid.values, solid.bounds, resolution=resolution, method=it) for it in ("sparse", "dense")
    )
    check_same(sparse, dense)
    assert sparse.metadata["evaluations"] < dense.metadata["evaluations"] / 3


@pytest.mark.parametrize("sides", [(1, 1, 1), (1, 0.3, 0.01), (0.001, 1, 1), (1, 1e-3, 1e-3)])
def test_a_full_box_is_the_same_sparse_and_dense(sides):
    sparse, dense = (
        extract_mesh(everywhere, [[0, 0, 0], sides], resolution=130, method=it) for it in ("sparse", "dense")
    )
    check_same(sparse, dense)


@pytest.mark.parametrize("resolution", [2, 3, 17, 64, 100, 128, 300])
def test_no_point_is_evaluated_twice_and_none_off_the_grid_or_the_box(resolution):
    logits, evaluated = counted(ball(0.9))
    box = np.array([[-1, -0.5, -0.8], [1, 0.7, 0.9]])
    shape = extract_mesh(logits, box, resolution=resolution, start=min(resolution, 20))
    points = np.concatenate(evaluated)
    assert len(np.unique(points, axis=0)) == len(points) == shape.metadata["evaluations"]
    assert (points >= box[0]).all()
    assert (points <= box[1]).all()
    for k, axis in enumerate(grid_axes(box, resolution)):
        assert np.isin(points[:, k], axis).all()


def test_a_part_is_followed_however_far_it_leads_from_where_it_was_seen():
    """A ball with a thin spike through cells that no coarse point betrays."""

    def logits(points):
        spike = 0.012 - np.maximum(np.hypot(points[:, 1] - 0.017, points[:, 2] - 0.013), np.abs(points[:, 0]) - 0.85)
        return np.where(np.maximum(spike, ball(0.3)(points)) > 0, 1.0, -1.0)

    sparse, dense = (extract_mesh(logits, CUBE, resolution=200, start=25, method=it) for it in ("sparse", "dense"))
    check_same(sparse, dense)
    assert sparse.bounds[1, 0] > 0.8


def test_a_guide_finds_what_no_coarse_point_sees():
    center = np.array([0.51, 0.47, 0.53])

    def logits(points):
        return np.where(np.maximum(ball(0.03, center)(points), ball(0.2)(points)) > 0, 3.0, -3.0)

    sides = []

    def guide(centers, side):
        sides.append(side)
        return np.linalg.norm(centers - center, axis=1) < 0.03 + side

    options = {"resolution": 160, "start": 10}
    dense = extract_mesh(logits, CUBE, method="dense", resolution=160)
    assert dense.body_count == 2
    assert extract_mesh(logits, CUBE, **options).body_count == 1
    check_same(extract_mesh(logits, CUBE, guide=guide, **options), dense)
    assert sorted(set(sides)) == pytest.approx([2 * 2**k / 160 for k in (1, 2, 3, 4)])


def test_a_guide_is_called_with_cubes_that_cover_the_box_and_no_others():
    low, high = np.zeros(3), np.array([1, 0.37, 0.61])
    seen = []

    def guide(centers, side):
        seen.append((centers, side))
        return np.zeros(len(centers), dtype=bool)

    with pytest.raises(ExtractionError, match=r"nothing is inside.*evaluated"):
        extract_mesh(lambda points: -np.ones(len(points)), [low, high], resolution=64, start=8, guide=guide)
    centers, side = np.concatenate([it for it, _ in seen]), seen[0][1]
    assert (centers + side / 2 > low - 1e-9).all()
    assert (centers - side / 2 < high + 1e-9).all()
    points = np.random.default_rng(0).uniform(low, high, (500, 3))
    assert (np.abs(points[:, None] - centers).max(axis=2).min(axis=1) <= side / 2 + 1e-9).all()


@pytest.mark.parametrize("answer", [lambda centers: 1, lambda centers: np.ones(len(centers)), lambda centers: None])
def test_a_guide_that_returns_no_bools_is_refused(answer):
    with pytest.raises(ExtractionError, match="guide must return"):
        extract_mesh(ball(), CUBE, resolution=16, start=4, guide=lambda centers, side: answer(centers))


def test_the_evaluations_fall_as_the_resolution_grows():
    shapes = [extract_mesh(torus, CUBE, resolution=n) for n in (128, 256, 512)]
    for coarse, fine in pairwise(shapes):
        assert fine.metadata["evaluations"] < 5 * coarse.metadata["evaluations"]
    assert shapes[-1].metadata["evaluations"] < 513**3 / 60


def test_nan_far_down_is_refused_with_its_place():
    def logits(points):
        values = ball()(points)
        values[(np.abs(points[:, 0] - 0.8) < 0.006) & (np.abs(points[:, 1]) < 0.006)] = np.nan
        return values

    with pytest.raises(ExtractionError, match=r"NaN at \[0\.79.*, .*\] \(\d+ of"):
        extract_mesh(logits, CUBE, resolution=256, start=8)


# --- vertices on the true surface


@pytest.mark.parametrize("method", ["sparse", "dense"])
def test_refining_brings_vertices_nearer_to_the_surface(method):
    def logits(points):
        return np.tanh(20 * ball()(points))

    off = []
    for steps in (0, 1, 2, 4):
        shape = extract_mesh(logits, CUBE, resolution=24, refine=steps, method=method, start=12)
        check_solid(shape)
        off.append(np.abs(np.linalg.norm(shape.vertices, axis=1) - 0.8).max() / (2 / 24))
    assert off[2] < off[0] / 5
    assert off[3] <= 1.001 * MARGIN
    plain, finer = (extract_mesh(logits, CUBE, resolution=24, refine=steps) for steps in (0, 3))
    assert np.array_equal(plain.faces, finer.faces)
    assert finer.metadata["evaluations"] == plain.metadata["evaluations"] + 3 * len(plain.vertices)


def test_refining_a_step_halves_the_error_each_time():
    for steps in (1, 3, 6):
        shape = extract_mesh(lambda points: np.sign(0.3137 - points[:, 2]), CUBE, resolution=7, refine=steps)
        top = shape.vertices[(np.abs(shape.vertices[:, :2]) < 0.9).all(axis=1) & (shape.vertices[:, 2] > 0.1), 2]
        assert np.abs(top - 0.3137).max() <= 2 / 7 / 2 ** (steps + 1) + MARGIN


def test_a_tolerance_ends_refinement_where_the_logit_is_that_small_and_saves_points():
    tolerance = 1e-3

    def logits(points):  # far from linear across a cell, and a jump
        value = np.sinh(4 * ball(0.7)(points))
        return np.where(points[:, 0] > 0.55, -1.0, value)

    all_steps, few = (extract_mesh(logits, CUBE, resolution=24, refine=12, tolerance=it) for it in (0.0, tolerance))
    assert few.metadata["evaluations"] < 0.8 * all_steps.metadata["evaluations"]
    jump = np.abs(few.vertices[:, 0] - 0.55) < 0.05
    assert np.abs(np.sinh(4 * ball(0.7)(few.vertices[~jump]))).max() <= tolerance
    np.testing.assert_allclose(few.vertices, all_steps.vertices, atol=2e-3)
    assert np.array_equal(few.faces, all_steps.faces)


@given(st.integers(0, 2**32 - 1), st.integers(2, 10), st.integers(1, 3))
@settings(max_examples=30)
def test_refined_noise_is_closed_and_evaluates_the_box_alone(seed, resolution, steps):
    rng = np.random.default_rng(seed)

    def logits(points):
        assert (np.abs(points) <= 1).all()
        return np.where(rng.random(len(points)) < 0.1, np.inf, rng.standard_normal(len(points)))

    try:
        check_solid(extract_mesh(logits, CUBE, resolution=resolution, refine=steps))
    except ExtractionError as error:
        assert "nothing is inside" in str(error)  # noqa: PT017


# --- whatever the logits are, the mesh is closed


@pytest.mark.parametrize("turn", [(0, 1, 2), (1, 2, 0), (2, 0, 1)])
def test_every_pair_of_neighbouring_cells_is_joined_by_edges_of_two_faces(turn):
    """All 2^12 signs of the twelve points of two cells, side by side in one table, outside around each."""
    signs = (np.arange(2**12)[:, None] >> np.arange(12)) % 2 * 2.0 - 1
    cells = np.pad(signs.reshape(16, 16, 16, 3, 2, 2), [(0, 0)] * 3 + [(1, 1)] * 3, constant_values=-1)
    table = cells.transpose(0, 3, 1, 4, 2, 5).reshape(16 * 5, 16 * 4, 16 * 4)
    check_solid(on_grid(table.transpose(turn), resolution=79))


@given(arrays(np.int8, (5, 4, 6), elements=st.integers(-2, 2)), st.sampled_from([1.0, 1e-9, 1e-25, 1e25]))
@settings(max_examples=150)
def test_whole_numbers_with_zeros_on_the_grid_give_a_closed_mesh(values, size):
    if values.max() > 0:
        check_solid(on_grid(values * size, resolution=5))


@given(arrays(np.float64, (4, 4, 4), elements=st.floats(-1e300, 1e300)), st.integers(0, 63))
@settings(max_examples=150)
def test_any_numbers_give_a_closed_mesh(values, at):
    values.flat[at] = 1
    check_solid(on_grid(values, resolution=3))


@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 4, 12]), st.integers(3, 16))
@settings(max_examples=40)
def test_smooth_noise_gives_a_closed_mesh(seed, waves, resolution):
    rng = np.random.default_rng(seed)
    directions, phases, sizes = rng.normal(0, waves, (8, 3)), rng.uniform(0, 2 * np.pi, 8), rng.normal(0, 1, 8)
    shape = extract_mesh(
        lambda points: np.sin(points @ directions.T + phases) @ sizes + 0.5, CUBE, resolution=resolution
    )
    check_solid(shape)
    assert 0 < shape.volume < 8.1


@given(st.integers(0, 2**32 - 1), st.floats(0.01, 1), st.integers(2, 20))
@settings(max_examples=40)
def test_blends_of_balls_and_blocks_give_a_closed_mesh(seed, width, resolution):
    rng = np.random.default_rng(seed)
    parts = [ball(*rng.uniform(0.2, 0.9, 1), rng.uniform(-1, 1, 3)) for _ in range(3)]
    parts += [block(low, low + rng.uniform(0.1, 1, 3)) for low in rng.uniform(-1, 0.5, (3, 3))]
    parts.append(ball(1.8 / resolution))  # so that something is inside on any grid

    def logits(points):
        return width * np.log(sum(np.exp(part(points) / width) for part in parts))

    check_solid(extract_mesh(logits, CUBE, resolution=resolution))


def test_a_plane_through_grid_points_is_displaced_by_a_thousandth_of_a_cell():
    shape = extract_mesh(lambda points: -points[:, 2], CUBE, resolution=8)
    check_solid(shape)
    np.testing.assert_allclose(shape.bounds[1, 2], 0, atol=1.001 * MARGIN / 4)
    assert shape.euler_number == 2


def test_noise_gives_a_closed_mesh():
    check_solid(on_grid(np.random.default_rng(0).standard_normal((24, 24, 24)), resolution=23))


# --- what is refused


def test_nothing_inside_says_what_the_logits_were():
    with pytest.raises(ExtractionError, match=r"nothing is inside.*9 x 9 x 9.*-2\.\d+ to -0\.5"):
        extract_mesh(ball(-0.5), CUBE, resolution=8)
    with pytest.raises(ValueError, match="range from 0 to 0"):
        extract_mesh(lambda points: np.zeros(len(points)), CUBE, resolution=2)


def test_nan_is_refused_with_its_place():
    def logits(points):
        values = ball()(points)
        values[(points == [0.5, -0.5, 0.25]).all(axis=1)] = np.nan
        return values

    with pytest.raises(ExtractionError, match=re.escape("NaN at [0.5, -0.5, 0.25] (1 of")):
        extract_mesh(logits, CUBE, resolution=8)


@pytest.mark.parametrize(
    ("logits", "expected"),
    [
        (lambda points: points, r"shape \(27,\); between \[-1.*of shape \(27, 3\)"),
        (lambda points: np.ones((len(points), 1)), r"of shape \(27, 1\)"),
        (lambda points: 1.0, r"of shape \(\)"),
        (lambda points: np.ones(len(points), bool), "bool.*subtract 0.5"),
        (lambda points: np.ones(len(points), complex), "complex128"),
        (lambda points: None, "object"),
    ],
)
def test_results_that_are_no_logits_are_refused(logits, expected):
    with pytest.raises(ExtractionError, match=expected):
        extract_mesh(logits, CUBE, resolution=2)


@pytest.mark.parametrize("resolution", [0, -1, 2.5, "8", True, None])
def test_a_resolution_that_is_no_count_is_refused(resolution):
    with pytest.raises(ValueError, match="resolution must be a whole number"):
        extract_mesh(everywhere, CUBE, resolution=resolution)


@pytest.mark.parametrize(
    "bounds",
    [
        [[0, 0, 0], [1, 1, 0]],
        [[1, 1, 1], [0, 0, 0]],
        [[0, 0, 0], [1, np.inf, 1]],
        [[0, 0, np.nan], [1, 1, 1]],
        [0, 0, 0, 1, 1, 1],
    ],
)
def test_boxes_without_an_inside_are_refused(bounds):
    with pytest.raises(ValueError, match="bounds must be"):
        extract_mesh(everywhere, bounds, resolution=2)


def test_a_box_whose_cells_float64_cannot_tell_apart_is_refused():
    with pytest.raises(ValueError, match="too far from the origin"):
        extract_mesh(everywhere, CUBE + 1e14, resolution=64)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"method": "octree"}, 'must be "sparse" or "dense", got .octree'),
        ({"start": 0}, "start must be at least 1 cell"),
        ({"start": 2.5}, "start must be at least 1 cell"),
        ({"refine": -1}, "refine must be at least 0 steps"),
        ({"refine": True}, "refine must be at least 0 steps"),
        ({"tolerance": -1.0}, "tolerance must be a logit of at least 0"),
    ],
)
def test_unusable_options_are_refused(options, expected):
    with pytest.raises(ValueError, match=expected):
        extract_mesh(everywhere, CUBE, resolution=2, **options)


def test_chunks_without_points_are_refused():
    with pytest.raises(ValueError, match="chunk must be at least 1"):
        extract_mesh(everywhere, CUBE, resolution=2, chunk=0)


# --- memory


def test_a_grid_that_does_not_fit_is_refused_with_the_largest_that_does():
    def never(points):
        raise AssertionError("evaluated before the memory was checked")

    with pytest.raises(MemoryError, match=r"resolution 20000 needs 7.* GB, 0\.1 GB are") as caught:
        extract_mesh(never, CUBE, resolution=20_000, method="dense", max_memory=10**8)
    fits = int(re.search(r"that fits is (\d+)", str(caught.value))[1])
    assert memory_needed(CUBE, fits, method="dense") <= 10**8 < memory_needed(CUBE, fits + 1, method="dense")
    with pytest.raises(MemoryError, match=r"resolution 20000 needs .* GB, 1 GB are") as caught:
        extract_mesh(never, CUBE, resolution=20_000, max_memory=10**9)
    fits = int(re.search(r"that fits is (\d+)", str(caught.value))[1])
    assert fits > 800
    assert memory_needed(CUBE, fits) <= 10**9 < memory_needed(CUBE, fits + 1)
    with pytest.raises(MemoryError, match="no resolution fits"):
        extract_mesh(never, CUBE, resolution=100, max_memory=1000)


def test_a_grid_larger_than_the_machine_is_refused():
    with pytest.raises(MemoryError, match="GB are available"):
        extract_mesh(everywhere, CUBE, resolution=10**6)


def test_a_surface_too_rough_to_fit_is_refused():
    noise = np.random.default_rng(0).standard_normal((40, 40, 40))
    needed = memory_needed([[0, 0, 0], [39, 39, 39]], 39)
    with pytest.raises(MemoryError, match="rough"):
        on_grid(noise, resolution=39, max_memory=needed)
    extract_mesh(ball(), CUBE, resolution=39, max_memory=needed)


@pytest.mark.parametrize("method", ["dense", "sparse"])
def test_memory_needed_grows_with_the_grid(method):
    needed = [memory_needed(CUBE, n, method=method) for n in (1, 2, 64, 256, 512, 1024)]
    assert needed == sorted(needed)
    assert (needed[-2] > 8 * 513**3) == (method == "dense")
    assert memory_needed([[0, 0, 0], [1, 1, 0.1]], 256, method=method) < needed[-3] * 0.7


def test_a_sparse_surface_too_rough_to_fit_is_refused_with_about_what_does():
    needed = memory_needed(CUBE, 256)
    with pytest.raises(MemoryError, match=r"rough.*largest resolution that fits is about \d+") as caught:
        extract_mesh(lambda points: np.sin(40 * points).sum(axis=1), CUBE, resolution=256, max_memory=needed)
    assert 10 < int(re.search(r"about (\d+)", str(caught.value))[1]) < 256


def test_a_large_surface_takes_the_memory_worked_out():
    """A gyroid in a ball, some 1.2 surfaces of the box at 400: the process's peak above what its imports take."""
    code = """
import resource, numpy as np
from ff3d.surfaces.extraction import extract_mesh, memory_needed
from ff3d.shapes.solids import SOLIDS
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
def logits(points):
    s, c = np.sin(5 * points), np.cos(5 * points)
    wall = 0.3 - np.abs((s * np.roll(c, 1, axis=1)).sum(axis=1))
    return np.minimum(wall, 0.48 - np.linalg.norm(points - 0.5, axis=1))
extract_mesh(logits, [[0, 0, 0], [1, 1, 1]], resolution=8)
before = peak()
shape = extract_mesh(logits, [[0, 0, 0], [1, 1, 1]], resolution=400)
used = peak() - before
print(used, memory_needed([[0, 0, 0], [1, 1, 1]], 400), len(shape.vertices), shape.metadata["evaluations"])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    used, needed, vertices, evaluations = (int(it) for it in done.stdout.split())
    assert used < needed * max(1, vertices / (3 * 400**2)) * 1.2
    assert evaluations < 401**3 / 15
