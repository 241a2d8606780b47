import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import psutil
import pytest
import trimesh
from fsspec.exceptions import FSTimeoutError
from fsspec.implementations.local import LocalFileSystem
from fsspec.registry import register_implementation

from ff3d.fitting import train
from ff3d.formats.writers import save_mesh
from ff3d.geometry.cores import limited_threads
from ff3d.jobs import Executor
from ff3d.studies.plan import make_plan
from ff3d.studies.study import run_study
from ff3d.studies.task import ROW, Row
from ff3d.studies.workers import CHECKPOINT, FIELD, UNFINISHED, Workers, _kept

pytestmark = pytest.mark.slow

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


def workers(pid=None):
    """The worker processes of this process, or another: what its fork server started."""
    started = psutil.Process(pid).children()
    return [it for child in started for it in (child.children() if sys.platform == "linux" else [child])]


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
    plan = make_plan(meshes[:1], ("none", "basic"), (0,), steps=3000, **TINY)
    started = tmp_path / "ball-none-0" / "config.json"

    def kill():
        while not started.exists():
            time.sleep(0.02)
        workers()[0].kill()

    thread = threading.Thread(target=kill)
    thread.start()
    study = run_study(plan, tmp_path, workers=Workers(1))
    thread.join()
    assert "signal 9" in study.rows[0].failure
    assert study.rows[1].failure is None
    assert "signal 9" in (tmp_path / "ball-none-0" / ROW).read_text()


def test_a_killed_process_leaves_no_copies_of_what_lies_at_an_address(meshes, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # not that of the workers, which have a server of their own
    plan = make_plan(meshes[:1], ("none",), (0,), steps=10**9, **TINY)

    def kill():
        deadline = time.monotonic() + 60
        while not list(tmp_path.glob("ff3d-*/ff3d-*/ball-none-0/config.json")) and time.monotonic() < deadline:
            time.sleep(0.02)
        workers()[0].kill()

    thread = threading.Thread(target=kill)
    thread.start()
    study = run_study(plan, f"file://{tmp_path}/away", workers=Workers(1))
    thread.join()
    assert "signal 9" in study.rows[0].failure
    assert list(study.folder.glob("ff3d-*/ball-none-0/config.json"))
    folder = study.folder
    del study
    assert not folder.exists()


def runnable(process):
    """How many of a process's threads run, or could."""
    states = [
        path.read_text().rpartition(")")[2].split()[0] for path in Path(f"/proc/{process.pid}/task").glob("*/stat")
    ]
    return states.count("R")


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_two_workers_on_two_cores_are_two_threads_in_all(meshes, tmp_path):
    plan = make_plan(meshes, ("gaussian",), (0, 1), steps=200, **TINY | {"width": 128, "batch_size": 1024})
    seen, done = [], threading.Event()

    def watch():
        while not done.wait(0.01):
            with contextlib.suppress(OSError, psutil.Error):  # one that ends meanwhile
                seen.append([runnable(process) for process in workers()])

    thread = threading.Thread(target=watch)
    thread.start()
    with limited_threads(2):
        study = run_study(plan, tmp_path, workers=Workers(2))
    done.set()
    thread.join()
    assert study.missing == 0
    counts = [count for both in seen for count in both if count]
    assert len(counts) > 50
    # a thread that has just woken another may be seen beside it; two that work together were seen half the time
    assert sum(count > 1 for count in counts) < 0.1 * len(counts)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"processes": -1}, "workers"),
        ({"processes": 1, "timeout": 0}, "timeout must be positive"),
        ({"timeout": 60}, "--timeout needs --workers or --ray"),
    ],
)
def test_workers_out_of_range_are_refused(settings, says):
    with pytest.raises(ValueError, match=says):
        Workers(**settings)


@pytest.mark.filterwarnings("ignore")  # the cluster's own
@pytest.mark.usefixtures("only_cluster")
def test_a_cluster_of_three_nodes_one_of_which_is_killed_gives_the_same_rows(meshes, tmp_path):
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


class Benchmark:
    """`ff3d benchmark` of two long fits in two workers, in a process group of its own, as from a shell."""

    def __init__(self, mesh, out):
        self.out = out
        self.command = [sys.executable, "-m", "ff3d.cli", "benchmark", str(mesh), "--mappings", "none", "--seeds"]
        self.command += ["0", "1", "--workers", "2", "--seconds", "100", "--resolution", "16", "--out", str(out)]
        self.command += ["--width", "16", "--depth", "2", "--batch-size", "256", "--device", "cpu"]

    def __enter__(self):
        self.process = subprocess.Popen(
            self.command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
        )
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.stdout.close()

    def wait_for_training(self):
        while len(list(self.out.glob("*/metrics.jsonl"))) < 2:
            assert self.process.poll() is None
            time.sleep(0.05)

    def ends(self):
        """What it said, and that nothing of it is left, well before its fits would end by themselves."""
        family = [self.process.pid, *(it.pid for it in psutil.Process(self.process.pid).children(recursive=True))]
        said = self.process.communicate(timeout=240)[0]
        while any(map(psutil.pid_exists, family)):
            time.sleep(0.05)
        return said


def begun(benchmark):
    return psutil.Process(benchmark.process.pid).children()


def forked(benchmark):
    return workers(benchmark.process.pid)


@pytest.mark.parametrize("moment", [begun, forked])
def test_ctrl_c_is_heard_also_before_training(tmp_path, moment):
    mesh = tmp_path / "large.ply"
    save_mesh(trimesh.creation.icosphere(subdivisions=7), mesh)  # to label it takes a while
    with Benchmark(mesh, tmp_path / "out") as benchmark:
        while not moment(benchmark):
            time.sleep(0.01)
        benchmark.process.send_signal(signal.SIGINT)  # to the parent alone
        benchmark.ends()
        assert benchmark.process.returncode == 130
    assert not list(tmp_path.glob(f"out/*/{ROW}"))
    assert not list(tmp_path.glob("out/*/metrics.jsonl"))


@pytest.mark.parametrize(
    ("number", "whom"),
    [
        (signal.SIGINT, "group"),  # a terminal
        (signal.SIGTERM, "parent"),  # kill
        (signal.SIGTERM, "group"),  # systemd, a batch system
    ],
)
def test_a_signal_keeps_and_measures_both_fits_and_leaves_no_process(meshes, tmp_path, number, whom):
    with Benchmark(meshes[0], tmp_path / "out") as benchmark:
        benchmark.wait_for_training()
        (os.killpg if whom == "group" else os.kill)(benchmark.process.pid, number)
        said = benchmark.ends()
        assert "interrupted, 2 fits are missing or cut short" in said
        assert benchmark.process.returncode == 128 + number
    for seed in (0, 1):
        folder = tmp_path / "out" / f"ball-none-{seed}"
        assert {"checkpoint.safetensors", "field.safetensors"} < {path.name for path in folder.iterdir()}
        assert not (folder / ROW).exists()


def test_a_second_ctrl_c_ends_at_once(meshes, tmp_path):
    with Benchmark(meshes[0], tmp_path / "out") as benchmark:
        benchmark.wait_for_training()
        for _ in range(2):
            os.killpg(benchmark.process.pid, signal.SIGINT)
            time.sleep(0.2)
        assert "interrupted, " not in benchmark.ends()  # no report of what is left
        assert benchmark.process.returncode == 130


def test_workers_end_with_their_parent_even_if_it_is_killed(meshes, tmp_path):
    with Benchmark(meshes[0], tmp_path / "out") as benchmark:
        benchmark.wait_for_training()
        benchmark.process.kill()
        benchmark.ends()


def test_a_fit_at_an_address_resumes_from_the_checkpoint_that_was_sent_there(meshes, tmp_path, monkeypatch):
    plan = make_plan(meshes[:1], ("none",), (0,), steps=60, **TINY)
    whole = run_study(plan, tmp_path / "whole", workers=Workers(threads=1))
    address, place = f"file://{tmp_path}/away", tmp_path / "away" / "ball-none-0"

    def interrupting(*arguments, on_evaluation, **settings):
        def told(progress):
            on_evaluation(progress)
            signal.raise_signal(signal.SIGINT)

        return train(*arguments, on_evaluation=told, **settings)

    monkeypatch.setattr("ff3d.runs.train", interrupting)
    study = run_study(plan, address, workers=Workers(threads=1))  # each run_study keeps its files elsewhere
    assert study.missing == 1
    assert {it.name for it in place.iterdir()} == set(UNFINISHED)
    assert study.rows[0].steps < 60

    def resuming(*arguments, checkpoint, **settings):
        assert checkpoint.exists()
        return train(*arguments, checkpoint=checkpoint, **settings)

    monkeypatch.setattr("ff3d.runs.train", resuming)
    assert measured(run_study(plan, address, workers=Workers(threads=1))) == measured(whole)
    assert not (place / "checkpoint.safetensors").exists()
    assert (place / ROW).exists()


class Noting(LocalFileSystem):
    """A place that notes what comes to lie there, in order."""

    protocol = "noting"
    noted: ClassVar[list[str]] = []

    def put_file(self, lpath, rpath, *arguments, **settings):
        self.noted.append(Path(rpath).name)
        super().put_file(lpath, rpath, *arguments, **settings)

    def rm_file(self, path):
        self.noted.append(f"-{Path(path).name}")
        super().rm_file(path)


def test_an_upload_that_breaks_off_anywhere_leaves_no_half_trained_field_that_looks_finished(
    meshes, tmp_path, monkeypatch
):
    register_implementation("noting", Noting, clobber=True)
    task = make_plan(meshes[:1], ("none",), (0,), steps=60, **TINY).tasks()[0]
    address, noted = f"noting://{tmp_path}/away", Noting.noted

    def interrupting(*arguments, on_evaluation, **settings):
        def told(progress):
            on_evaluation(progress)
            signal.raise_signal(signal.SIGINT)

        return train(*arguments, on_evaluation=told, **settings)

    with monkeypatch.context() as patch:
        patch.setattr("ff3d.runs.train", interrupting)
        assert not _kept(task, address, "")[1]
    assert noted == ["config.json", "metrics.jsonl", CHECKPOINT, FIELD]
    noted.clear()
    assert _kept(task, address, "")[1]
    last = len(noted) - 1 - noted[::-1].index(ROW)
    assert noted[last - 1 :] == [FIELD, ROW, f"-{CHECKPOINT}"]
    assert {"config.json", "mesh.ply", "metrics.jsonl"} < set(noted[: last - 1])


@dataclass(frozen=True)
class Raising:
    """A job, or what takes a task's place, that raises what a network does."""

    name: str = "ball-none-0"

    def rows(self):
        raise FSTimeoutError("the store did not answer")

    def lost(self, reason):
        return [{"failure": reason}]

    config = property(rows)


@dataclass(frozen=True)
class Sleeping(Raising):
    """A job that hangs."""

    def rows(self):
        time.sleep(600)


@pytest.mark.parametrize("timeout", [None, 60.0])
def test_a_timeout_of_a_network_is_not_that_of_a_pool(tmp_path, timeout):
    with pytest.raises(FSTimeoutError, match="the store did not answer"):
        list(Executor(1, timeout).outcomes([Raising()]))
    assert list(Executor(1, 1.0).outcomes([Sleeping()])) == [(0, [{"failure": "no end after 1 s; see --timeout"}])]
    with pytest.raises(FSTimeoutError, match="the store did not answer"):
        list(Workers(1, timeout=timeout).rows([Raising()], str(tmp_path)))
    assert not list(tmp_path.glob(f"*/{ROW}"))


@pytest.mark.filterwarnings("ignore")  # the cluster's own
@pytest.mark.usefixtures("only_cluster")
def test_what_a_cluster_loses_is_a_row_on_disk_that_is_not_done_again(meshes, tmp_path):
    pytest.importorskip("ray", reason="ray is not installed")
    blocked = tmp_path / "out" / "ball-none-0"
    blocked.mkdir(parents=True)
    (blocked / "mesh.ply").mkdir()  # where the fit writes a file
    plan = make_plan(meshes[:1], ("none",), (0,), steps=3, **TINY)
    study = run_study(plan, tmp_path / "out", workers=Workers(threads=1, ray="local"))
    import ray

    ray.shutdown()
    assert study.rows[0].failure.startswith("the cluster could not do it")
    assert Row.from_json((blocked / ROW).read_text()) == study.rows[0]
    assert run_study(plan, tmp_path / "out").rows == study.rows
