import json
from dataclasses import dataclass, field
from typing import Any, Literal, TypedDict

import pytest

from ff3d.checks import check_seed, check_type, one_line, parse_json, read_json


@dataclass
class Fit:
    name: str
    steps: int = 0
    rate: float | None = None
    kind: Literal["a", "b"] = "a"
    scores: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    pairs: tuple[int, ...] = ()


class Open(TypedDict):
    mesh: dict[str, str]


SOUND = {"name": "x", "steps": 3, "rate": 1, "kind": "b", "scores": {"iou": 1}, "notes": ["y"], "pairs": [1, 2]}


def test_what_is_of_its_type_is_read_and_a_number_may_be_whole():
    assert parse_json(json.dumps(SOUND), Fit) == SOUND
    assert parse_json('{"name": "x"}', Fit) == {"name": "x"}
    assert parse_json('{"mesh": {}, "more": [1]}', Open) == {"mesh": {}, "more": [1]}
    assert parse_json('[1, {"a": null}]', Any) == [1, {"a": None}]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"name": 3}, "name must be a text, got 3"),
        ({"steps": 3.5}, "steps must be a whole number, got 3.5"),
        ({"steps": True}, "steps must be a whole number, got True"),
        ({"rate": "1"}, "rate must be a number, got '1'"),
        ({"kind": "c"}, "unknown kind 'c'; known: a, b"),
        ({"scores": {"iou": None}}, "scores.'iou' must be a number, got None"),
        ({"scores": []}, "scores must be an object, got list"),
        ({"notes": "y"}, "notes must be a list, got 'y'"),
        ({"notes": [[]]}, r"notes\[0\] must be a text, got list"),
        ({"pairs": [1, "2"]}, r"pairs\[1\] must be a whole number, got '2'"),
        ({"colour": 1}, "unknown 'colour' in it"),
    ],
)
def test_what_is_of_another_type_is_refused_by_its_place(change, says):
    with pytest.raises(ValueError, match=says):
        parse_json(json.dumps(SOUND | change), Fit)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[" * 10**5, "it is nested too deeply"),
        ('{"name": "x", "steps": ' + "9" * 1000 + "}", "a number of 1000 digits"),
        ("{}", "no name in it"),
        ("[]", "it must be an object, got list"),
        ("", "Expecting value"),
    ],
)
def test_json_that_is_beyond_reason_is_refused_in_a_line(text, says):
    with pytest.raises(ValueError, match=says):
        parse_json(text, Fit)


def test_a_file_of_hundreds_of_megabytes_is_not_read(tmp_path):
    path = tmp_path / "config.json"
    with path.open("wb") as file:
        file.truncate(2**27)
    with pytest.raises(ValueError, match="134 MB, at most 67 are read"):
        read_json(path, Any)


@pytest.mark.parametrize("seed", [-1, 2**63, 0.0, "1", True, None, "../../../evil"])
def test_a_seed_is_a_whole_number_that_every_library_takes(seed):
    with pytest.raises(ValueError, match="seed must be a whole number from 0 to"):
        check_seed(seed)
    check_seed(2**63 - 1)


def test_a_message_is_one_line_with_its_end():
    assert one_line(ValueError("\n one \ntwo")) == "one"
    assert one_line(MemoryError()) == "MemoryError"
    long = one_line("start" + "x" * 1000 + "give another --out")
    assert len(long) <= 300
    assert long.startswith("start")
    assert long.endswith("give another --out")


def test_what_is_checked_may_be_a_tuple_where_a_list_is_expected():
    check_type((1, 2), list[int], "it")
