"""A library call changes nothing of the process that it did not make: the commands and the workers do."""

import os
import subprocess
import sys

import pytest

from ff3d.geometry.cores import SPINS

# What a process is like, before and after a fit, labels and an extraction from Python
LIBRARY = """
import json, logging, os, signal, sys
import psutil, numpy as np, torch, trimesh, igl
from threadpoolctl import threadpool_info

def memory():
    "MiB that stay with the process of a buffer that it frees"
    before = psutil.Process().memory_info().rss
    array = np.ones(2**23)
    del array
    return (psutil.Process().memory_info().rss - before) / 2**20

def state():
    return json.dumps({
        "environment": dict(os.environ),
        "torch": (torch.get_num_threads(), torch.get_num_interop_threads(), str(torch.get_default_dtype())),
        "pools": sorted((it["filepath"], it["num_threads"]) for it in threadpool_info()),
        "logging": [(str(it.handlers), it.level) for it in (logging.getLogger(), logging.getLogger("ff3d"))],
        "signals": [str(signal.getsignal(it)) for it in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)],
        "blocked": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ())),
        "affinity": sorted(os.sched_getaffinity(0)),
        "errors": np.geterr(),
        "random": (str(torch.random.get_rng_state().sum()), str(np.random.get_state()[1].sum())),
        "memory": memory() > 32,
    })

before = state()
import ff3d
ball = trimesh.creation.icosphere(subdivisions=2)
tiny = {"width": 16, "depth": 1, "batch_size": 256, "pool_size": 1024, "device": "cpu"}
oracle = ff3d.make_oracle(ball)
oracle(np.random.default_rng(0).uniform(-1, 1, (1000, 3)))
field = ff3d.fit(ball, "none", steps=20, learning_rate=0.01, **tiny)
field.contains(np.zeros((10, 3)))
try:
    field.extract_mesh(16)
except ValueError:  # 20 steps need not find anything
    pass
after = state()
assert after == before, (before, after)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads affinity and the signal mask")
def test_a_fit_from_python_changes_nothing_of_the_process():
    subprocess.run([sys.executable, "-c", LIBRARY], check=True)


def test_a_command_lets_its_threads_wait_briefly_and_keeps_the_users_limit(tmp_path):
    """libgomp itself says what it was told."""
    plain = {name: value for name, value in os.environ.items() if name not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
    code = "import sys; from ff3d.cli import main; sys.exit(main(['fit', 'bracket', *sys.argv[1:]]))"
    settings = ["--mapping", "none", "--steps", "1", "--width", "8", "--depth", "1", "--out", str(tmp_path / "out")]
    said = subprocess.run(
        [sys.executable, "-c", code, *settings],
        env=plain | {"OMP_DISPLAY_ENV": "VERBOSE", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    ).stderr
    if "GOMP_SPINCOUNT" not in said:
        pytest.skip("torch brings another OpenMP")
    assert f"GOMP_SPINCOUNT = '{SPINS}'" in said
    assert "OMP_NUM_THREADS = '1'" in said
