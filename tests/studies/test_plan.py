import dataclasses
import json
import re

import numpy as np
import pytest
import trimesh

from ff3d.fields.config import Budget
from ff3d.settings import make_config
from ff3d.storage import Storage
from ff3d.studies.plan import PLAN, Plan, make_plan, matches_plan, provenance, read_plan, read_tuned
from ff3d.studies.study import _keep_plan, run_study
from ff3d.studies.task import Row


@pytest.fixture
def ball(tmp_path):
    path = tmp_path / "ball.ply"
    trimesh.creation.icosphere(subdivisions=1).export(path)
    return path


def test_every_combination_is_one_fit_with_its_own_folder(ball):
    plan = make_plan([ball], ("none", "gaussian"), (0, 1), vary={"scale": (4, 8, 12), "width": (8, 16)}, steps=5)
    tasks = plan.tasks()
    assert len(tasks) == plan.fits == 2 * 2 * 3 * 2
    assert len({task.name for task in tasks}) == len(tasks)
    assert len(plan.variants) == 2 * 3 * 2
    for task in tasks:
        assert (task.config.mapping.scale, task.config.network.width) == (task.varied["scale"], task.varied["width"])
        assert task.config.budget == Budget(steps=5)


def test_what_was_tuned_is_each_mappings_own(ball, tmp_path):
    (tmp_path / "tuned.json").write_text(json.dumps({"gaussian": {"learning_rate": 0.5, "scale": 7.0}}))
    plan = make_plan([ball], ("none", "gaussian"), (0,), tuned=tmp_path / "tuned.json", learning_rate=0.25)
    assert [(it.config.optimiser.learning_rate, it.config.mapping.scale) for it in plan.tasks()] == [
        (0.25, None),
        (0.5, 7.0),
    ]


def test_a_plan_counts_in_the_singular_and_the_plural(ball):
    one = make_plan([ball], ("none",), (0,), steps=5)
    assert str(one).startswith("1 mesh x 1 mapping x 1 seed = 1 fit, preset plain")
    many = make_plan([ball], ("none", "gaussian"), (0, 1, 2), steps=5, vary={"width": (8, 16), "scale": (1.0,)})
    assert str(many).startswith("1 mesh x 2 mappings x 2 values of width x 1 value of scale x 3 seeds = 12 fits")


@pytest.mark.parametrize(("seconds", "words"), [(10, "about 20 s of fitting"), (600, "about 20 minutes of fitting")])
def test_a_plan_says_how_long_it_takes(ball, seconds, words):
    assert str(make_plan([ball], ("none", "gaussian"), (0,), seconds=seconds)).endswith(words)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"steps": 7}, "equal steps (7 steps each)"),
        ({"seconds": 7}, "equal seconds (7 s each)"),
        ({"seconds": 7, "parameters": 5000}, "equal seconds (7 s each) and equal parameters (about 5,000)"),
        ({"vary": {"steps": (7, 8)}}, "different steps"),
        ({"vary": {"seconds": (7, 8)}}, "different seconds"),
        ({"vary": {"preset": ("plain", "paper")}}, "different seconds and steps"),
        ({"bytes": "50k", "mappings": ("voxels", "lattice")}, "equal bytes (50,000 bytes each)"),
        ({"preset": "small", "mappings": ("lattice", "voxels")}, "equal bytes (100,000 bytes each)"),
    ],
)
def test_a_plan_says_on_what_terms_its_arms_are_compared(ball, settings, words):
    plan = make_plan([ball], **{"mappings": ("none", "gaussian"), "seeds": (0,)} | settings)
    assert plan.basis == words
    assert words in str(plan)
    assert f"= {plan.fits} fits" in str(plan)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"mappings": ()}, "each once"),
        ({"seeds": (1, 1)}, "each once"),
        ({"vary": {"scale": ()}}, "each once"),
        ({"vary": {"mapping": ("none",)}}, "cannot vary mapping"),
        ({"vary": {"colour": (1,)}}, "cannot vary colour"),
        ({"vary": {"width": (-1,)}}, "width must be positive"),
        ({"seed": 1}, "seeds"),
        ({"colour": 1}, "unknown setting colour"),
        ({"mappings": ("gaussian", "hash"), "coarsest": 1024}, "coarsest must be at most finest"),
        ({"mappings": ("hash",), "vary": {"log2_table": (17, 30)}}, "log2_table must be a whole number from 1 to 24"),
        ({"frequencies": 2}, "frequencies must be at least 3"),
    ],
)
def test_what_does_not_fit_together_is_told_before_the_first_fit(ball, changes, says):
    with pytest.raises(ValueError, match=says):
        make_plan([ball], **{"mappings": ("none",), "seeds": (0,)} | changes)


def test_two_meshes_of_one_name_get_distinct_names_and_their_own_test_sets(ball, tmp_path):
    other = tmp_path / "ball.obj"
    trimesh.creation.box().export(other)
    plan = Plan((ball, other, tmp_path / "ball" / "box.ply"), ("none",), (0,), testsets=tmp_path)
    first, second, third = plan.names
    assert list(plan.names.values()) == list(plan.meshes)
    assert third == "box"
    assert first != second
    assert [task.mesh_name for task in plan.tasks()] == [first, second, "box"]
    assert [task.name for task in plan.tasks()] == [f"{name}-none-0" for name in plan.names]
    assert [task.testset for task in plan.tasks()] == [tmp_path / f"{name}.npz" for name in plan.names]
    for name in (first, second):
        assert re.fullmatch("ball-[0-9a-f]{16}", name)
    assert make_plan([ball], ("none",), (0,)).tasks()[0].name == "ball-none-0"


def test_one_mesh_twice_is_refused(ball):
    with pytest.raises(ValueError, match="each once"):
        Plan((ball, ball.parent / ".." / ball.parent.name / ball.name), ("none",), (0,))


def test_a_yaml_file_is_the_same_plan(ball, tmp_path):
    file = tmp_path / "plan.yaml"
    file.write_text(
        "meshes: [ball.ply]\nmappings: [none, gaussian]\nseeds: [4, 5]\n"
        "steps: 9\nresolution: 24\nvary: {scale: [3, 6]}\n"
    )
    made = make_plan([ball], ("none", "gaussian"), (4, 5), steps=9, resolution=24, vary={"scale": (3, 6)})
    assert read_plan(file) == made
    beside = read_plan(file, mappings=("none",), preset="plain")  # the file goes before what is given beside it
    assert beside.tasks() == made.tasks()


def test_a_glob_in_a_plan_starts_at_its_file(ball, tmp_path, monkeypatch):
    folder = tmp_path / "studies [1]"  # a name that is itself a pattern
    for place in (folder / "scans", tmp_path / "scans"):
        place.mkdir(parents=True)
        (place / "ball.ply").write_bytes(ball.read_bytes())
    monkeypatch.chdir(tmp_path)
    for name in ("scans/*.ply", "*/ball.ply", "**/*.ply"):
        (folder / "plan.yaml").write_text(f'meshes: ["{name}"]\nsteps: 1\n')
        assert read_plan(folder / "plan.yaml").meshes == (folder / "scans" / "ball.ply",)
    (folder / "plan.yaml").write_text(f'meshes: ["{tmp_path}/scans/*.ply"]\nsteps: 1\n')
    assert read_plan(folder / "plan.yaml").meshes == (tmp_path / "scans" / "ball.ply",)


@pytest.mark.parametrize(
    "text", ["", "meshes: ball.ply", "meshes: [ball.ply]\ncolour: 1", "meshes: [a.ply]", "{", "!!python/object:x.Y {}"]
)
def test_a_file_that_is_no_plan_is_named_in_one_line(ball, tmp_path, text):
    file = tmp_path / "plan.yaml"
    file.write_text(text)
    with pytest.raises(ValueError, match=r"plan\.yaml: not a plan") as stop:
        read_plan(file)
    assert "\n" not in str(stop.value)


@pytest.mark.parametrize("text", ["", "[]", '{"gaussian": 3}', "{"])
def test_a_file_that_tune_did_not_write_is_named(tmp_path, text):
    file = tmp_path / "tuned.json"
    file.write_text(text)
    with pytest.raises(ValueError, match=r"tuned\.json: not what ff3d tune writes"):
        read_tuned(file)


def test_an_empty_folder_holds_no_plan(ball, tmp_path):
    assert not matches_plan(tmp_path / "nothing", make_plan([ball]))


def test_a_preset_and_a_budget_in_a_file_take_the_place_of_those_given_beside_it(ball, tmp_path):
    file = tmp_path / "plan.yaml"
    file.write_text("meshes: [ball.ply]\npreset: small\nmappings: [hash]\nsteps: 9\nband: 0.01\n")
    plan = read_plan(file, preset="best", seconds=30, levels=7)
    assert plan.config == make_config("small", mapping="hash", steps=9, band=0.01, levels=7)


def test_the_table_of_a_preset_is_for_its_own_mapping(ball):
    plan = make_plan([ball], ("hash", "grid"), (0,), preset="best", steps=9, levels=3)
    hashed, grid = (task.config.mapping for task in plan.tasks())
    assert (hashed.levels, hashed.finest, hashed.log2_table) == (3, 1024, 19)
    assert (grid.levels, grid.finest, grid.log2_table) == (3, None, None)


@pytest.mark.parametrize("mappings", [("hash",), ("grid",), ("hash", "gaussian")])
def test_what_is_given_survives_in_a_plan_where_it_equals_the_presets(ball, mappings):
    plan = make_plan([ball], mappings, (0,), preset="best", steps=9, levels=6, finest=1024)
    for task in plan.tasks():
        assert (task.config.mapping.levels, task.config.mapping.finest) == (6, 1024)


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ('seeds: ["../../../evil"]', r"seeds\[0\] must be a whole number, got '../../../evil'"),
        ("seeds: 3", "seeds must be a list, got 3"),
        ("seeds: [-1]", "seeds must be a whole number from 0"),
        ("seeds: [1.5]", r"seeds\[0\] must be a whole number"),
        ('mappings: ["../../../evil"]', r"unknown mappings\[0\] '../../../evil'"),
        ("mappings: gaussian", "mappings must be a list"),
        ('vary: {device: ["../../../evil"]}', "cannot be the name of a folder"),
        ("vary: {scale: {a: 1}}", "vary.'scale' must be a list"),
        ("vary: [scale]", "vary must be an object"),
        ('resolution: "16"', "resolution must be a whole number"),
        ("resolution: 0", "resolution must be from 1 to"),
        ("steps: 1.e+400", "steps must be positive"),
        ("testsets: [a]", "testsets must be a text"),
        ("tuned: 3", "tuned must be a text"),
        ("preset: [plain]", "unhashable"),
        ("a: &a [x, x]\nb: [*a, *a]", "aliases"),
        ("a: " + "[" * 10**5, "nested too deeply"),
        ("a:\n " + "- " * 10**4, "nested too deeply"),
    ],
)
def test_a_value_of_a_plan_that_is_of_another_type_or_leads_elsewhere_is_refused_before_anything_is_written(
    ball, tmp_path, entry, says
):
    file = tmp_path / "plan.yaml"
    steps = "" if "steps" in entry else "steps: 3\n"
    file.write_text(f"meshes: [ball.ply]\n{steps}{entry}\n")
    with pytest.raises(ValueError, match=says) as stop:
        read_plan(file)
    assert str(stop.value).startswith(f"{file}: not a plan (")
    assert len(str(stop.value)) < 400


@pytest.mark.parametrize("text", ["[]", '{"settings": {}}', '{"meshes": []}', "[" * 10**5, "{"])
def test_a_file_that_is_no_record_of_a_plan_is_named(ball, tmp_path, text):
    (tmp_path / PLAN).write_text(text)
    with pytest.raises(ValueError, match=r"plan\.json: not the plan of a benchmark .*; give another --out"):
        run_study(make_plan([ball], ("none",), (0,), steps=3), tmp_path)


@pytest.mark.parametrize("text", ['{"evil": {"scale": 1}}', '{"gaussian": {"scale": [1]}}', '{"gaussian": [1]}'])
def test_tuned_settings_of_wrong_types_are_refused(tmp_path, text):
    (tmp_path / "tuned.json").write_text(text)
    with pytest.raises(ValueError, match=r"tuned\.json: not what ff3d tune writes"):
        read_tuned(tmp_path / "tuned.json")


def test_the_folder_of_a_fit_to_a_mesh_of_a_long_name_can_be_made(ball, tmp_path):
    mesh = ball.rename(tmp_path / ("n" * 250 + ".ply"))
    plan = make_plan([mesh], ("none", "gaussian"), (0, 1), steps=3)
    names = [task.name for task in plan.tasks()]
    assert len(set(names)) == 4
    assert max(map(len, names)) <= 200
    assert [Row.failed(task, "").name for task in plan.tasks()] == names


@pytest.mark.parametrize(
    "settings",
    [
        {"mappings": ("voxels", "lattice"), "bytes": "50k"},
        {"mappings": ("lattice",), "preset": "small"},
        {"mappings": ("gaussian", "positional"), "preset": "fast", "parameters": 100_000},
    ],
)
def test_every_plan_that_can_be_made_can_be_kept_and_resumed(ball, tmp_path, settings):
    plan = make_plan([ball], seeds=(0,), **settings)
    assert plan.config.budget == plan.tasks()[0].config.budget
    _keep_plan(plan, Storage(tmp_path), force=False)
    assert matches_plan(tmp_path, plan)
    assert matches_plan(tmp_path, make_plan([ball], seeds=(0, 1), **settings | {"mappings": settings["mappings"][:1]}))
    assert not matches_plan(tmp_path, make_plan([ball], seeds=(0,), **settings | {"margin": 0.5}))


def test_what_a_plan_records_of_its_settings_is_what_earlier_versions_recorded(ball):
    plan = make_plan([ball], ("hash",), (0,), preset="best", seconds=9, vary={"width": (8, 16)})
    before = make_config("best", seconds=9, mapping="none", seed=0).flat()
    assert provenance(plan)["settings"] == json.loads(json.dumps({k: v for k, v in before.items() if k != "width"}))


def frozen(folder, seed):
    folder.mkdir(exist_ok=True)
    points = np.random.default_rng(seed).uniform(-1, 1, (64, 3))
    np.savez(folder / "ball.npz", uniform=points, uniform_inside=np.linalg.norm(points, axis=1) < 1)
    return folder


def test_test_sets_are_compared_by_what_they_hold_wherever_they_lie(ball, tmp_path):
    def plan(testsets):
        return make_plan([ball], ("none",), (0,), steps=1, testsets=testsets)

    one, out = frozen(tmp_path / "one", 0), tmp_path / "out"
    _keep_plan(plan(one), Storage(out), force=False)
    assert matches_plan(out, plan(one))
    assert matches_plan(out, plan(frozen(tmp_path / "same", 0)))
    assert not matches_plan(out, plan(frozen(tmp_path / "other", 1)))
    assert not matches_plan(out, plan(None))
    frozen(one, 1)
    assert not matches_plan(out, plan(one))


def test_a_study_of_an_earlier_version_resumes_and_then_knows_its_test_sets(ball, tmp_path):
    out = tmp_path / "out"
    plan = make_plan([ball], ("none",), (0,), steps=1, testsets=frozen(tmp_path / "one", 0))
    _keep_plan(plan, Storage(out), force=False)
    stored = json.loads((out / PLAN).read_text())
    (out / PLAN).write_text(json.dumps({name: value for name, value in stored.items() if name != "tests"}))
    assert not matches_plan(out, dataclasses.replace(plan, testsets=frozen(tmp_path / "same", 0)))  # by path alone
    _keep_plan(plan, Storage(out), force=False)
    assert json.loads((out / PLAN).read_text()) == stored


def test_what_is_typed_goes_before_the_file_and_the_file_before_what_is_usual(ball, tmp_path):
    file = tmp_path / "plan.yaml"
    file.write_text("meshes: [ball.ply]\nmappings: [none]\nseeds: [4, 5]\nsteps: 9\nresolution: 24\n")
    plan = read_plan(file, {"seeds": (7,), "seconds": 3.0}, seeds=(0, 1, 2), resolution=192, width=16)
    assert (plan.mappings, plan.seeds, plan.resolution) == (("none",), (7,), 24)
    assert plan.tasks()[0].config == make_config(mapping="none", seed=7, seconds=3.0, width=16)
