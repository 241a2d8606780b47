import warnings

import numpy as np
import pytest
import trimesh
from hypothesis import given
from hypothesis import strategies as st

from ff3d.geometry.coordinates import UnitCube
from ff3d.labels.oracles import make_oracle
from ff3d.lattices.codec import Decoder, encoded, grow
from ff3d.lattices.lattice import OCTANT_SLOTS, OCTANTS, ROOT_STEPS, SLOTS, Frame, Growth, Lattice, Nodes
from ff3d.points.lattice_sampling import SignedDistance, root_numbers, sample


def grown(frame, distance):
    """The lattice of a function of unit points."""
    root = root_numbers(frame, distance(frame.points(frame.root_corners(), 0)))
    growth = Growth(frame, root * (2 * frame.steps // ROOT_STEPS))
    for level in range(1, frame.levels + 1):
        nodes = growth.halve()
        value = distance(frame.points(nodes.place, level)) if len(nodes.slot) else np.zeros(0)
        growth.add(np.rint(value / frame.step(level)).astype(np.int64))
    return growth.lattice()


def by_cells(lattice: Lattice, point):
    """The slow twin of a query: down from the root, cell by cell, and eight numbers in the last one."""
    frame = lattice.frame
    place = (np.asarray(point) - frame.lower) / frame.side
    cell = np.floor(place).astype(int)
    if not ((cell >= 0) & (cell < frame.shape)).all():
        return None
    share = place - cell
    root = lattice.root.reshape(frame.shape + 1)
    corners = np.array([root[tuple(cell + octant)] for octant in OCTANTS])
    number, level = int(np.ravel_multi_index(cell, frame.shape)), 0
    x, y, z = frame.shape
    cells = [root[i : i + x, j : j + y, k : k + z].reshape(-1) for i, j, k in OCTANTS]
    halved = frame.halved(np.sum(cells, axis=0), 0)
    block = int(np.count_nonzero(halved[:number])) if frame.levels and halved[number] else -1
    while block >= 0:
        upper = share >= 0.5
        octant = int(upper @ [4, 2, 1])
        corners = lattice.blocks[level][block, OCTANT_SLOTS[octant]].astype(int)
        share = 2 * share - upper
        block = int(lattice.children[level][block, octant]) if level + 1 < frame.levels else -1
        level += 1
    weights = np.where(OCTANTS, share, 1 - share).prod(axis=1)
    return weights @ corners * frame.step(level)


def ball(radius, center=(0.5, 0.5, 0.5)):
    return lambda points: radius - np.linalg.norm(points - np.array(center), axis=1)


@pytest.mark.parametrize("cells", [8, 20, 48, 97, 200])
def test_a_query_finds_what_walking_down_the_cells_finds(cells):
    frame = Frame.around(np.array([[0.1, 0.2, 0.15], [0.9, 0.8, 0.85]]), cells, 16)
    lattice = grown(frame, ball(0.3))
    points = np.random.default_rng(0).uniform(-0.1, 1.1, (400, 3))
    points[:200] = 0.5 + 0.3 * (points[:200] - 0.5) / np.linalg.norm(points[:200] - 0.5, axis=1)[:, None]
    found = lattice(points)
    for point, value in zip(points, found, strict=True):
        expected = by_cells(lattice, point)
        assert value == pytest.approx(-frame.side if expected is None else expected, abs=1e-6)


@given(st.integers(0, 2**32 - 1), st.integers(1, 3), st.floats(0.02, 1))
def test_nodes_are_those_that_sorting_all_corners_finds(seed, level, share):
    frame = Frame(np.zeros(3), 0.1, np.array([3, 2, 4]), 3, 4)
    rng = np.random.default_rng(seed)
    count = frame.shape << (level - 1)
    cells = np.stack(np.unravel_index(rng.permutation(count.prod()), tuple(count)), axis=1)
    blocks = cells[: max(1, int(share * len(cells)))]
    nodes = Nodes.of(frame, blocks, level)
    keys = frame.keys(2 * blocks[:, None] + SLOTS, level)
    unique, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    assert np.array_equal(frame.keys(nodes.place, level), unique)
    assert np.array_equal(nodes.of_block, inverse.reshape(-1, 27))
    assert np.array_equal(27 * nodes.owner + nodes.slot, first)


def test_a_plane_is_exact_but_for_rounding():
    frame = Frame.around(np.array([[0.1, 0.1, 0.1], [0.9, 0.9, 0.9]]), 64, 32)
    normal = np.array([2.0, -1, 2]) / 3
    lattice = grown(frame, lambda points: (points - 0.5) @ normal)
    points = np.random.default_rng(1).uniform(0.2, 0.8, (5000, 3))
    height = (points - 0.5) @ normal
    near = np.abs(height) < frame.cell
    assert np.abs(lattice(points)[near] - height[near]).max() <= frame.step(frame.levels)


def test_errors_of_a_ball_fall_with_the_square_of_the_cells():
    points = np.random.default_rng(2).standard_normal((4000, 3))
    points = 0.5 + 0.3 * points / np.linalg.norm(points, axis=1)[:, None]
    errors = []
    for cells in (32, 64, 128):
        frame = Frame.around(np.array([[0.2] * 3, [0.8] * 3]), cells, 64)
        errors.append(np.abs(grown(frame, ball(0.3))(points)).max())
        # a chord's sagitta over a cell's three directions: 3 h^2 / (8 r) at most, and the rounding
        assert errors[-1] <= 3 / (8 * 0.3 * cells**2) * 1.5 + frame.step(frame.levels)
    assert errors[2] < errors[1] < errors[0]


@given(
    st.integers(8, 40),
    st.sampled_from([1, 4, 24]),
    st.tuples(*[st.floats(0.3, 0.7)] * 3),
    st.floats(0.05, 0.25),
    st.floats(0.0, 0.05),
)
def test_what_is_encoded_decodes_number_for_number(cells, steps, center, radius, ripple):
    def distance(points):
        return ball(radius, center)(points) + ripple * np.sin(40 * points).sum(axis=1)

    lattice = grown(Frame.around(np.array([[0.1] * 3, [0.9] * 3]), cells, steps), distance)
    again = grow(lattice.frame, Decoder(encoded(lattice), lattice.numbers))
    assert np.array_equal(again.root, lattice.root)
    assert all(np.array_equal(a, b) for a, b in zip(again.blocks, lattice.blocks, strict=True))
    assert all(np.array_equal(a, b) for a, b in zip(again.children, lattice.children, strict=True))


def test_changed_bytes_are_refused_or_make_a_lattice_that_is_no_larger():
    lattice = grown(Frame.around(np.array([[0.1] * 3, [0.9] * 3]), 32, 4), ball(0.3))
    data, rng, refused = encoded(lattice), np.random.default_rng(3), 0
    for _ in range(60):
        changed = data.copy()
        changed[rng.integers(0, len(data), 3)] = rng.integers(0, 256, 3)
        changed = changed[: 4 * rng.integers(1, len(data) // 4 + 1)] if rng.random() < 0.3 else changed
        try:
            found = grow(lattice.frame, Decoder(changed, lattice.numbers))
        except (ValueError, AssertionError):
            refused += 1
        else:
            assert found.numbers <= 2 * lattice.numbers
            assert np.isfinite(found(rng.uniform(0, 1, (50, 3)))).all()
    assert refused < 60


def test_signs_at_the_corners_are_those_of_the_labels():
    mesh = trimesh.util.concatenate(
        [
            trimesh.creation.icosphere(2, 0.3),
            trimesh.creation.box((0.9, 0.9, 0.004)),
            trimesh.creation.box((0.01, 0.8, 0.3)),
        ]
    )
    oracle = make_oracle(mesh)
    cube = UnitCube.padded(mesh.vertices)
    lattice, samples = sample(SignedDistance(mesh, oracle, cube), Frame.around(cube.to_unit(mesh.bounds), 90, 16))
    frame, checked = lattice.frame, 0
    for level, (keys, values) in enumerate(zip(samples.keys, samples.values, strict=True)):
        _, y, z = (frame.shape << level) + 1
        place = np.stack([keys // (y * z), keys // z % y, keys % z], axis=1)
        sure = np.abs(values) > 1e-5
        assert np.array_equal(values[sure] > 0, oracle(cube.from_unit(frame.points(place, level)))[sure])
        checked += int(sure.sum())
    assert checked > 10_000


@pytest.mark.parametrize(("lower", "side"), [(1e308, 0.1), (0.0, 1e-300), (0.0, 1e300), (np.nan, 0.1), (0.0, np.inf)])
def test_a_frame_beyond_all_measure_is_refused_before_anything_overflows(lower, side):
    Frame(np.zeros(3), 0.1, np.array([3, 2, 4]), 3, 4).check()
    with pytest.raises(ValueError, match="a lattice at"):
        Frame(np.full(3, lower), side, np.array([3, 2, 4]), 3, 4).check()


def test_what_lies_beyond_all_measure_is_outside_without_a_warning():
    frame = Frame(np.zeros(3), 0.1, np.array([3, 2, 4]), 1, 4)
    lattice = grown(frame, lambda points: 0.1 - np.linalg.norm(points - 0.15, axis=1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert (lattice(np.array([[1e308, 0.1, 0.1], [-np.inf, 0.1, 0.1], [0.1, 0.1, 9.0]])) < 0).all()
