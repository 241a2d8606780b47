import numpy as np
import pytest
import trimesh

import ff3d
from ff3d.fields.config import Budget, MappingConfig
from ff3d.fitting import train
from ff3d.geometry.coordinates import UnitCube
from ff3d.labels.oracles import make_oracle
from ff3d.lattices.lattice import Frame, Growth
from ff3d.points.lattice_fit import fit_lattice
from ff3d.points.lattice_sampling import SignedDistance, sample
from ff3d.points.lattice_solving import fitted_to, solved
from ff3d.settings import make_config

TORUS = trimesh.creation.torus(0.3, 0.12, 48, 24)
CUBE = UnitCube.padded(TORUS.vertices)


@pytest.fixture(scope="module")
def distance():
    return SignedDistance(TORUS, make_oracle(TORUS), CUBE)


def boundary_error(lattice, distance):
    """The mean size of the lattice's function on the surface, units."""
    points, _ = trimesh.sample.sample_surface(TORUS, 4000, seed=1)
    return float(np.abs(lattice(CUBE.to_unit(points))).mean())


@pytest.mark.slow
def test_numbers_solved_for_lie_nearer_to_the_surface_than_sampled_ones_in_as_many_bytes(distance):
    box = CUBE.to_unit(TORUS.bounds)
    errors = {}
    for name in ("voxels", "lattice"):
        lattice = fit_lattice(distance, box, MappingConfig(name), Budget(bytes=4_000))
        errors[name] = boundary_error(lattice, distance)
    assert errors["lattice"] < 0.8 * errors["voxels"]


def test_a_shape_is_solved_for_the_same_way_each_time(distance):
    first, again = (solved(distance, CUBE.to_unit(TORUS.bounds), 24, seed=0) for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(first.blocks, again.blocks, strict=True))


def test_the_largest_that_fits_is_taken():
    tried = []

    def make(cells):
        tried.append(cells)
        return cells, np.zeros(cells**2, dtype=np.uint8)

    lattice, data = fitted_to(40_000, make)
    assert 0.9 * 40_000 <= len(data) <= 40_000
    assert lattice in tried
    with pytest.raises(ValueError, match="the shape takes more than 100 bytes; give more"):
        fitted_to(100, make)
    bolder = fitted_to(400, lambda cells: (cells, bytes(500)), lambda factor: (2, bytes(int(500 / factor))))
    assert bolder[0] == 2


@pytest.mark.parametrize(("size", "expected"), [(3500, range(32, 34)), (3900, range(32, 37)), (6500, [64])])
def test_bytes_that_fall_where_a_level_comes_do_not_mislead(size, expected):
    cells = [20, 25, 27, 30, 31, 32, 34, 38, 42, 46, 52, 63, 64]
    taken = [1812, 2984, 3400, 4440, 4700, 3300, 3580, 4132, 4752, 6200, 7780, 9000, 6128]  # a bracket's, and between
    lattice, _ = fitted_to(size, lambda count: (count, bytes(int(np.interp(count, cells, taken)))))
    assert lattice in expected


@pytest.mark.parametrize("mapping", ["voxels", "lattice"])
def test_a_field_fits_into_its_bytes_and_is_the_same_when_loaded(tmp_path, mapping):
    field = ff3d.fit(TORUS, mapping, bytes="4k")
    field.save(tmp_path / "field.safetensors")
    assert 1_500 < (tmp_path / "field.safetensors").stat().st_size <= 4_000
    again = ff3d.load_field(tmp_path / "field.safetensors")
    points = np.random.default_rng(0).uniform(*field.bounds, (20_000, 3))
    assert np.array_equal(field.logits(points), again.logits(points))
    inside = make_oracle(TORUS)(points)
    found = again.contains(points)
    assert (found & inside).sum() / (found | inside).sum() > 0.97


def test_the_mesh_of_a_lattice_is_closed_and_has_the_volume_of_the_shape():
    mesh = ff3d.fit(TORUS, "voxels", finest=96).extract_mesh(96)
    assert mesh.is_watertight
    assert mesh.volume == pytest.approx(TORUS.volume, rel=4e-3)


def test_as_many_cells_as_the_seconds_allow():
    coarse, fine = (ff3d.fit(TORUS, seconds=seconds) for seconds in (0.05, 3.0))
    assert coarse.lattice.frame.cell > fine.lattice.frame.cell


def test_a_scan_which_has_no_distances_is_fitted_by_a_network():
    points, faces = trimesh.sample.sample_surface(TORUS, 500, seed=0)
    cloud = ff3d.PointCloud(np.asarray(points), TORUS.face_normals[faces])
    result = train(cloud, make_config("direct", steps=2, seed=3, device="cpu"), held_out={})
    assert (result.config.mapping.name, result.config.budget.steps, result.config.seed) == ("hash", 2, 3)
    assert "a point cloud has no distances between its points: fitted by a network, the preset fast" in result.notes
    given = train(cloud, make_config("direct", steps=2, device="cpu"), oracle=lambda points: points[:, 0] > 0)
    assert (given.config.mapping.name, given.config.sampling.target) == ("hash", "occupancy")


def test_parts_thinner_than_a_cell_do_not_hide_those_beside_them():
    plate = trimesh.creation.box((1.0, 1.0, 0.001))
    ball = trimesh.creation.icosphere(3, 0.2).apply_translation([0, 0, 0.3])
    field = ff3d.fit(trimesh.util.concatenate([plate, ball]), "voxels", finest=64)
    assert field.contains([[0, 0, 0.3], [0, 0, 0.45]]).all()
    assert not field.contains([[0.4, 0.4, 0.3], [0, 0, 0.05]]).any()


@pytest.mark.slow
@pytest.mark.parametrize(("parts", "holed"), [(1, False), (3, False), (2, True)])
def test_signs_that_were_not_queried_are_those_of_the_oracle(parts, holed):
    boxes = [trimesh.creation.box((1, 0.37, 0.61)) for _ in range(parts)]
    for number, box in enumerate(boxes):
        box.apply_translation((0.3 * number, 0.21 * number, 0))
    mesh = trimesh.util.concatenate(boxes)  # their overlaps hide walls
    if holed:
        mesh = mesh.subdivide_to_size(0.1)
        mesh.update_faces(np.arange(len(mesh.faces)) % 501 > 0)
    cube = UnitCube((0.0, 0.0, 0.0), 12.0)  # a small part of the unit cube: as fine as a large lattice, and quick
    queried, oracle = 0, make_oracle(mesh)

    class Counted:
        caps = oracle.caps

        def __call__(self, points):
            nonlocal queried
            queried += len(points)
            return oracle(points)

    distance = SignedDistance(mesh, Counted(), cube)
    queried = 0
    frame = Frame.around(cube.to_unit(mesh.bounds), 1300, 24)
    _, samples = sample(distance, frame)
    assert queried < 0.5 * sum(map(len, samples.keys))
    _, y, z = (frame.shape << frame.levels) + 1
    key, value = samples.keys[-1], samples.values[-1]
    place = np.stack([key // (y * z), key // z % y, key % z], axis=1)
    clear = np.abs(value) > 1e-6
    inside = oracle(cube.from_unit(frame.points(place, frame.levels)))
    assert np.array_equal(inside[clear], value[clear] > 0)


@pytest.mark.slow
def test_no_number_further_than_half_a_cell_from_the_surface_has_the_wrong_sign():
    bumpy = trimesh.creation.icosphere(5)
    bumpy.vertices *= 1 + 0.05 * np.sin(25 * bumpy.vertices).prod(axis=1, keepdims=True)
    cube = UnitCube.padded(bumpy.vertices)
    distance = SignedDistance(bumpy, make_oracle(bumpy), cube)
    lattice = solved(distance, cube.to_unit(bumpy.bounds), 100)
    frame, growth = lattice.frame, Growth(lattice.frame, lattice.root)
    for level, block in enumerate(lattice.blocks, 1):
        nodes = growth.halve()
        numbers = block[nodes.owner, nodes.slot].astype(np.int64)
        growth.add(numbers)
        true = distance(frame.points(nodes.place, level), 1 / 64)
        far = np.abs(true) > 0.55 * frame.side / 2**level
        assert np.array_equal(numbers[far] > 0, true[far] > 0)


def test_no_sign_is_queried_on_the_surface_itself():
    box = trimesh.creation.box([0.5, 0.5, 0.5])
    cube = UnitCube(tuple(box.bounds.mean(axis=0)), 1.0)
    distance = SignedDistance(box, make_oracle(box), cube)
    queried, label = [], distance.inside
    distance.inside = lambda points: (queried.append(points), label(points))[1]
    # its planes hold four of the box's faces
    frame = Frame(np.array([0.1201, 0.125, 0.125]), 0.125, np.full(3, 6), levels=3, steps=24)
    lattice, _ = sample(distance, frame)
    _, *later = queried  # than the root's corners
    beyond = np.abs(cube.from_unit(np.concatenate(later))) - 0.25
    nearest = np.abs(np.linalg.norm(np.maximum(beyond, 0), axis=1) + np.minimum(beyond.max(axis=1), 0))
    assert len(nearest) > 10
    assert nearest.min() > 1e-5
    points = np.random.default_rng(0).uniform(0.2, 0.8, (10_000, 3))
    depth = 0.25 - np.abs(points - 0.5).max(axis=1)
    sure = np.abs(depth) > frame.cell
    assert np.array_equal(lattice(points)[sure] > 0, depth[sure] > 0)
