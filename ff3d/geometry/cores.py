"""How many threads work at once, and what a process does about its memory."""

from __future__ import annotations

import ctypes
import os
import sys


def keep_freed_memory() -> None:
    """Let glibc keep freed buffers of up to 256 MiB instead of returning them to the system after each step.

    Steps, and batches of labels and distances, free and ask for the same few megabytes again and again, and the first
    touch of fresh pages costs more than the arithmetic done on them. Does nothing where the C library is another.
    """
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:
            m_trim_threshold, m_mmap_threshold = -1, -3  # malloc.h
            # some versions of glibc allow 32 MiB at most
            _ = mallopt(m_mmap_threshold, 256 * 2**20) or mallopt(m_mmap_threshold, 32 * 2**20)
            mallopt(m_trim_threshold, 2**30)


def threads() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
