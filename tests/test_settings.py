import json
import math
from typing import get_args

import numpy as np
import pytest

from ff3d.fields.config import DEFAULT_SECONDS, GRID_MAPPINGS, LATTICE_MAPPINGS, Budget, MappingName
from ff3d.settings import OPTIONS, PRESETS, FitConfig, by_network, from_flat, make_config, unguarded


def test_the_paper_preset_is_the_paper_to_the_letter():
    paper = make_config("paper")
    assert (paper.network.depth, paper.network.width, paper.network.activation) == (7, 256, "relu")
    assert (paper.optimiser.batch_size, paper.budget) == (32_768, Budget(steps=10_000))
    assert (paper.optimiser.learning_rate, paper.optimiser.schedule) == (5e-4, "exponential")
    assert (paper.sampling.uniform, paper.optimiser.passes) == (1.0, 1)  # new points every step
    assert (paper.sampling.cube, paper.sampling.margin) == ("paper", 1e-3)
    assert (paper.mapping.notebook, paper.mapping.frequencies) == (True, 256)


@pytest.mark.parametrize("preset", PRESETS)
def test_a_budget_in_seconds_takes_the_place_of_the_presets_steps(preset):
    assert make_config(preset, seconds=5.0).budget == Budget(seconds=5.0)


@pytest.mark.parametrize("preset", PRESETS)
def test_a_budget_in_steps_is_kept(preset):
    assert make_config(preset, steps=7).budget == Budget(steps=7)


def test_without_a_budget_there_is_a_usual_one():
    assert make_config().budget.seconds == FitConfig().budget.seconds == DEFAULT_SECONDS
    assert make_config("paper").budget.steps == 10_000


@pytest.mark.parametrize(("budget", "words"), [(Budget(), "30 s"), (Budget(steps=2000), "2,000 steps")])
def test_a_budget_has_words(budget, words):
    assert str(budget) == words


@pytest.mark.parametrize("preset", PRESETS)
def test_steps_and_seconds_together_are_refused_whatever_the_preset_says(preset):
    with pytest.raises(ValueError, match="not both"):
        make_config(preset, seconds=60, steps=10_000)


def test_without_a_preset_a_named_mapping_is_plain_and_the_budget_chooses_otherwise():
    assert make_config(None, mapping="gaussian", seconds=500).preset == "plain"
    assert make_config(None, seconds=500).preset == make_config(None).preset == "direct"
    assert make_config(None, bytes="50k").preset == "small"
    assert make_config(None, finest=64, seed=3, device="cpu").preset == "direct"
    assert [make_config(None, width=32, seconds=it).preset for it in (5, 59, 60)] == ["fast", "fast", "best"]
    assert make_config(None, steps=9).preset == make_config(None, target="occupancy").preset == "fast"


@pytest.mark.parametrize(
    ("given", "number"), [("50k", 50_000), ("1.5M", 1_500_000), (2_000, 2_000), ("30000", 30_000), ("2e4", 20_000)]
)
def test_bytes_are_numbers_or_words(given, number):
    config = make_config("small", bytes=given)
    assert config.budget.bytes == number
    assert from_flat(config.flat()) == config
    assert config.budget.seconds is None


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"bytes": "50x"}, "bytes must be a number from 2,000, such as 50k, got '50x'"),
        ({"bytes": 10}, "bytes must be a number from 2,000"),
        ({"bytes": "50k", "seconds": 3}, "not both"),
        (
            {"bytes": "50k", "mapping": "hash"},
            "a budget in bytes is for voxels and lattice; give hash",
        ),
    ],
)
def test_a_budget_in_bytes_that_cannot_be_says_why(settings, says):
    with pytest.raises(ValueError, match=says):
        make_config("small", **settings)


def test_what_a_preset_says_of_its_own_table_does_not_hold_for_another_mapping():
    assert make_config("best").mapping.finest == 1024
    for preset in ("fast", "best"):
        for mapping in ("grid", "gaussian"):
            config = make_config(preset, mapping=mapping)
            assert (config.mapping.levels, config.mapping.finest, config.mapping.log2_table) == (None,) * 3
            assert (config.sampling.target, config.sampling.guarded, config.preset) == ("distance", True, preset)
    assert make_config("best", mapping="grid", finest=64).mapping.finest == 64


def test_what_is_given_holds_for_every_mapping_even_where_it_equals_the_presets():
    for mapping in ("hash", "grid"):
        config = make_config("best", mapping=mapping, levels=6, finest=1024)
        assert (config.mapping.levels, config.mapping.finest) == (6, 1024)


def test_comparisons_are_on_occupancy_without_a_guard():
    for preset in ("plain", "paper"):
        config = make_config(preset)
        assert (config.sampling.target, config.sampling.guarded, config.storage) == ("occupancy", False, "float32")


@pytest.mark.parametrize("mapping", get_args(MappingName))
def test_every_mapping_has_a_network_of_its_own_unless_one_is_given(mapping):
    small = mapping in GRID_MAPPINGS
    network = make_config(mapping=mapping).network
    assert (network.hidden_width(mapping, 32), network.hidden_layers(mapping)) == ((64, 1) if small else (256, 4))
    network = make_config(mapping=mapping, width=100, depth=3).network
    assert (network.hidden_width(mapping, 32), network.hidden_layers(mapping)) == (100, 3)


@pytest.mark.parametrize("mapping", sorted(set(get_args(MappingName)) - set(LATTICE_MAPPINGS)))
def test_every_mapping_has_a_rate_of_its_own_unless_one_is_given(mapping):
    assert 0 < make_config(mapping=mapping).optimiser.rate(mapping) < 1
    assert make_config(mapping=mapping, learning_rate=0.25).optimiser.rate(mapping) == 0.25
    assert make_config("paper", mapping=mapping).optimiser.rate(mapping) == 5e-4


@pytest.mark.parametrize("preset", PRESETS)
def test_settings_survive_json_and_every_option_stands_in_them_once(preset):
    config = make_config(preset, seed=3)
    flat = json.loads(json.dumps(config.flat()))
    assert set(flat) == set(OPTIONS)
    assert from_flat(flat) == config


def test_a_network_in_place_of_a_lattice_keeps_what_was_given_and_means_the_same():
    given = {"seed": 3, "device": "cpu", "margin": 0.1, "cube": "paper", "seconds": 5.0}
    assert by_network(make_config("direct", **given)) == make_config("fast", **given)
    assert by_network(make_config("small", bytes=4_000)) == make_config("fast")


def test_without_a_guard_points_are_those_of_plain_unless_they_were_given():
    plain = make_config().sampling
    used = unguarded(make_config("fast")).sampling
    assert (used.guarded, used.uniform, used.widths) == (False, plain.uniform, plain.widths)
    assert unguarded(make_config("fast", uniform=0.3)).sampling.uniform == 0.3


@pytest.mark.parametrize("number", [200.0, np.int64(200), np.uint8(200), np.float32(200), np.float64(200)])
def test_a_whole_number_of_any_type_is_that_number(number):
    names = ("steps", "width", "depth", "frequencies", "pool_size", "batch_size", "passes", "seed", "log2_table")
    config = make_config(**dict.fromkeys(names, number), learning_rate=np.float32(0.5))
    plain = make_config(**dict.fromkeys(names, 200), learning_rate=0.5)
    assert config == plain
    assert json.dumps(config.flat()) == json.dumps(plain.flat())
    assert make_config(None, seconds=number, width=64).preset == "best"


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"preset": "slow"}, "known: plain, paper, direct, fast, best, small"),
        ({"colour": 1}, "unknown setting colour; known: activation, band, batch_size"),
        ({"seconds": 5, "steps": 5}, "not both"),
        ({"seconds": -1}, "seconds must be positive, got -1"),
        ({"seconds": math.nan}, "seconds must be positive"),
        ({"steps": 0}, "steps must be positive"),
        ({"learning_rate": 0.0}, "learning_rate must be positive"),
        ({"uniform": 1.5}, r"uniform must lie in \[0, 1\]"),
        ({"widths": (0.01, -1.0)}, "every width must be positive"),
        ({"batch_size": 1000}, "multiple of batch_size 1000"),
        ({"margin": -0.1}, "margin must be 0 or positive"),
        ({"scale": 0.0}, "scale must be positive"),
        ({"width": 0}, "width must be positive"),
        ({"band": 0}, "band must be positive"),
        ({"levels": 0}, "levels must be positive"),
        ({"mapping": "hash", "parameters": 1000}, "give levels, finest"),
        ({"target": "colour"}, "known: occupancy, distance"),
        ({"storage": "zip"}, "known: float32, float16, int8, auto"),
        ({"steps": 2.5}, "steps must be a whole number"),
        ({"seconds": "5"}, "seconds must be positive, got '5'"),
        ({"steps": True}, "steps must be positive, got True"),
        ({"width": np.bool_(True)}, "width must be positive"),
        ({"width": np.float32(2.5)}, "width must be a whole number"),
        ({"seed": 0.5}, "seed must be a whole number"),
        ({"guarded": "yes"}, "guarded must be true or false"),
        ({"batch_size": 0.5}, "batch_size must be a whole number"),
        ({"mapping": "sine"}, "known: none, basic, positional, gaussian, lecture, learned, grid, hash, planes"),
    ],
)
def test_wrong_settings_say_what_is_right(settings, says):
    with pytest.raises(ValueError, match=says):
        make_config(**settings)
