import os
import subprocess
import sys

import psutil
import pytest
import torch
from threadpoolctl import threadpool_info

from ff3d.geometry.cores import (
    SPINS,
    VARIABLES,
    WAITING,
    available_memory,
    limit_threads,
    limited_affinity,
    limited_threads,
    processors,
    threads,
)

# Work for every library that has threads of its own; says of each how much of it was not done by the main thread
WORK = """
import sys, time
from ff3d.geometry import cores
if sys.argv[1] == "before":
    cores.limit_threads(1)
import igl, numpy as np, psutil, torch, trimesh
from embreex.mesh_construction import TriangleMesh
from scipy.spatial import cKDTree
if sys.argv[1] == "after":
    cores.limit_threads(1)
rng = np.random.default_rng(0)
points = rng.uniform(-1, 1, (100_000, 3))
ball = trimesh.creation.icosphere(subdivisions=4)
vertices, faces = np.asarray(ball.vertices), np.asarray(ball.faces, dtype=np.int64)
matrix, tensor = rng.uniform(size=(1500, 1500)), torch.rand(1500, 1500)
many = np.tile(vertices[faces].astype(np.float32), (40, 1, 1))

def embree(triangles):
    scene = cores.embree_scene()
    TriangleMesh(scene, triangles)
    scene.run(np.zeros((1, 3), np.float32), np.eye(3, dtype=np.float32)[:1])

embree(many[:1])
work = {
    "torch": lambda: [tensor @ tensor for _ in range(4)],
    "numpy": lambda: [matrix @ matrix for _ in range(4)],
    "libigl": lambda: igl.winding_number(vertices, faces, points[:4000]),
    "scipy": lambda: cKDTree(points).query(points, k=8, workers=cores.threads()),
    "embree": lambda: embree(many),
}
for name, do in work.items():
    everyone, main = time.process_time(), time.thread_time()
    do()
    everyone, main = time.process_time() - everyone, time.thread_time() - main
    print(name, 1 - main / everyone)
"""


def done_by_others(how, **environment):
    """The share of the work that was not done by the main thread, by library."""
    plain = {name: value for name, value in os.environ.items() if name not in (*VARIABLES, *WAITING)}
    done = subprocess.run(
        [sys.executable, "-c", WORK, how], capture_output=True, text=True, check=True, env=plain | environment
    )
    return {name: float(share) for name, share in map(str.split, done.stdout.splitlines())}


@pytest.mark.parametrize(("how", "environment"), [("before", {}), ("after", {}), ("never", {"OMP_NUM_THREADS": "1"})])
def test_one_limit_is_kept_by_every_library(how, environment):
    shares = done_by_others(how, **environment)
    libraries = ("torch", "numpy", "libigl", "scipy", "embree")
    if how == "never":  # the user's own word, which libigl does not know
        libraries = ("torch", "numpy", "scipy", "embree")
    assert {name: share for name, share in shares.items() if share > 0.05 and name in libraries} == {}


@pytest.mark.skipif(processors() < 2, reason="one processor")
def test_without_a_limit_the_work_is_shared():
    shares = done_by_others("never")
    assert min(shares[name] for name in ("torch", "numpy", "libigl", "scipy")) > 0.2


def counts():
    return (
        {name: os.environ.get(name) for name in VARIABLES},
        torch.get_num_threads(),
        sorted((pool["filepath"], pool["num_threads"]) for pool in threadpool_info()),
    )


def test_a_limit_for_a_while_leaves_no_trace(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    monkeypatch.delenv("IGL_NUM_THREADS", raising=False)
    before = counts()
    with limited_threads(1):
        assert threads() == 1
        assert torch.get_num_threads() == 1
        assert {pool["num_threads"] for pool in threadpool_info()} == {1}
    assert counts() == before
    with limited_threads(None):
        assert counts() == before


def test_what_is_started_later_keeps_the_limit():
    code = "from ff3d.geometry.cores import threads; import torch; print(threads(), torch.get_num_threads())"
    with limited_threads(1):
        assert subprocess.check_output([sys.executable, "-c", code], text=True) == "1 1\n"


@pytest.mark.parametrize(("value", "count"), [("1", 1), ("1,4", 1), ("999", None), ("0", None), ("many", None)])
def test_the_users_own_limit_is_kept_and_is_no_more_than_the_processors(monkeypatch, value, count):
    monkeypatch.setenv("OMP_NUM_THREADS", value)
    assert threads() == (count or processors())


def test_less_than_one_thread_is_refused():
    with pytest.raises(ValueError, match="at least 1, got 0"):
        limit_threads(0)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity") or processors() < 2, reason="no affinity, or one processor")
def test_affinity_counts_and_is_narrowed_only_for_a_while(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)  # set where tests run side by side
    allowed = os.sched_getaffinity(0)
    with limited_threads(1):
        with limited_affinity():
            assert len(os.sched_getaffinity(0)) == processors() == 1
        assert os.sched_getaffinity(0) == allowed
    with limited_affinity():
        assert os.sched_getaffinity(0) == allowed


@pytest.mark.parametrize(
    ("cgroup", "files", "quota"),
    [
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 2),
        ("0::/a/b\n", {"a/cpu.max": "50000 100000\n", "a/b/cpu.max": "max 100000\n"}, 1),
        ("0::/\n", {"cpu.max": "max 100000\n"}, 10**6),
        ("0::/\n", {}, 10**6),
        ("0::/\n", {"cpu.max": "much\n"}, 10**6),
        (
            "12:memory:/x\n4:cpu,cpuacct:/x\n0::/\n",
            {"cpu,cpuacct/cpu.cfs_quota_us": "99000\n", "cpu,cpuacct/cpu.cfs_period_us": "100000\n"},
            1,
        ),
        ("4:cpu,cpuacct:/\n", {"cpu,cpuacct/cpu.cfs_quota_us": "-1\n", "cpu,cpuacct/cpu.cfs_period_us": "1\n"}, 10**6),
    ],
)
def test_quotas_of_control_groups_count_rounded_up(tmp_path, cgroup, files, quota):
    entries = {"proc/self/cgroup": cgroup} | {f"sys/fs/cgroup/{name}": text for name, text in files.items()}
    for name, text in entries.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert processors(tmp_path) == min(quota, processors(tmp_path / "none"))


STATISTICS = "anon 3000000\ninactive_file 1500000\ntotal_inactive_file 2500000\n"


@pytest.mark.parametrize(
    ("cgroup", "files", "left"),
    [
        ("0::/\n", {"memory.max": "8000000\n", "memory.current": "5000000\n"}, 4_500_000),
        (
            "0::/a/b\n",
            {"a/memory.max": "9000000\n", "a/memory.current": "5000000\n", "a/b/memory.max": "max\n"},
            5_500_000,
        ),
        ("0::/\n", {"memory.max": "1000\n", "memory.current": "5000000\n"}, 0),
        ("0::/\n", {"memory.max": "max\n", "memory.current": "5000000\n"}, None),
        ("0::/\n", {}, None),
        (
            "9:memory:/job\n4:cpu,cpuacct:/\n",
            {"memory/job/memory.limit_in_bytes": "8000000\n", "memory/job/memory.usage_in_bytes": "5000000\n"},
            5_500_000,
        ),
        ("9:memory:/\n", {"memory/memory.limit_in_bytes": "9e18\n", "memory/memory.usage_in_bytes": "1\n"}, None),
    ],
)
def test_the_memory_available_is_that_of_the_control_group_with_the_least(tmp_path, cgroup, files, left):
    places = {name.rpartition("/")[0] for name in files}
    files = files | {f"{place}/memory.stat" if place else "memory.stat": STATISTICS for place in places}
    entries = {"proc/self/cgroup": cgroup} | {f"sys/fs/cgroup/{name}": text for name, text in files.items()}
    for name, text in entries.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    found = available_memory(tmp_path)
    assert found == (left if left is not None else pytest.approx(psutil.virtual_memory().available, rel=0.2))


@pytest.mark.parametrize("users", [None, *WAITING])
def test_how_threads_wait_is_chosen_only_where_the_user_has_not(users):
    code = "import os; from ff3d.geometry import cores; cores.shorten_waits(); print(os.environ.get('GOMP_SPINCOUNT'))"
    plain = {name: value for name, value in os.environ.items() if name not in WAITING}
    plain |= {} if users is None else {users: "7"}
    said = subprocess.check_output([sys.executable, "-c", code], text=True, env=plain).strip()
    assert said == {None: str(SPINS), "GOMP_SPINCOUNT": "7"}.get(users, "None")
