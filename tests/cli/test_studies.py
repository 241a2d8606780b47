"""ff3d compare and benchmark: which plan and which workers the options make, and budgets of every kind to the end."""

import subprocess
import sys
from pathlib import Path

import pytest
import trimesh

from ff3d.cli.main import main
from ff3d.fields.config import COMPARED

ROOT = Path(__file__).parents[2]
SMALL = ["--width", "16", "--depth", "2", "--frequencies", "8", "--batch-size", "256", "--pool-size", "1024"]
SMALL += ["--device", "cpu", "--resolution", "16"]


@pytest.fixture
def ball(tmp_path):
    path = tmp_path / "ball.ply"
    trimesh.creation.icosphere(subdivisions=2).export(path)
    return path


@pytest.fixture
def begun(monkeypatch, ball):
    """The plan and the workers of a command that ends before its first fit."""

    def run(*arguments):
        seen = []

        def note(plan, out, *, workers, **_):
            seen.append((plan, workers))
            raise ValueError("enough seen")

        monkeypatch.setattr("ff3d.studies.study.run_study", note)
        assert main([it.format(ball=ball, plan=ball.parent / "plan.yaml") for it in arguments]) == 1
        return seen[0]

    return run


@pytest.mark.parametrize(
    ("options", "limit"),
    [
        ([], 900),
        (["--seconds", "100"], 1600),
        (["--vary", "seconds=5,2000,60"], 20_600),
        (["--vary", "steps=100,1000000"], None),
        (["--vary", "preset=plain,paper"], None),  # one of them has seconds
        (["--steps", "5"], None),
        (["--mappings", "voxels", "--bytes", "50k"], None),
        (["--vary", "steps=100,1000000", "--timeout", "7"], 7),
        (["--workers", "0"], None),
    ],
)
def test_the_usual_time_limit_is_that_of_the_longest_fit(begun, options, limit):
    assert begun("benchmark", "{ball}", "--mappings", "none", *options)[1].timeout == limit


def test_an_option_that_is_typed_goes_before_the_plans_file(begun, ball):
    (ball.parent / "plan.yaml").write_text("meshes: [ball.ply]\nseeds: [4, 5]\nsteps: 9\nvary: {width: [8, 16]}\n")
    plan, _ = begun("benchmark", "--plan", "{plan}")
    assert (plan.mappings, plan.seeds, plan.resolution, plan.settings) == (COMPARED, (4, 5), 192, {"steps": 9})
    typed = ["--seeds", "0", "1", "2", "--resolution", "24", "--mappings", "none", "--vary", "depth=1,2"]
    plan, _ = begun("benchmark", "--plan", "{plan}", *typed, "--seconds", "3")
    assert (plan.mappings, plan.seeds, plan.resolution) == (("none",), (0, 1, 2), 24)
    assert (plan.settings, plan.vary) == ({"seconds": 3.0}, {"depth": (1, 2)})


def test_a_time_limit_that_nobody_would_keep_is_refused(ball, tmp_path, caplog):
    out = tmp_path / "out"
    command = ["benchmark", str(ball), "--mappings", "none", "--seeds", "0", "--steps", "1", *SMALL, "--out", str(out)]
    assert main([*command, "--workers", "0", "--timeout", "60"]) == 1
    assert "--timeout needs --workers or --ray" in caplog.records[-1].message
    assert not out.exists()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--learning-rate", "0.02", "--tuned", "{folder}/tuned.json"], "--learning-rate is given, and the tuned"),
        (["--vary", "scale=4", "scale=8"], "--vary has scale twice"),
        (["--vary", "batch-size=4", "batch_size=8"], "--vary has batch_size twice"),
        (["--gpus", "1"], "--gpus needs --ray"),
    ],
)
def test_what_would_have_no_effect_is_refused(ball, tmp_path, caplog, options, says):
    (tmp_path / "tuned.json").write_text('{"gaussian": {"learning_rate": 0.5}, "hash": {"scale": 1.0}}')
    options = [it.format(folder=tmp_path) for it in options]
    command = ["benchmark", str(ball), "--mappings", "gaussian", "--out", str(tmp_path / "out")]
    assert main([*command, *options]) == 1
    assert says in caplog.records[-1].message
    assert not (tmp_path / "out").exists()


def test_a_typed_setting_that_was_tuned_for_other_mappings_holds(begun, tmp_path):
    (tmp_path / "tuned.json").write_text('{"gaussian": {"learning_rate": 0.5}, "hash": {"learning_rate": 0.1}}')
    typed = ["--mappings", "gaussian", "--scale", "3", "--tuned", str(tmp_path / "tuned.json")]
    plan, _ = begun("benchmark", "{ball}", *typed)
    assert {(it.config.optimiser.learning_rate, it.config.mapping.scale) for it in plan.tasks()} == {(0.5, 3.0)}


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        ["--mappings", "voxels", "lattice", "--bytes", "6k", "--resolution", "16"],
        [
            "--mappings",
            "gaussian",
            "positional",
            "--preset",
            "fast",
            "--parameters",
            "1000",
            "--steps",
            "5",
            *SMALL[2:],
        ],
    ],
)
def test_budgets_in_bytes_and_equal_sizes_are_compared_to_the_end_and_again(ball, tmp_path, capsys, options):
    command = ["compare", str(ball), *options, "--out", str(tmp_path / "out")]
    main(command)
    said = capsys.readouterr().out
    assert "2 of 2 fits done" in said
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.glob("out/*/row.json")}
    main(command)
    assert "2 of 2 fits done" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps


@pytest.mark.slow
def test_the_script_is_not_run_again_by_its_workers(ball, tmp_path):
    command = [
        sys.executable,
        str(ROOT / "scripts" / "benchmark.py"),
        str(ball),
        "--workers",
        "1",
        "--mappings",
        "none",
    ]
    command += ["--seeds", "0", "--steps", "3", *SMALL, "--out", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)
    assert "1 of 1 fits done" in done.stdout
    assert done.stdout.count("1 mesh x 1 mapping x 1 seed") == 1, done.stderr
    assert "Traceback" not in done.stderr
