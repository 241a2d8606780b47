import json

import pytest

from ff3d.cli import main


def test_ntk_predicts_that_raw_coordinates_learn_slowest_and_that_all_learn_on(capsys):
    assert main(["ntk", "bracket", "--points", "400", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["steps"] == [10, 100, 1000, 10_000]
    for shares in found["learned"].values():
        assert shares == sorted(shares)
        assert all(0 <= share <= 1 for share in shares)
    last = {name: shares[-1] for name, shares in found["learned"].items()}
    assert last["none"] < last["basic"] < min(last["positional"], last["gaussian"])


def test_ntk_prints_a_table_with_the_predicted_order(capsys):
    assert main(["ntk", "bracket", "--points", "200", "--mappings", "none", "gaussian", "--scale", "4"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[2:4]] == ["none", "gaussian"]
    assert lines[-1] == "predicted order, slowest first: none < gaussian"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["bracket", "--points", "9000"], "from 10 to 8,192"),
        (["bracket", "--mappings", "hash"], "no fixed kernel"),
        (["bracket", "--points", "50", "--depth", "0"], "depth must be at least 1"),
    ],
)
def test_what_has_no_kernel_is_refused_in_one_line(caplog, arguments, says):
    assert main(["ntk", *arguments]) == 1
    assert says in caplog.records[-1].message


TINY = ["--size", "32", "--steps", "20", "--device", "cpu"]


def test_image_compares_mappings_and_says_where_its_results_lie(tmp_path, capsys):
    chosen = ["--mappings", "none", "gaussian", "--scales", "1"]
    assert main(["image", "text-0", *chosen, *TINY, "--out", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert "resized to 32 x 32" in said
    assert [line.split()[0] for line in said.splitlines() if line[:4] in ("none", "gaus")] == ["none"] + [
        "gaussian"
    ] * 2
    assert said.endswith(f"results: {tmp_path / 'out'}   report: {tmp_path / 'out' / 'report.html'}\n")
    assert {"truth.png", "none.png", "gaussian-1.png", "rows.json", "report.html"} <= {
        path.name for path in (tmp_path / "out").iterdir()
    }


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nowhere.png"], "nowhere.png: no such file; give a picture, or a name: astronaut"),
        ([__file__], "not a picture"),
        (["camera", "--max-memory", "0.001"], "megapixels take"),
        (["camera", "--mappings", "planes", "--steps", "1"], "planes are of three dimensions"),
        (["camera", "--steps", "1", "--seconds", "1"], "not both"),
    ],
)
def test_what_cannot_be_fitted_to_is_refused_in_one_line(tmp_path, caplog, arguments, says):
    assert main(["image", *arguments, "--out", str(tmp_path)]) == 1
    assert says in caplog.records[-1].message
    assert not list(tmp_path.iterdir())
