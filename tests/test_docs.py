"""The docs say what is: commands with what they print, files as they are read without ff3d, every public name."""

import ast
import contextlib
import importlib.util
import re
from pathlib import Path

import numpy as np
import pytest

import ff3d
from ff3d.cli import main
from ff3d.cli.main import all_commands

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"


def script(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


EXAMPLES = script("run_examples")
PRINTED = EXAMPLES.read_page()
QUICK = ("samples", "inspect", "label")  # of which the words never change; scripts/run_examples.py runs all


def test_the_page_has_both_examples_of_every_command():
    lines = [line for examples in EXAMPLES.example_lines().values() for line in examples]
    assert list(PRINTED) == lines
    assert len(lines) == 2 * len(all_commands())
    shown = [line for line in lines if line.split()[1] not in EXAMPLES.NOT_RUN]
    assert all(PRINTED[line][0] for line in shown)


@pytest.mark.slow
def test_quick_examples_print_what_the_page_says(tmp_path):
    quick = [line for name, lines in EXAMPLES.example_lines().items() if name in QUICK for line in lines]
    with contextlib.chdir(tmp_path):
        EXAMPLES.prepare_folder()
        for line in quick:
            printed, _ = EXAMPLES.run_example(line)
            assert EXAMPLES.words(printed) == EXAMPLES.words(PRINTED[line][0]), line


def test_an_example_that_is_run_again_begins_without_its_results(tmp_path):
    printed = {
        "ff3d fit bunny --seconds 5 --out runs/bunny": "results: runs/bunny",
        "ff3d extract runs/bunny --resolution 512 -o bunny.ply": "results: bunny.ply",
        "ff3d signal --steps 100": "results: runs/signal-2   report: runs/signal-2/report.html",
        "ff3d tune bracket": "results: runs/tune/tuned.json   reports: runs/tune/learning_rates/report.html",
        "ff3d evaluate runs/bunny --mesh bunny": "measured: runs/bunny",
    }
    with contextlib.chdir(tmp_path):
        for line, text in printed.items():
            for name in ("bunny", "small", "signal", "tune/learning_rates"):
                Path("runs", name).mkdir(parents=True, exist_ok=True)
            Path("bunny.ply").touch()
            EXAMPLES.remove_results(line, text)
            left = {path.name for path in (*Path().iterdir(), *Path("runs").iterdir())}
            gone = {"bunny.ply", "runs", "bunny", "small", "signal", "tune"} - left
            assert gone == {"fit": {"bunny"}, "extract": {"bunny.ply"}, "signal": {"signal"}, "tune": {"tune"}}.get(
                line.split()[1], set()
            )


def test_the_reference_has_every_public_name():
    named = re.findall(r"^::: ff3d\.(\w+)$", (DOCS / "reference.md").read_text(), re.M)
    assert sorted(named) == sorted(set(ff3d.__all__) - {"__version__"})


def test_the_picture_of_the_folders_is_that_of_the_contracts():
    folders = script("draw_folders")
    assert folders.PICTURE.read_text(encoding="utf-8") == folders.drawn()


@pytest.fixture(scope="module")
def readers():
    """What the Python of docs/files.md defines; it imports numpy, safetensors and json alone."""
    code = "\n".join(re.findall(r"```python\n(.*?)```", (DOCS / "files.md").read_text(), re.S))
    assert set(re.findall(r"^(?:import|from) (\w+)", code, re.M)) == {"json", "numpy", "safetensors"}
    names = {}
    exec(compile(code, "docs/files.md", "exec"), names)  # noqa: S102  (the page's own code)
    return names


@pytest.mark.parametrize("mapping", ["none", "gaussian", "positional", "lecture"])
@pytest.mark.parametrize("target", ["occupancy", "distance"])
def test_a_field_is_read_without_ff3d_as_the_page_says(mapping, target, readers, tmp_path):
    field = ff3d.OccupancyField(
        ff3d.make_mapping(mapping, count=12),
        width=16,
        depth=2,
        target=target,
        cube=ff3d.UnitCube((1.0, 2.0, 3.0), 4.0),
        bounds=[[0, 0, 0], [3, 3, 5]],
    )
    field.save(tmp_path / "field.safetensors")
    header, tensors = readers["read_field"](tmp_path / "field.safetensors")
    points = np.random.default_rng(0).uniform(-1, 5, (500, 3))
    np.testing.assert_allclose(readers["logits"](header, tensors, points), field.logits(points), rtol=1e-4, atol=1e-3)


@pytest.mark.slow
def test_runs_studies_and_samples_are_read_without_ff3d_as_the_page_says(readers, meshes, tmp_path):
    ball, box = map(str, meshes)
    coarse = ["--finest", "32", "--steps", "1"]
    assert main(["fit", ball, "--mapping", "voxels", *coarse, "--out", str(tmp_path / "run")]) == 0
    mapping, sha256, scores = readers["read_run"](tmp_path / "run")
    assert mapping == "voxels"
    assert len(sha256) == 64
    assert scores["uniform"] > 0.9
    study = str(tmp_path / "study")
    command = ["benchmark", ball, "--mappings", "voxels", "--seeds", "0", "--workers", "0", *coarse]
    assert main([*command, "--resolution", "16", "--out", study]) == 0
    assert ("ball", "voxels", 0) in readers["read_study"](tmp_path / "study")
    assert main(["prepare", box, "--points", "500", "--out", str(tmp_path / "samples")]) == 0
    points, inside, meta = readers["read_samples"](tmp_path / "samples/box.npz")
    assert inside.tolist() == (np.abs(points) < 0.5).all(axis=1).tolist()
    assert meta["mesh"] == "box.ply"


def test_every_page_is_in_the_navigation_and_links_inside_the_docs_resolve():
    navigation = set(re.findall(r"(\S+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.M))
    made = {"contributing.md", "changelog.md", "examples.md"}
    assert {path.name for path in DOCS.glob("*.md")} | made == navigation
    for path in DOCS.glob("*.md"):
        for target in re.findall(r"\]\(([^)#\s]+)", path.read_text(encoding="utf-8")):
            if not target.startswith("http"):
                assert (DOCS / target).exists(), f"{path.name}: {target}"
    for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md"):
        for target in re.findall(r"\]\(([^)#\s]+)", path.read_text(encoding="utf-8")):
            assert target.startswith("http") or (ROOT / target).exists(), f"{path.name}: {target}"


def test_every_error_of_the_page_is_one_that_the_code_has():
    sources = [ast.parse(path.read_text(encoding="utf-8")) for path in (ROOT / "ff3d").rglob("*.py")]
    texts = "\n".join(
        "".join(part.value if isinstance(part, ast.Constant) else "\0" for part in node.values)
        if isinstance(node, ast.JoinedStr)
        else node.value
        for tree in sources
        for node in ast.walk(tree)
        if isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))
    )
    page = (DOCS / "troubleshooting.md").read_text(encoding="utf-8")
    phrases = [phrase for row in re.findall(r"^\| (`.*?) \|", page, re.M) for phrase in re.findall(r"`(.+?)`", row)]
    assert len(phrases) > 60
    for phrase in phrases:
        assert re.search("\0".join(map(re.escape, re.split(r"\b(?:[NMXY])\b", phrase))), texts), phrase
