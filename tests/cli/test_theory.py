import json
import os

import numpy as np
import pytest
import trimesh
from PIL import Image

from ff3d.cli import main
from ff3d.cli.theory import _locked_report
from ff3d.fields.checkpoint import FitError
from ff3d.files import FolderError, locked
from ff3d.formats.writers import save_mesh
from ff3d.theory.signals import fit_sparse


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
        (["bracket", "--fit-steps", "5", "--scales", "0", "4"], "scale must be a positive number of cycles"),
        (["bracket", "--fit-steps", "0"], "fit_steps must be positive, got 0"),
        (["bracket", "--places", "0"], "places must be positive, got 0"),
        (["text-0", "--size", "-5"], "size must be positive, got -5"),
        (["bracket", "--size", "64"], "--size is for pictures; leave it out for a mesh"),
        (["bracket", "--mappings"], "give at least one mapping"),
        (["nowhere.obj"], "no such file"),
    ],
)
def test_what_has_no_kernel_is_refused_in_one_line_and_makes_no_folder(tmp_path, caplog, arguments, says):
    assert main(["ntk", *arguments, "--out", str(tmp_path / "out")]) == 1
    assert says in caplog.records[-1].message
    assert not (tmp_path / "out").exists()


def never(*_, **__):
    raise AssertionError("the work has begun")


@pytest.mark.parametrize(
    ("arguments", "work"),
    [
        (["ntk", "bracket", "--points", "50"], "ff3d.theory.shapes.ntk"),
        (["signal", "--steps", "2"], "ff3d.theory.signals.fit_signal"),
        (["image", "text-0", "--steps", "2"], "ff3d.theory.images.fit_images"),
    ],
)
def test_a_folder_in_use_is_refused_before_the_work(tmp_path, caplog, monkeypatch, arguments, work):
    monkeypatch.setattr("ff3d.files.PATIENCE", 0.1)
    monkeypatch.setattr(work, never)
    with locked(tmp_path):
        assert main([*arguments, "--out", str(tmp_path)]) == 1
    assert "in use by process" in caplog.records[-1].message


def test_a_new_folder_that_another_run_has_filled_meanwhile_is_not_taken(tmp_path):
    (tmp_path / "rows.json").write_text('{"falloffs": []}')
    with pytest.raises(FolderError, match="another run has just taken it"), _locked_report(tmp_path, list, new=True):
        raise AssertionError("it was taken")


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
        (["text-0", *TINY, "--mappings", "gaussian", "--scales", "1", "0"], "scale must be positive"),
        (["text-0", *TINY, "--mappings", "none", "planes"], "planes are of three dimensions"),
        (["text-0", *TINY, "--mappings", "none", "voxels"], "unknown mapping 'voxels'"),
        (["text-0", *TINY[:-1], "foo"], "device"),
        (["text-0", "--preset", "paper", "--size", "200000"], "40000.0 megapixels takes about"),
    ],
)
def test_what_cannot_be_fitted_to_is_refused_in_one_line_before_the_first_fit(tmp_path, caplog, arguments, says):
    assert main(["image", *arguments, "--out", str(tmp_path / "out")]) == 1
    assert says in caplog.records[-1].message
    assert not (tmp_path / "out").exists()


def test_a_picture_whose_name_is_not_utf_8_has_its_page(tmp_path, capsys):
    picture = tmp_path / os.fsdecode(b"caf\xe9.png")
    try:
        Image.effect_noise((32, 32), 50).save(picture)
    except (OSError, UnicodeEncodeError):
        pytest.skip("this file system takes UTF-8 alone")
    assert main(["image", str(picture), "--mappings", "none", *TINY, "--out", str(tmp_path / "out")]) == 0
    assert "<h1>caf?</h1>" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "results: " in capsys.readouterr().out


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
        (["--power", "2000"], "amplitudes of 1 / f^2000 are out of range"),
        (["--falloffs", "0", "-1"], "falloff must be 0 or more, got -1"),
        (["--falloffs", "0", "nan"], "falloff must be 0 or more, got nan"),
        (["--stds", "8", "0"], "std must be a positive number of cycles, got 0"),
    ],
)
def test_a_signal_out_of_range_is_refused_in_one_line_before_the_first_fit(
    tmp_path, caplog, monkeypatch, arguments, says
):
    monkeypatch.setattr("ff3d.theory.signals.fit_signal", never)
    assert main(["signal", *arguments, "--out", str(tmp_path / "out")]) == 1
    assert says in caplog.records[-1].message
    assert not (tmp_path / "out").exists()


def test_of_a_signal_that_a_late_error_ends_the_fits_before_it_are_saved(tmp_path, caplog, monkeypatch):
    def fit(distribution, std, **settings):
        if distribution == "uniform":  # the second of four
            raise FitError("the loss is nan at step 3")
        return fit_sparse(distribution, std, steps=2, **settings)

    monkeypatch.setattr("ff3d.theory.signals.fit_sparse", fit)
    assert main(["signal", "--falloffs", "1", "--steps", "2", "--stds", "8", "--out", str(tmp_path)]) == 1
    assert "the loss is nan" in caplog.records[-1].message
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert [row["mapping"] for row in rows["falloffs"]] == ["p = 1"]
    assert [row["distribution"] for row in rows["sparse"]] == ["gaussian"]
