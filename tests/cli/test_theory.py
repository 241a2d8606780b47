import json

import numpy as np
import pytest
import trimesh
from PIL import Image

from ff3d.cli import main
from ff3d.formats.writers import save_mesh


def test_ntk_predicts_that_raw_coordinates_learn_slowest_and_that_all_learn_on(capsys):
    assert main(["ntk", "bracket", "--points", "400", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["steps"] == [10, 100, 1000, 10_000]
    for shares in found["learned"].values():
        assert shares == sorted(shares)
        assert all(0 <= share <= 1 for share in shares)
    last = {name: shares[-1] for name, shares in found["learned"].items()}
    assert last["none"] < last["basic"] < min(last["positional"], last["gaussian"])


@pytest.mark.slow
def test_ntk_predicts_fits_and_writes_a_page_with_its_pictures(tmp_path, capsys):
    arguments = ["--points", "100", "--mappings", "gaussian", "--fit-steps", "40", "--scales", "2", "--places", "1"]
    assert main(["ntk", "bracket", *arguments, "--out", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "predicted best scale of gaussian: 2" in lines
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert list(rows["predicted"]) == ["gaussian", "gaussian 2"]
    assert rows["best_scale"] == 2
    page = (tmp_path / "report.html").read_text()
    assert page.count("data:image/png") == 2
    assert {path.name for path in tmp_path.iterdir()} == {
        "rows.json", "report.html", "eigenvectors.png", "frequencies.png"
    }  # fmt: skip


def test_ntk_of_a_picture_tells_its_pixels_and_writes_nothing_over_what_is_not_its_own(tmp_path, capsys, caplog):
    arguments = ["ntk", "text-0", "--points", "150", "--mappings", "none", "basic", "--out", str(tmp_path)]
    assert main(arguments) == 0
    assert "at 150 points" in capsys.readouterr().out
    assert main(arguments) == 0  # over its own
    (tmp_path / "rows.json").write_text("mine")
    assert main(arguments) == 1
    assert "was not made by ff3d" in caplog.records[-1].message


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


def test_image_writes_neither_over_its_input_nor_over_what_is_not_its_own(tmp_path, caplog):
    noise = np.asarray(Image.effect_noise((32, 32), 50))
    mappings = ["--mappings", "none", "gaussian", "--scales", "1"]
    for name in ("gaussian.png", "gaussian-1.png", "truth.png"):
        folder = tmp_path / name.removesuffix(".png")
        folder.mkdir()
        Image.fromarray(noise).save(folder / name)
        before = (folder / name).read_bytes()
        for options in ([], ["--force"]):
            assert main(["image", str(folder / name), *mappings, *TINY, "--out", str(folder), *options]) == 1
            assert f"{name}: is the input itself; name another one" in caplog.records[-1].message
        assert main(["image", "text-0", *mappings, *TINY, "--out", str(folder)]) == 1
        assert f"{name}: is there, and was not made by ff3d" in caplog.records[-1].message
        assert [(path.name, path.read_bytes()) for path in folder.iterdir()] == [(name, before)]
    out = tmp_path / "out"
    assert main(["image", "text-0", "--mappings", "none", *TINY, "--out", str(out)]) == 0
    before = (out / "truth.png").read_bytes()
    assert main(["image", str(out / "truth.png"), "--mappings", "none", *TINY, "--out", str(out)]) == 1
    assert "truth.png: is the input itself" in caplog.records[-1].message
    assert (out / "truth.png").read_bytes() == before


def test_ntk_takes_a_mesh_for_one_whatever_its_name(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    save_mesh(trimesh.creation.icosphere(subdivisions=2), tmp_path / "text-logo.obj")
    assert main(["ntk", "text-logo.obj", "--points", "100", "--mappings", "none", "basic"]) == 0
    assert "text-logo.obj: share of the labels' energy" in capsys.readouterr().out


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


@pytest.mark.slow
def test_signal_fits_each_falloff_and_writes_a_page(tmp_path, capsys):
    options = ["--falloffs", "1", "none", "--steps", "4", "--stds", "8", "--out", str(tmp_path)]
    assert main(["signal", *options]) == 0
    said = capsys.readouterr().out
    assert "p = 1" in said
    assert "no mapping" in said
    assert said.count("best at a standard deviation") == 4
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert [row["mapping"] for row in rows["falloffs"]] == ["p = 1", "no mapping"]
    assert len(rows["sparse"]) == 4
    page = (tmp_path / "report.html").read_text()
    assert page.count('<svg viewBox="-12') == 10
    assert "<script" not in page
    assert "://" not in page


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--falloffs", "fast"], "falloffs must be numbers, inf or none, got 'fast'"),
        (["--steps", "0"], "steps must be positive"),
        (["--power", "nan"], "finite power"),
    ],
)
def test_a_signal_out_of_range_is_refused_in_one_line(tmp_path, caplog, arguments, says):
    assert main(["signal", *arguments, "--out", str(tmp_path)]) == 1
    assert says in caplog.records[-1].message
