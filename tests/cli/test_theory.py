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
