import json
import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from ff3d.fields.config import GRID_DEFAULTS, GRID_MAPPINGS
from ff3d.fields.feature_grids import AXES, MAX_PARAMETERS, PRIMES, GridMapping, plain_lookup

SMALL = {
    "grid": {"levels": 3, "coarsest": 2, "finest": 8, "features_per_level": 3},
    "hash": {"levels": 4, "coarsest": 3, "finest": 24, "features_per_level": 2, "log2_table": 7},
    "planes": {"levels": 3, "coarsest": 2, "finest": 8, "features_per_level": 3},
}
CORNERS = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 3)


def small(name: str, seed: int = 0, **settings: int) -> GridMapping:
    """A mapping whose table is N(0, 1)."""
    mapping = GridMapping(name, **SMALL[name] | settings)
    with torch.no_grad():
        mapping.table.normal_(generator=torch.Generator().manual_seed(seed))
    return mapping


def points(count: int, seed: int = 0) -> Tensor:
    """Points of the cube and a little outside it, of its faces and of its corners."""
    drawn = torch.rand(count, 3, generator=torch.Generator().manual_seed(seed)) * 1.2 - 0.1
    on_a_face = torch.rand(count, 3, generator=torch.Generator().manual_seed(seed + 1))
    on_a_face[torch.arange(count), torch.arange(count) % 3] = (torch.arange(count) % 2).float()
    return torch.cat([drawn, on_a_face, CORNERS])


def inside(count: int) -> Tensor:
    """Points of the cube."""
    return torch.rand(count, 3, generator=torch.Generator().manual_seed(2))


def vertices(size: int, axes: int) -> Tensor:
    """Where a grid's vertices are, in the order of their rows: the first coordinate runs fastest."""
    return torch.cartesian_prod(*[torch.arange(size + 1) / size] * axes).reshape(-1, axes).flip(1)


def parts(mapping: GridMapping) -> list[tuple[int, tuple[int, ...], Tensor]]:
    """Each grid's resolution, its axes and its rows of the table, to be written to."""
    grids = [(size, axes) for size in mapping.resolutions for axes in AXES[mapping.name]]
    ends = [*mapping.offsets.tolist()[1:], len(mapping.table)]
    rows = [mapping.table.data[a:b] for a, b in zip(mapping.offsets.tolist(), ends, strict=True)]
    return [(size, axes, part) for (size, axes), part in zip(grids, rows, strict=True)]


def test_grids_that_hold_an_affine_function_reproduce_it():
    mapping = GridMapping("grid", levels=3, coarsest=3, finest=17, features_per_level=2)
    slope, start = torch.tensor([[2.0, -1.0], [0.5, 3.0], [-4.0, 0.25]]), torch.tensor([0.5, -1.0])
    for size, axes, rows in parts(mapping):
        rows[:] = vertices(size, len(axes)) @ slope + start
    x = inside(500)
    torch.testing.assert_close(mapping(x), (x @ slope + start).repeat(1, 3), rtol=0, atol=1e-5)


def test_planes_that_hold_affine_functions_give_their_product():
    mapping = GridMapping("planes", levels=2, coarsest=4, finest=9, features_per_level=1)
    slope = {(0, 1): [1.0, 2.0], (0, 2): [-1.0, 3.0], (1, 2): [0.5, 0.5]}
    for size, axes, rows in parts(mapping):
        rows[:] = (vertices(size, 2) @ torch.tensor(slope[axes]) + 1)[:, None]
    x = inside(500)
    expected = torch.stack([x[:, axes] @ torch.tensor(slope[axes]) + 1 for axes in slope]).prod(dim=0)
    torch.testing.assert_close(mapping(x), expected[:, None].repeat(1, 2), rtol=0, atol=1e-5)


def test_the_feature_at_a_vertex_is_its_row():
    mapping = small("grid")
    channels = mapping.table.shape[1]
    for level, (size, _, rows) in enumerate(parts(mapping)):
        found = mapping(vertices(size, 3))[:, level * channels : (level + 1) * channels]
        torch.testing.assert_close(found, rows, rtol=0, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", GRID_MAPPINGS)
@given(seed=st.integers(0, 1000), count=st.integers(0, 300))
def test_the_fast_lookup_and_its_gradient_are_those_of_the_slow_one(name, seed, count):
    mapping, x = small(name, seed), points(count, seed)
    slow = plain_lookup(mapping.table, *mapping.corners(x))
    features = mapping(x.clone().requires_grad_())  # points that ask for a gradient go the slow way
    weight = torch.randn(features.shape, generator=torch.Generator().manual_seed(seed))
    (expected,) = torch.autograd.grad((features * weight).sum(), mapping.table)
    (gradient,) = torch.autograd.grad((mapping(x) * weight).sum(), mapping.table)
    torch.testing.assert_close(mapping(x), features, rtol=0, atol=1e-5)
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-4)
    assert slow.shape == (len(mapping.offsets), len(x), mapping.table.shape[1])


@pytest.mark.parametrize("name", GRID_MAPPINGS)
def test_no_points_have_no_features(name):
    mapping = small(name)
    features = mapping(torch.zeros(0, 3))
    assert features.shape == (0, mapping.features)
    assert mapping.encode(torch.zeros(0, 3), torch.bfloat16).shape == (0, mapping.features)
    (gradient,) = torch.autograd.grad(features.sum(), mapping.table)
    assert not gradient.any()


@pytest.mark.parametrize("name", GRID_MAPPINGS)
def test_outside_the_cube_a_point_has_the_nearest_point_s_features_and_no_gradient(name):
    mapping = small(name)
    x = torch.tensor([[1.5, 0.3, 0.4], [-0.2, 0.3, 0.4], [0.3, 7.0, -7.0]], requires_grad=True)
    features = mapping(x)
    assert torch.equal(features, mapping(x.detach().clamp(0, 1).requires_grad_()))
    (gradient,) = torch.autograd.grad(features.sum(), x)
    assert torch.equal(gradient == 0, (x < 0) | (x > 1))


@pytest.mark.parametrize("name", GRID_MAPPINGS)
def test_a_coordinate_that_is_no_number_gives_features_that_are_none(name):
    assert small(name)(torch.tensor([[0.5, float("nan"), 0.5]])).isnan().any()


def test_hashed_rows_are_the_paper_s_formula_in_whole_numbers_of_any_size():
    mapping = GridMapping("hash", levels=3, coarsest=200, finest=60_000, log2_table=10)
    x = points(50)
    rows, _ = mapping.corners(x)
    for grid, size in enumerate(mapping.resolutions):
        cells = (x.clamp(0, 1) * size).int().clamp(max=size - 1)
        for corner, shift in enumerate(CORNERS.int()):
            for cell, row in zip((cells + shift).tolist(), rows[corner, grid].tolist(), strict=True):
                i, j, k = (place * prime for place, prime in zip(cell, PRIMES, strict=True))
                assert row == grid * 2**10 + (i ^ j ^ k) % 2**10


def test_levels_are_hashed_only_where_their_vertices_outnumber_the_rows():
    mapping = small("hash")
    assert mapping.resolutions == [24, 12, 6, 3]
    assert mapping.offsets.tolist() == [0, 128, 256, 384]
    assert mapping.table.shape == (3 * 128 + 4**3, 2)
    whole = GridMapping("hash", **SMALL["hash"] | {"log2_table": 14})
    plain = GridMapping("grid", levels=4, coarsest=3, finest=24, features_per_level=2)
    assert torch.equal(whole.corners(points(100))[0], plain.corners(points(100))[0])


@pytest.mark.parametrize("name", GRID_MAPPINGS)
def test_every_row_read_lies_in_its_own_grid_and_weights_sum_to_one(name):
    mapping = small(name)
    rows, weights = mapping.corners(points(1000))
    for grid, (start, (_, _, part)) in enumerate(zip(mapping.offsets.tolist(), parts(mapping), strict=True)):
        assert start <= rows[:, grid].min()
        assert rows[:, grid].max() < start + len(part)
    assert weights.min() >= 0
    torch.testing.assert_close(weights.sum(dim=0), torch.ones(weights.shape[1:]), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", GRID_MAPPINGS)
def test_the_gradient_to_the_points_is_the_slope_between_neighbours(name):
    mapping = small(name, levels=2, coarsest=4, finest=8)  # a cell of one lies in a cell of the other
    cells = torch.randint(0, 8, (64, 3), generator=torch.Generator().manual_seed(0))
    x = ((cells + 0.25 + 0.5 * inside(64)) / 8).requires_grad_()
    weight = torch.randn(mapping.features, generator=torch.Generator().manual_seed(1))
    (gradient,) = torch.autograd.grad((mapping(x) @ weight).sum(), x)
    steps = 0.02 * torch.eye(3)
    with torch.no_grad():
        slopes = torch.stack([(mapping(x + step) - mapping(x - step)) @ weight / 0.04 for step in steps], dim=1)
    torch.testing.assert_close(gradient, slopes, rtol=0, atol=2e-3)


@pytest.mark.parametrize("name", GRID_MAPPINGS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_encode_gives_the_same_features_without_a_gradient(name, dtype):
    mapping, x = small(name), points(17_000)
    encoded = mapping.encode(x, dtype)
    assert encoded.dtype == dtype
    assert not encoded.requires_grad
    assert torch.equal(encoded, mapping(x).detach().to(dtype))
    assert encoded.shape == (len(x), mapping.features)


@pytest.mark.parametrize("name", GRID_MAPPINGS)
def test_tables_depend_on_the_seed_alone(name):
    table = GridMapping(name, **SMALL[name], seed=7).table
    assert torch.equal(table, GridMapping(name, **SMALL[name], seed=7).table)
    assert not torch.equal(table, GridMapping(name, **SMALL[name], seed=8).table)
    low, high = (0.1, 0.5) if name == "planes" else (-1e-4, 1e-4)
    assert low <= table.min() < table.max() <= high


@pytest.mark.parametrize("name", GRID_MAPPINGS)
def test_settings_and_the_table_are_the_whole_mapping(name):
    mapping, x = small(name), points(100)
    again = GridMapping(name, seed=5, **json.loads(json.dumps(mapping.settings)))
    assert list(mapping.state_dict()) == ["table"]
    again.load_state_dict(mapping.state_dict())
    assert torch.equal(again(x), mapping(x))


@pytest.mark.parametrize("name", GRID_MAPPINGS)
def test_unnamed_settings_are_the_defaults(name):
    mapping = GridMapping(name)
    assert mapping.settings == GRID_DEFAULTS[name]
    assert mapping.resolutions[0] == mapping.settings["finest"]
    assert mapping.resolutions[-1] == mapping.settings["coarsest"]
    assert (mapping.dimension, mapping(inside(5)).shape) == (3, (5, mapping.features))


@pytest.mark.wrong_types
@pytest.mark.parametrize(
    ("name", "settings", "says"),
    [
        ("octree", {}, "known: grid, hash, planes"),
        ("grid", {"log2_table": 16}, "unknown setting log2_table of grid; known: levels, coarsest"),
        ("grid", {"levels": 0}, "levels must be a whole number from 1 to 32, got 0"),
        ("grid", {"levels": 10**9}, "levels must be a whole number"),
        ("grid", {"features_per_level": 4.0}, "features_per_level must be a whole number"),
        ("grid", {"features_per_level": True}, "features_per_level must be a whole number"),
        ("hash", {"finest": "512"}, "finest must be a whole number"),
        ("hash", {"log2_table": 62}, "log2_table must be a whole number from 1 to 24"),
        ("hash", {"coarsest": 1024}, "coarsest must be at most finest"),
        ("hash", {"levels": 1}, "equal to it with one level"),
        ("grid", {"levels": 32, "finest": 2**16}, f"at most {MAX_PARAMETERS:,}"),
        ("hash", {"levels": 32, "finest": 2**16, "log2_table": 24, "features_per_level": 64}, "at most"),
        ("planes", {"levels": 32, "finest": 2**16}, "at most"),
    ],
)
def test_wrong_settings_say_what_is_right(name, settings, says):
    with pytest.raises(ValueError, match=re.escape(says)):
        GridMapping(name, **settings)


@pytest.mark.parametrize("name", ["grid", "hash"])
def test_in_the_plane_they_are_what_they_are_in_a_layer_of_space(name):
    flat, deep = (GridMapping(name, dimension=d, levels=2, coarsest=3, finest=7, features_per_level=2) for d in (2, 3))
    with torch.no_grad():
        flat.table.normal_(generator=torch.Generator().manual_seed(0))
    for size, start, below in zip(flat.resolutions, flat.offsets.tolist(), deep.offsets.tolist(), strict=True):
        layer = (size + 1) ** 2
        deep.table.data[below : below + layer] = flat.table.data[start : start + layer]
    x = points(200)[:, :2]
    at_the_bottom = torch.cat([x, torch.zeros(len(x), 1)], dim=1)
    torch.testing.assert_close(flat(x), deep(at_the_bottom))
    assert (flat.dimension, deep.dimension) == (2, 3)


@pytest.mark.parametrize(("name", "dimension"), [("planes", 2), ("hash", 1), ("grid", 4)])
def test_tables_of_other_dimensions_are_refused(name, dimension):
    with pytest.raises(ValueError, match=f"{name} takes no points of dimension {dimension}"):
        GridMapping(name, dimension=dimension)
