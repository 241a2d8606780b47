"""A Ray cluster on a bad day: what it listens at, jobs that raise, results that do not fit, no cluster at all."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest
import trimesh

from ff3d.cli.main import main
from ff3d.formats.writers import save_mesh
from ff3d.jobs import cluster_failure, on_cluster
from ff3d.studies.plan import make_plan
from ff3d.studies.study import run_study
from ff3d.studies.workers import Workers

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # the cluster's own


@pytest.fixture(scope="module")
def ray(only_cluster_of_module):
    """A cluster as `--ray local` starts one, with an object store of the least size that cannot grow."""
    ray = pytest.importorskip("ray", reason="ray is not installed")
    ray.init(
        "local",  # not one that another test has started meanwhile
        num_cpus=1,
        object_store_memory=80 * 10**6,
        include_dashboard=False,
        log_to_driver=False,
        _system_config={"automatic_object_spilling_enabled": False},
    )
    yield ray
    ray.shutdown()


def outcomes(function, items):
    found = dict(on_cluster(function, items, "local"))
    return [found[number] for number in range(len(items))]


def test_a_cluster_of_this_machine_listens_at_loopback_alone(ray):
    assert outcomes(lambda number: number + 1, [1, 2]) == [2, 3]
    family = psutil.Process().children(recursive=True)
    listening = [it for child in family for it in child.net_connections() if it.status == psutil.CONN_LISTEN]
    assert listening
    assert {it.laddr.ip.removeprefix("::ffff:") for it in listening} <= {"127.0.0.1", "::1"}


def test_a_cluster_of_this_machine_is_a_new_one_whatever_the_environment_names(ray):
    program = """
import ray
from ff3d.jobs import on_cluster
print(dict(on_cluster(lambda _: ray.get_runtime_context().gcs_address, [0], "local"))[0])
"""
    around = ray.get_runtime_context().gcs_address
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"RAY_ADDRESS": around},
        capture_output=True,
        text=True,
        timeout=200,
        check=True,
    )
    assert done.stdout.strip() not in ("", around)


def test_paths_are_relative_to_the_folder_of_the_command_wherever_the_cluster_was_started(ray, tmp_path, monkeypatch):
    assert outcomes(os.path.abspath, ["x"]) == [os.path.abspath("x")]
    monkeypatch.chdir(tmp_path)
    save_mesh(trimesh.creation.icosphere(subdivisions=2), "x.ply")
    assert main(["watertight", "x.ply", "--resolution", "16", "--out", "closed", "--ray", "local"]) == 0
    assert main(["prepare", "x.ply", "--points", "100", "--out", "sets", "--ray", "local"]) == 0
    plan = make_plan(["x.ply"], ("none",), (0,), steps=3, width=16, depth=2, device="cpu", resolution=16)
    [row] = run_study(plan, "study", workers=Workers(threads=1, ray="local")).rows
    assert row.faces or "found nothing" in row.failure
    assert Path("closed/x.ply").is_file()
    assert Path("sets/x.npz").is_file()
    assert Path("study/x-none-0/field.safetensors").is_file()
    assert [
        json.loads(Path(rows).read_text())["mesh"] for rows in ("closed/watertight.jsonl", "sets/prepared.jsonl")
    ] == ["x.ply"] * 2


def test_a_job_that_raises_is_an_error_of_one_line_and_the_next_is_done(ray):
    def job(number):
        if number == 1:
            raise OSError(f"the address is gone\n{'!' * 1000}")
        return number

    one, error, three = outcomes(job, [0, 1, 2])
    assert (one, three) == (0, 2)
    said = cluster_failure(error)
    assert said.startswith("the cluster could not do it: the address is gone")
    assert "\n" not in said
    assert len(said) < 400


def test_a_result_that_the_object_store_has_no_room_for_is_an_error_and_the_next_is_done(ray):
    error, rows = outcomes(lambda size: np.zeros(size, dtype=np.uint8), [300 * 10**6, 10])
    assert "the cluster could not do it: " in cluster_failure(error)
    assert "\n" not in cluster_failure(error)
    assert len(rows) == 10


def test_where_no_cluster_answers_one_line_says_so(ray):
    ray.shutdown()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        port = taken.getsockname()[1]
        for address in (
            "auto",
            f"127.0.0.1:{port}",
            f"ray://127.0.0.1:{port}",
            f"nowhere.invalid:{port}",
            "127.0.0.1:99999",
        ):
            with pytest.raises(ValueError, match="no cluster") as caught:
                next(on_cluster(len, ["a"], address))
            assert "\n" not in str(caught.value)
