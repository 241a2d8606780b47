import os
import threading
import time

import psutil
import pytest

from ff3d.studies.plan import make_plan
from ff3d.studies.study import run_study
from ff3d.studies.task import ROW
from ff3d.studies.workers import Workers

TINY = {
    "width": 16,
    "depth": 2,
    "frequencies": 8,
    "batch_size": 256,
    "pool_size": 1024,
    "device": "cpu",
    "precision": "float32",
    "learning_rate": 0.01,
    "resolution": 16,
}


def measured(study):
    """What of the rows is not the clock's, by the fit's name."""
    return {
        study.run(row).name: (row.sha256, row.steps, row.bytes, row.tests, row.iou, row.surface, row.failure)
        for row in study.rows
    }


@pytest.fixture(scope="module")
def plan(meshes):
    return make_plan(meshes, ("none", "basic"), (0, 1), steps=60, **TINY)


@pytest.fixture(scope="module")
def here(plan, tmp_path_factory):
    return measured(run_study(plan, tmp_path_factory.mktemp("here"), workers=Workers(threads=1)))


def test_processes_beside_this_one_give_the_same_rows(plan, here, tmp_path):
    assert measured(run_study(plan, tmp_path, workers=Workers(2, threads=1))) == here


def test_at_an_address_the_same_files_come_to_lie_and_what_is_there_is_not_done_again(plan, here, tmp_path):
    address = f"file://{tmp_path}/away"
    study = run_study(plan, address, workers=Workers(threads=1))
    assert measured(study) == here
    files = {path.name for path in (tmp_path / "away" / "ball-none-0").iterdir()}
    assert files == {"config.json", "field.safetensors", "mesh.ply", "metrics.jsonl", ROW}
    stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / "away").glob("*/*")}
    assert len((tmp_path / "away" / "rows.jsonl").read_text().splitlines()) == plan.fits
    assert measured(run_study(plan, address, workers=Workers(1))) == here
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps


def test_a_fit_that_hangs_is_a_row_and_the_next_is_done(meshes, tmp_path):
    plan = make_plan(meshes[:1], ("none",), (0, 1), steps=10**9, **TINY)
    study = run_study(plan, tmp_path, workers=Workers(1, timeout=8))
    assert [row.failure for row in study.rows] == ["no end after 8 s; see --timeout"] * 2
    assert study.missing == 0


def test_a_fit_whose_process_is_killed_is_a_row_and_the_next_is_done(meshes, tmp_path):
    plan = make_plan(meshes[:1], ("none", "basic"), (0,), seconds=8, **TINY)
    started = tmp_path / "ball-none-0" / "config.json"

    def kill():
        while not started.exists():
            time.sleep(0.02)
        for process in psutil.Process(os.getpid()).children(recursive=True):
            if any("spawn_main" in it for it in process.cmdline()):
                process.kill()

    thread = threading.Thread(target=kill)
    thread.start()
    study = run_study(plan, tmp_path, workers=Workers(1, timeout=60))
    thread.join()
    assert "signal 9" in study.rows[0].failure
    assert study.rows[1].failure is None
    assert "signal 9" in (tmp_path / "ball-none-0" / ROW).read_text()


@pytest.mark.parametrize(("settings", "says"), [({"processes": -1}, "workers"), ({"timeout": 0}, "timeout")])
def test_workers_out_of_range_are_refused(settings, says):
    with pytest.raises(ValueError, match=says):
        Workers(**settings)


@pytest.mark.filterwarnings("ignore")  # the cluster's own
def test_a_cluster_of_three_nodes_one_of_which_is_killed_gives_the_same_rows(meshes, tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # what makes it keep to loopback
    pytest.importorskip("ray", reason="ray is not installed")
    from ray.cluster_utils import Cluster

    plan = make_plan(meshes, ("none", "basic", "gaussian"), (0, 1, 2, 3), steps=60, **TINY)
    assert plan.fits == 24
    alone = run_study(plan, tmp_path / "alone", workers=Workers(threads=1))
    memory = {"object_store_memory": 100 * 2**20}
    cluster = Cluster(True, head_node_args={"num_cpus": 0, "node_ip_address": "127.0.0.1", **memory})
    try:
        nodes = [cluster.add_node(num_cpus=1, **memory) for _ in range(3)]
        cluster.wait_for_nodes()
        out = tmp_path / "cluster"

        def kill():
            while len(list(out.glob(f"*/{ROW}"))) < 4:
                time.sleep(0.05)
            cluster.remove_node(nodes[1], allow_graceful=False)

        thread = threading.Thread(target=kill)
        thread.start()
        study = run_study(plan, out, workers=Workers(threads=1, ray=cluster.address))
        thread.join()
        import ray

        assert sum(node["Alive"] and node["Resources"].get("CPU", 0) > 0 for node in ray.nodes()) == 2
    finally:
        import ray

        ray.shutdown()
        cluster.shutdown()
    assert len(study.rows) == 24
    assert measured(study) == measured(alone)
