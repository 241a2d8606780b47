import math
from typing import get_args

import pytest

from ff3d.settings import DEFAULT_SECONDS, PRESETS, TABLES, MappingName, make_config


def test_the_paper_preset_is_the_paper_to_the_letter():
    paper = make_config("paper")
    assert (paper.depth, paper.width, paper.activation) == (7, 256, "relu")
    assert (paper.batch_size, paper.steps, paper.seconds) == (32_768, 10_000, None)
    assert (paper.learning_rate, paper.schedule) == (5e-4, "exponential")
    assert (paper.uniform, paper.pool_size, paper.passes) == (1.0, paper.batch_size, 1)  # fresh points every step
    assert (paper.cube, paper.margin, paper.notebook, paper.frequencies) == ("paper", 1e-3, True, 256)


@pytest.mark.parametrize("preset", PRESETS)
def test_a_budget_in_seconds_takes_the_place_of_the_presets_steps(preset):
    config = make_config(preset, seconds=5.0)
    assert (config.seconds, config.steps) == (5.0, None)


@pytest.mark.parametrize("preset", PRESETS)
def test_a_budget_in_steps_is_kept(preset):
    config = make_config(preset, steps=7)
    assert (config.seconds, config.steps) == (None, 7)


def test_without_a_budget_there_is_a_usual_one():
    assert make_config().seconds == DEFAULT_SECONDS
    assert make_config("paper").steps == 10_000


def test_without_a_preset_a_named_mapping_is_plain_and_the_seconds_choose_otherwise():
    assert make_config(None, mapping="gaussian", seconds=500).preset == "plain"
    assert [make_config(None, seconds=it).preset for it in (5, 59, 60, 600)] == ["fast", "fast", "best", "best"]
    assert make_config(None).preset == "fast"


def test_what_a_preset_says_of_its_own_table_does_not_hold_for_another_mapping():
    assert make_config("best").finest == 1024
    for preset in ("fast", "best"):
        for mapping in ("grid", "gaussian"):
            config = make_config(preset, mapping=mapping)
            assert (config.levels, config.finest, config.log2_table, config.depth) == (None,) * 4
            assert (config.target, config.guarded, config.preset) == ("distance", True, preset)
    assert make_config("best", mapping="grid", finest=64).finest == 64


def test_comparisons_are_on_occupancy_without_a_guard():
    for preset in ("plain", "paper"):
        config = make_config(preset)
        assert (config.target, config.guarded, config.storage) == ("occupancy", False, "float32")


@pytest.mark.parametrize("mapping", get_args(MappingName))
def test_every_mapping_has_a_network_of_its_own_unless_one_is_given(mapping):
    small = mapping in TABLES
    config = make_config(mapping=mapping)
    assert (config.width_for(32), config.layers) == ((64, 1) if small else (256, 4))
    config = make_config(mapping=mapping, width=100, depth=3)
    assert (config.width_for(32), config.layers) == (100, 3)


@pytest.mark.parametrize("mapping", get_args(MappingName))
def test_every_mapping_has_a_rate_of_its_own_unless_one_is_given(mapping):
    assert 0 < make_config(mapping=mapping).rate < 1
    assert make_config(mapping=mapping, learning_rate=0.25).rate == 0.25
    assert make_config("paper", mapping=mapping).rate == 5e-4


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"preset": "slow"}, "known: plain, paper, fast, best, small"),
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
        ({"mapping": "sine"}, "known: none, basic, positional, gaussian, lecture, learned, grid, hash, planes"),
    ],
)
def test_wrong_settings_say_what_is_right(settings, says):
    with pytest.raises(ValueError, match=says):
        make_config(**settings)
