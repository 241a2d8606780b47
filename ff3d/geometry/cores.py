"""Cores and memory of a process: one limit on threads for every library, how threads wait, what is freed."""

from __future__ import annotations

import ctypes
import math
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

LIMIT = "OMP_NUM_THREADS"
# Each library reads its own when it is loaded (libigl: when it is first called), and so do the processes started later
VARIABLES = (LIMIT, "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS", "IGL_NUM_THREADS")
LIBRARIES = ("numpy", "torch", "scipy", "sklearn", "fast_simplification")  # that bring OpenMP or a BLAS

WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
# Turns of the loop in which a thread of GNU OpenMP waits before it sleeps, some 25 ns each; libgomp's own 300,000 are
# milliseconds, in which a thread keeps a core that the one it waits for may need (benchmarks/busy.py)
SPINS = 2000
BLOCK_TIME = 1  # ms, the same of OpenMP by LLVM and Intel, whose own is 200


def threads() -> int:
    """How many threads may work at once in this process.

    That is the processors that it may use (by its affinity and the CPU quotas of its control groups), or the limit if
    that is less: `limit_threads`, or what the user has set OMP_NUM_THREADS to.
    """
    first = os.environ.get(LIMIT, "").split(",")[0].strip()  # of OpenMP's list, one for each level of nesting
    limit = int(first) if first.isdecimal() and int(first) > 0 else sys.maxsize
    return min(limit, processors())


def processors(root: Path = Path("/")) -> int:
    """Processors that this process may use, by its affinity and the CPU quotas of its control groups, rounded up.

    root: of the file system that tells the quotas.
    """
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.ceil(min(count, _quota(root))))


def limit_threads(count: int | None = None) -> int:
    """Let this process, and those that it starts from now on, work with `count` threads; by default `threads()`.

    One limit for torch, OpenMP, BLAS, libigl, and ff3d's own threads. libigl keeps the number of its first call.
    For a process as a whole: commands and workers call it when they start, libraries never do (they may use
    `limited_threads`). Returns the count. Raises ValueError for a count under 1.
    """
    count = threads() if count is None else count
    if count < 1:
        raise ValueError(f"threads must be at least 1, got {count}")
    os.environ |= dict.fromkeys(VARIABLES, str(count))
    if any(name in sys.modules for name in LIBRARIES):
        from threadpoolctl import threadpool_limits

        threadpool_limits(count)
    if "torch" in sys.modules:  # OpenMP's count is a thread's own; torch passes its count on to the threads it starts
        sys.modules["torch"].set_num_threads(count)
    return count


@contextmanager
def limited_threads(count: int | None) -> Iterator[None]:
    """Within it `limit_threads(count)` holds; afterwards the counts are as they were. None changes nothing."""
    if count is None:
        yield
        return
    from threadpoolctl import threadpool_limits

    environment = {name: os.environ.get(name) for name in VARIABLES}
    torch = sys.modules.get("torch")
    torch_threads = torch.get_num_threads() if torch else 0
    pools = threadpool_limits(count)
    try:
        limit_threads(count)
        yield
    finally:
        for name, value in environment.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        pools.restore_original_limits()
        if torch:
            torch.set_num_threads(torch_threads)


@contextmanager
def limited_affinity() -> Iterator[None]:
    """Within it this thread may use no more than `threads()` processors.

    For the first use of libraries that can be told their number of threads in no other way: they count processors
    (the oneTBB of Embree). Does nothing where there is no limit, or no affinity.
    """
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
    count = threads()
    if count >= len(allowed):
        yield
        return
    import random

    # at random: threads started within stay on these processors, and another process may narrow itself too
    os.sched_setaffinity(0, random.SystemRandom().sample(sorted(allowed), count))
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


def embree_scene() -> Any:
    """An empty scene of Embree, which builds its trees with `threads()` threads, as many as at its first use."""
    from embreex.rtcore_scene import EmbreeScene

    _start_embree()
    return EmbreeScene()


@cache
def _start_embree() -> None:
    """Let Embree's oneTBB count the processors."""
    import numpy as np
    from embreex.mesh_construction import TriangleMesh
    from embreex.rtcore_scene import EmbreeScene

    with limited_affinity():
        scene, ray = EmbreeScene(), np.eye(3, dtype=np.float32)[:1]
        TriangleMesh(scene, np.eye(3, dtype=np.float32)[None])
        scene.run(ray, ray)


def configure_process(count: int | None = None) -> None:
    """Configure a process of ff3d's own, a command or a worker: `count` threads, short waits, reused memory."""
    shorten_waits()
    limit_threads(count)
    keep_freed_memory()


def shorten_waits() -> None:
    """Let threads of OpenMP that wait for each other sleep soon, so that processes side by side do not spin in turns.

    For commands and workers, before torch is loaded. What the user has set (`WAITING`) stays.
    """
    if not any(name in os.environ for name in WAITING):
        os.environ |= {"GOMP_SPINCOUNT": str(SPINS), "KMP_BLOCKTIME": str(BLOCK_TIME)}


def keep_freed_memory(megabytes: int = 256) -> None:
    """Let glibc keep freed buffers of so many MiB, at most, instead of returning them to the system after each step.

    Steps, and batches of labels and distances, free and ask for the same few megabytes again and again, and the first
    touch of fresh pages costs more than the arithmetic done on them. Does nothing where the C library is another.
    For a process as a whole: commands and workers call it when they start.
    """
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:
            m_trim_threshold, m_mmap_threshold = -1, -3  # malloc.h
            # some versions of glibc allow 32 MiB at most
            _ = mallopt(m_mmap_threshold, megabytes * 2**20) or mallopt(m_mmap_threshold, 32 * 2**20)
            mallopt(m_trim_threshold, 4 * megabytes * 2**20)


def available_memory(root: Path = Path("/")) -> int:
    """Bytes available to this process: the machine's, or what a control group has left where that is less.

    root: of the file system that tells the limits.
    """
    import psutil

    left = [_memory_left(group) for group in _control_groups("memory", root)]
    return max(0, int(min([psutil.virtual_memory().available, *left])))


def _memory_left(group: Path) -> float:
    """The bytes that one control group, of version 2 or 1, may still use; inf without a limit."""
    second = (group / "memory.max").exists()
    names = ("memory.max", "memory.current") if second else ("memory.limit_in_bytes", "memory.usage_in_bytes")
    try:
        limit, used = (float((group / name).read_text(encoding="utf-8")) for name in names)
        lines = (group / "memory.stat").read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):  # no such group, or "max"
        return math.inf
    statistics = dict(line.split() for line in lines)
    # inactive file pages count as used, but the system reclaims them when memory runs short
    return limit - used + int(statistics.get("inactive_file" if second else "total_inactive_file", 0))


def _quota(root: Path) -> float:
    """The smallest CPU quota of this process's control groups and those above them, in processors; inf without one."""
    return min([math.inf, *(_group_quota(group) for group in _control_groups("cpu", root))])


def _control_groups(controller: str, root: Path) -> Iterator[Path]:
    """The folders of this process's control groups, of version 2 or 1, and of those above them."""
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        mounted = root / "sys/fs/cgroup" / controllers  # version 2 has no controllers here
        if controllers and controller not in controllers.split(","):
            continue
        group = mounted / path.lstrip("/")
        while True:
            yield group
            if group == mounted or mounted not in group.parents:
                break
            group = group.parent


def _group_quota(group: Path) -> float:
    """The quota of one control group, of version 2 or 1, in processors."""
    try:
        if (group / "cpu.max").exists():
            quota, period = (group / "cpu.max").read_text(encoding="utf-8").split()
        else:
            quota = (group / "cpu.cfs_quota_us").read_text(encoding="utf-8")
            period = (group / "cpu.cfs_period_us").read_text(encoding="utf-8")
        return float(quota) / float(period) if quota.strip() != "max" and float(quota) > 0 else math.inf
    except (OSError, ValueError, ZeroDivisionError):
        return math.inf
