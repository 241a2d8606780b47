import re

import numpy as np
import psutil
import pytest
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ff3d.extraction import MARGIN, ExtractionError, available_memory, extract_mesh, memory_needed

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
def test_cells_are_cubes_and_no_point_outside_the_box_is_asked_about(sides):
    asked = []

    def logits(points):
        asked.append(points)
        return np.ones(len(points))

    extract_mesh(logits, [[0, 0, 0], sides], resolution=10, chunk=50)
    points = np.concatenate(asked)
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


def test_progress_is_shown_when_asked_for(capsys):
    extract_mesh(ball(), CUBE, resolution=8)
    assert capsys.readouterr().err == ""
    extract_mesh(ball(), CUBE, resolution=8, progress=True)
    assert "100%" in capsys.readouterr().err


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
def test_answers_that_are_no_logits_are_refused(logits, expected):
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


def test_chunks_without_points_are_refused():
    with pytest.raises(ValueError, match="chunk must be at least 1"):
        extract_mesh(everywhere, CUBE, resolution=2, chunk=0)


# --- memory


def test_a_grid_that_does_not_fit_is_refused_with_the_largest_that_does():
    def never(points):
        raise AssertionError("asked before the memory was looked at")

    with pytest.raises(MemoryError, match=r"resolution 20000 needs 7.* GB, 0\.1 GB are") as caught:
        extract_mesh(never, CUBE, resolution=20_000, max_memory=10**8)
    fits = int(re.search(r"that fits is (\d+)", str(caught.value))[1])
    assert memory_needed(CUBE, fits) <= 10**8 < memory_needed(CUBE, fits + 1)
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


def test_memory_needed_grows_with_the_grid():
    needed = [memory_needed(CUBE, n) for n in (1, 2, 64, 128, 256, 512)]
    assert needed == sorted(needed)
    assert needed[-1] > 8 * 513**3
    assert memory_needed([[0, 0, 0], [1, 1, 0.1]], 256) < needed[-2] / 3


def test_the_memory_available_is_that_of_the_control_group_where_it_is_less(tmp_path):
    machine = psutil.virtual_memory().available
    assert available_memory(tmp_path) == pytest.approx(machine, rel=0.2)
    (tmp_path / "memory.current").write_text("5000000\n")
    (tmp_path / "memory.stat").write_text("anon 3000000\ninactive_file 1500000\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert available_memory(tmp_path) == pytest.approx(machine, rel=0.2)
    (tmp_path / "memory.max").write_text("8000000\n")
    assert available_memory(tmp_path) == 4_500_000
    (tmp_path / "memory.max").write_text("1000\n")
    assert available_memory(tmp_path) == 0
