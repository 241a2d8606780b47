import json
import lzma
import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from ff3d.fields.config import GRID_MAPPINGS
from ff3d.fields.field import FAR_LOGIT, LARGEST, OUTSIDE_LOGIT, OccupancyField, load_field
from ff3d.fields.field_file import SQUEEZE, FieldError
from ff3d.fields.mapping import MAPPINGS, make_mapping
from ff3d.fields.network import ACTIVATIONS, Network, best_device, best_precision
from ff3d.fields.quantization import STORAGES
from ff3d.geometry.coordinates import UnitCube
from ff3d.geometry.surface_cells import INSIDE, OUTSIDE, TOUCHED, SurfaceCells

BOX = [[-1.0, -2.0, 3.0], [1.0, 2.0, 4.0]]
CUBE = UnitCube((0.0, 0.0, 3.5), 5.0)


TABLES = {"levels": 3, "coarsest": 4, "finest": 16, "features_per_level": 2}
SURFACE = SurfaceCells(
    np.array([0.2, -0.1, 0.3]), 0.1, np.random.default_rng(0).integers(4, size=(7, 13, 5), dtype="u1")
)


def squeezed(labels):
    return lzma.compress(labels, lzma.FORMAT_RAW, filters=SQUEEZE)


def make_field(mapping="gaussian", **settings):
    table = TABLES if mapping in GRID_MAPPINGS else {}
    settings = {"width": 32, "depth": 2, "cube": CUBE, "bounds": BOX, "source": {"name": "box.obj"}} | settings
    return OccupancyField(make_mapping(mapping, count=24, **table), **settings)


def points_in_box(count=500, seed=0):
    rng = np.random.default_rng(seed)
    return rng.uniform(*BOX, size=(count, 3))


@settings(max_examples=20)
@given(
    mapping=st.sampled_from(MAPPINGS + GRID_MAPPINGS),
    activation=st.sampled_from(sorted(ACTIVATIONS)),
    target=st.sampled_from(["occupancy", "distance"]),
    guarded=st.booleans(),
    storage=st.sampled_from(STORAGES),
    size=st.tuples(st.integers(1, 40), st.integers(1, 4), st.integers(0, 99)),
)
def test_save_then_load_is_the_same_field_bit_for_bit(
    tmp_path_factory, mapping, activation, target, guarded, storage, size
):
    path = tmp_path_factory.mktemp("field") / "field.safetensors"
    width, depth, seed = size
    field = make_field(
        mapping,
        activation=activation,
        target=target,
        guarded=guarded,
        surface=SURFACE if guarded else None,
        width=width,
        depth=depth,
        seed=seed,
    )
    field.round_to(storage)
    field.save(path)
    loaded = load_field(path, device="cpu")
    assert loaded.state_dict().keys() == field.state_dict().keys()
    assert all(torch.equal(loaded.state_dict()[name], tensor) for name, tensor in field.state_dict().items())
    assert (loaded.cube, loaded.source, loaded.activation) == (field.cube, field.source, activation)
    assert (loaded.target, loaded.guarded, loaded.storage) == (target, guarded, storage)
    assert loaded.mapping.settings == field.mapping.settings
    assert np.array_equal(loaded.bounds, field.bounds)
    assert np.array_equal(field.logits(points_in_box()), loaded.logits(points_in_box()))


def test_a_field_that_was_fitted_in_float32_is_asked_in_float32(tmp_path):
    make_field(precision="float32").save(tmp_path / "field.safetensors")
    assert load_field(tmp_path / "field.safetensors", device="cpu").precision == "float32"
    make_field(precision="bfloat16").save(tmp_path / "field.safetensors")
    assert load_field(tmp_path / "field.safetensors", device="cpu").precision == best_precision(torch.device("cpu"))


def test_saving_twice_writes_the_same_bytes(tmp_path):
    make_field().save(tmp_path / "a.safetensors")
    make_field().save(tmp_path / "b.safetensors")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_the_network_is_the_plain_chain_of_dense_layers():
    field = make_field(width=16, depth=3)
    x = torch.rand(10, 3)
    hidden = field.mapping(x)
    for layer in field.layers[:-1]:
        hidden = torch.relu(layer(hidden))
    expected = field.layers[-1](hidden)[:, 0]
    torch.testing.assert_close(field(x), expected)


def test_bfloat16_products_stay_close_to_float32():
    field, points = make_field(width=256, depth=4), points_in_box()
    exact = field.logits(points)
    field.precision = "bfloat16"
    rounded = field.logits(points)
    assert rounded.dtype == np.float32
    assert np.abs(rounded - exact).max() < 0.02 * max(1.0, np.abs(exact).max())
    assert not np.array_equal(rounded, exact)


def test_a_million_units_away_the_field_is_the_same():
    near, far = (
        make_field(),
        make_field(cube=UnitCube((1e6, -1e6, 1e6 + 3.5), 5.0), bounds=np.array(BOX) + [1e6, -1e6, 1e6]),
    )
    points = points_in_box()
    np.testing.assert_allclose(near.logits(points), far.logits(points + [1e6, -1e6, 1e6]), atol=1e-5)


def test_outside_its_box_a_field_is_outside():
    field = make_field()
    torch.nn.init.constant_(field.layers[-1].bias, 50.0)
    beyond = np.array([[1.1, 0, 3.5], [0, 2.1, 3.5], [0, 0, 2.9], [1e9, 0, 0]])
    assert field.contains(points_in_box()).all()
    assert not field.contains(beyond).any()
    assert (field.logits(beyond) == OUTSIDE_LOGIT).all()
    assert (field.occupancy(beyond) < 1e-30).all()


def test_occupancy_is_the_probability_and_contains_its_half():
    field, points = make_field(), points_in_box()
    logits, occupancy = field.logits(points), field.occupancy(points)
    np.testing.assert_allclose(occupancy, 1 / (1 + np.exp(-logits.astype(np.float64))), rtol=1e-5)
    assert np.array_equal(field.contains(points), occupancy > 0.5)


def test_answers_do_not_depend_on_the_chunk():
    field, points = make_field(), points_in_box(1000)
    np.testing.assert_allclose(field.logits(points, chunk=7), field.logits(points), atol=1e-5)


def test_no_points_give_no_answers():
    assert make_field().contains(np.zeros((0, 3))).shape == (0,)


@pytest.mark.parametrize(
    ("points", "says"),
    [
        (np.zeros((3, 1000)), r"got \(3, 1000\); transpose them\?"),
        (np.zeros(3), r"shape \(n, 3\), got \(3,\)"),
        (np.array([[0.0, math.nan, 0.0]]), "finite, got 1 that are not"),
    ],
)
def test_points_of_a_wrong_shape_or_value_are_refused(points, says):
    with pytest.raises(ValueError, match=says):
        make_field().occupancy(points)


def test_the_same_seed_gives_the_same_weights():
    first, again, other = make_field(seed=1), make_field(seed=1), make_field(seed=2)
    assert torch.equal(first.layers[0].weight, again.layers[0].weight)
    assert not torch.equal(first.layers[0].weight, other.layers[0].weight)


def test_parameter_count_is_that_of_the_dense_layers():
    field = make_field("none", width=10, depth=2)
    assert field.parameter_count == (3 * 10 + 10) + (10 * 10 + 10) + (10 + 1)


def rewrite(path, *, tensors=None, **changes):
    """Write the field's file again with some tensors or some of its metadata changed."""
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    header = json.dumps(json.loads(metadata["ff3d.field"]) | changes)
    save_file(load_file(path) | (tensors or {}), path, {"ff3d.field": header})


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"version": 99}, "format version 99, this ff3d reads version 1"),
        ({"bounds": None}, "do not make a field"),
        ({"tensors": {"layers.0.bias": torch.full((32,), math.nan)}}, "layers.0.bias is not finite"),
        ({"tensors": {"layers.1.weight": torch.full((32, 32), math.inf)}}, "layers.1.weight is not finite"),
        ({"tensors": {"layers.1.weight": torch.zeros(31, 32)}}, "do not fit width 32, depth 2"),
        ({"tensors": {"layers.9.weight": torch.zeros(1, 1)}}, "do not fit"),
        ({"tensors": {"mapping.frequencies": torch.zeros(7, 3)}}, "do not fit"),
        ({"tensors": {"mapping.frequencies": torch.zeros(24, 2)}}, "dimension 2"),
        ({"precision": "int4"}, "do not make a field"),
        (
            {"tensors": {"layers.0.bias": torch.zeros(32, dtype=torch.float64)}},
            "not finite float32 or float16 or int8 or bfloat16",
        ),
        ({"tensors": {"layers.1.weight": torch.zeros(32, 32, dtype=torch.int8)}}, "8-bit numbers without their scales"),
        (
            {
                "tensors": {
                    "layers.1.weight": torch.full((32, 32), 127, dtype=torch.int8),
                    "layers.1.weight.scales": torch.full((16,), 3e38, dtype=torch.bfloat16),
                }
            },
            "scales that are not finite",
        ),
        ({"storage": "zip"}, "unknown storage 'zip'"),
        ({"target": "colour"}, "unknown target 'colour'"),
        ({"guarded": True}, "a guarded field needs"),
    ],
)
def test_a_field_file_that_cannot_be_right_is_refused_by_name(tmp_path, change, says):
    path = tmp_path / "field.safetensors"
    make_field().save(path)
    rewrite(path, **change)
    with pytest.raises(FieldError, match=says) as caught:
        load_field(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    "header",
    [
        {"width": 10**9},
        {"depth": 10**9},
        {"depth": -1},
        {"cube": {"center": [0, 0, 0], "scale": -1}},
        {"bounds": []},
        {"activation": "eval"},
        {"mapping": "other"},
        {"mapping": "hash", "settings": {"log2_table": 40}},
        {"mapping": "grid", "settings": {"finest": 4096, "levels": 9}},
        {"mapping": "hash", "settings": {"levels": "8"}},
    ],
)
def test_a_forged_header_is_refused_before_anything_large_is_made(tmp_path, header):
    path = tmp_path / "field.safetensors"
    make_field().save(path)
    rewrite(path, **header)
    with pytest.raises(FieldError, match="do not make a field"):
        load_field(path)


@pytest.mark.parametrize(
    ("cells", "place"),
    [
        (squeezed(bytes(10**6)), {}),  # more than it says
        (squeezed(bytes(454)), {}),
        (squeezed(b"\x04" * 455), {}),
        (b"not squeezed", {}),
        (squeezed(bytes(455)), {"side": 0}),
        (squeezed(bytes(455)), {"lower": [0, 0, math.nan]}),
        (squeezed(bytes(455)), {"shape": [10**9, 10**9, 10**9]}),
        (squeezed(bytes(455)), {"shape": [455]}),
    ],
)
def test_forged_cells_of_a_surface_are_refused(tmp_path, cells, place):
    path = tmp_path / "field.safetensors"
    make_field(surface=SURFACE, guarded=True).save(path)
    stored = {"lower": SURFACE.lower.tolist(), "side": SURFACE.side, "shape": list(SURFACE.labels.shape)}
    tensor = torch.frombuffer(bytearray(cells), dtype=torch.uint8)
    rewrite(path, tensors={"surface.cells": tensor}, surface=stored | place)
    with pytest.raises(FieldError, match="do not make a field"):
        load_field(path)


def test_a_file_of_the_second_version_is_read(tmp_path):
    path, field = tmp_path / "field.safetensors", make_field()
    touched = SURFACE.labels == TOUCHED
    place = {"lower": SURFACE.lower.tolist(), "side": SURFACE.side, "shape": list(touched.shape)}
    field.save(path)
    header = json.loads(safe_open(path, framework="pt").metadata()["ff3d.field"])
    for new in ("settings", "target", "storage", "guarded"):
        del header[new]
    tensors = field.state_dict() | {"surface.cells": torch.from_numpy(np.packbits(touched))}
    save_file(tensors, path, {"ff3d.field": json.dumps(header | {"version": 2, "surface": place})})
    loaded = load_field(path, device="cpu")
    assert np.array_equal(loaded.surface.labels, np.where(touched, TOUCHED, OUTSIDE))
    assert (loaded.guarded, loaded.target) == (False, "occupancy")
    assert np.array_equal(loaded.logits(points_in_box()), field.logits(points_in_box()))


def test_a_guard_says_the_side_and_the_network_the_rest():
    plain, guarded = make_field(), make_field(surface=SURFACE, guarded=True)
    points = points_in_box(20_000)
    place = np.clip(np.floor((CUBE.to_unit(points) - SURFACE.lower) / SURFACE.side).astype(int), 0, (6, 12, 4))
    label = SURFACE.labels[tuple(place.T)]
    logits, network = guarded.logits(points), plain.logits(points)
    assert (logits[label == OUTSIDE] < 0).all()
    assert (logits[label == INSIDE] > 0).all()
    np.testing.assert_allclose(logits[label > INSIDE], network[label > INSIDE], atol=1e-6)  # another batch, other sums
    known = label <= INSIDE  # all of them beside a cell without a label
    expected = np.where(label == INSIDE, 1, -1) * np.maximum(np.abs(network), 1e-3)
    np.testing.assert_allclose(logits[known], expected[known], atol=1e-6)


def test_far_from_the_surface_a_guarded_field_does_not_ask_its_network():
    labels = np.full((9, 9, 9), OUTSIDE, dtype=np.uint8)
    labels[4, 4, 4], labels[:3] = TOUCHED, INSIDE
    field = make_field(
        surface=SurfaceCells(np.zeros(3), 1 / 9, labels), guarded=True, bounds=[[-2.5, -2.5, 1], [2.5, 2.5, 6]]
    )
    torch.nn.init.constant_(field.layers[-1].bias, 1e6)
    points = np.random.default_rng(0).uniform([-2.4, -2.4, 1.1], [2.4, 2.4, 5.9], size=(20_000, 3))
    logits, away = field.logits(points), np.abs(CUBE.to_unit(points) - 0.5).max(axis=1) * 9
    inside = CUBE.to_unit(points)[:, 0] < 1 / 3
    assert (logits[away < 0.5] > 1e5).all()
    assert (logits[(away > 0.5) & (away < 1.5) & ~inside] < -1e5).all()
    assert np.array_equal(logits[away > 1.5], np.where(inside, FAR_LOGIT, -FAR_LOGIT)[away > 1.5])


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}, {"ff3d.field": "{}"}, {"ff3d.field": "[not json"}])
def test_a_safetensors_file_of_something_else_is_refused_by_name(tmp_path, metadata):
    path = tmp_path / "model.safetensors"
    save_file({"weight": torch.zeros(2)}, path, metadata)
    with pytest.raises(FieldError, match=r"model\.safetensors: (a safetensors file, but|header and tensors)"):
        load_field(path)


def test_truncated_missing_and_foreign_files_are_refused_by_name(tmp_path):
    path = tmp_path / "field.safetensors"
    make_field().save(path)
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], whole[:5], b"", b"not a field at all, but long enough to look at"):
        path.write_bytes(content)
        with pytest.raises(FieldError, match=r"field\.safetensors: not a complete safetensors file"):
            load_field(path)
    with pytest.raises(FieldError, match="no such file"):
        load_field(tmp_path / "absent.safetensors")


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"activation": "step"}, "known: relu, gelu, silu, sine"),
        ({"width": 0}, "at least 1"),
        ({"target": "colour"}, "known: occupancy, distance"),
        ({"storage": "zip"}, "known: float32, float16, int8"),
        ({"guarded": True}, "needs the surface's cells"),
        ({"bounds": [[0, 0, 0], [1, 1, 0]]}, "lower corner first"),
        ({"bounds": [[0, 0, 0], [1, 1, math.inf]]}, "finite"),
    ],
)
def test_wrong_settings_say_what_is_right(settings, says):
    with pytest.raises(ValueError, match=says):
        make_field(**settings)


def test_an_unknown_device_is_an_error_that_says_so():
    with pytest.raises(ValueError, match="--device auto"):
        best_device("abacus")


@pytest.mark.skipif(torch.cuda.is_available(), reason="CUDA is here, so asking for it is no error")
def test_an_absent_device_is_an_error_that_says_so():
    with pytest.raises(ValueError, match="cuda"):
        best_device("cuda")


def test_precision_is_one_of_the_two_on_this_machine():
    assert best_precision(torch.device("cpu")) in ("float32", "bfloat16")
    assert best_precision(torch.device("mps")) == "float32"


def test_a_gaussian_unit_is_a_bell_whose_tails_are_no_subnormal_numbers():
    x = torch.linspace(-3, 3, 6001, requires_grad=True)
    y = ACTIVATIONS["gaussian"](x)
    (slope,) = torch.autograd.grad(y.sum(), x)
    x = x.detach()
    bell = torch.exp(-(x**2) / 0.02)
    assert torch.allclose(y, bell, atol=3e-9)
    assert torch.allclose(slope, -x / 0.01 * bell, atol=3e-7)
    for numbers in (y, slope):
        assert ((numbers == 0) | (numbers.abs() > 1e-30)).all()


def rewritten(path, header, **tensors):
    """A field's file with other entries in its header, and other tensors."""
    with safe_open(path, framework="pt") as file:
        stored = json.loads(file.metadata()["ff3d.field"])
    save_file(load_file(path) | tensors, path, {"ff3d.field": json.dumps(stored | header)})


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_finite_weights_that_could_give_infinite_logits_are_refused(tmp_path, activation):
    field, path = make_field(activation=activation), tmp_path / "field.safetensors"
    field.save(path)
    assert np.isfinite(load_field(path, device="cpu").logits(np.zeros((1, 3)) + 3.5)).all()
    rewritten(path, {}, **{"layers.2.weight": torch.full((1, 32), 3e38)})
    with pytest.raises(FieldError, match="past what float32 holds"):
        load_field(path)


@pytest.mark.parametrize("mapping", [*MAPPINGS, *GRID_MAPPINGS])
@settings(max_examples=10)
@given(data=st.data())
def test_no_number_in_a_field_passes_its_bound(mapping, data):
    field = make_field(mapping, activation=data.draw(st.sampled_from(sorted(ACTIVATIONS))))
    generator = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    with torch.no_grad():
        for parameter in field.parameters():
            parameter.mul_(10.0 ** data.draw(st.floats(-2, 8)))
    points = generator.uniform(*BOX, (200, 3))
    assume(field.largest_number() < LARGEST)  # others are refused when they are loaded
    assert np.abs(field.logits(points)).max() <= 1.001 * field.largest_number() * 10  # a gain of 10, at most


@pytest.mark.parametrize(
    "header",
    [
        {"width": "32"},
        {"depth": 2.0},
        {"bounds": [1, 2]},
        {"source": []},
        {"guarded": 1},
        {"settings": {"levels": "3"}},
        {"surface": {"lower": 3}},
        {"bounds": [[-1e9] * 3, [1e9] * 3]},
        {"cube": {"center": [0, 0, 0], "scale": 1e-300}},
        {"bounds": [[-1e300] * 3, [1e300] * 3]},
    ],
)
def test_a_header_of_wrong_types_is_refused_by_the_files_name(tmp_path, header):
    path = tmp_path / "field.safetensors"
    make_field("none").save(path)
    rewritten(path, header)
    with pytest.raises(FieldError, match=r"field\.safetensors: header and tensors do not make a field") as stop:
        load_field(path)
    assert "\n" not in str(stop.value)


def test_weights_start_as_wide_as_their_inputs_say():
    for initialisation, variance in (("glorot", 2 / (256 + 512)), ("he", 2 / 512)):
        network = Network(make_mapping("gaussian", seed=0), width=256, depth=2, initialisation=initialisation, seed=3)
        first = network.layers[0]
        assert first.weight.var().item() == pytest.approx(variance, rel=0.02)
        assert first.bias.std().item() == pytest.approx(0.01 if initialisation == "glorot" else 0.0, rel=0.2)
    with pytest.raises(ValueError, match="unknown initialisation 'xavier'; known: glorot, he"):
        Network(make_mapping("none"), initialisation="xavier")
