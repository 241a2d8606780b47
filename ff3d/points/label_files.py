"""Labels in files, for points that do not fit in memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.lib import format as npy
from tqdm.auto import tqdm

from ff3d.checks import one_line
from ff3d.files import write_atomically
from ff3d.labels.oracles import Oracle

CHUNK = 2**20  # points in memory at a time


def label_file(oracle: Oracle, points: Path, output: Path, *, progress: bool = False) -> tuple[int, int]:
    """Label the points of a .npy file, (n, 3), a chunk at a time, into a .npy of bool (n,), atomically.

    Returns how many points are inside, and n. Raises ValueError, naming the file and about which rows, for anything
    but finite numbers (n, 3).
    """
    try:
        queries = np.load(points, allow_pickle=False, mmap_mode="r")
        if queries.ndim != 2 or queries.shape[1] != 3 or queries.dtype.kind not in "fiu":
            raise ValueError(f"got {queries.dtype} of shape {queries.shape}")
    except Exception as error:
        raise ValueError(f"{points}: expected a .npy of points (n, 3) ({one_line(error)})") from error
    count = 0
    with (
        write_atomically(output) as temporary,
        temporary.open("wb") as file,
        tqdm(total=len(queries), desc="labels", unit=" points", unit_scale=True, delay=2, disable=not progress) as bar,
    ):
        # in pieces, not by a memory map: to that a full disk is a signal (SIGBUS)
        npy.write_array_header_1_0(file, {"descr": "|b1", "fortran_order": False, "shape": (len(queries),)})
        for start in range(0, len(queries), CHUNK):
            try:
                inside = oracle(np.asarray(queries[start : start + CHUNK], dtype=np.float64))
            except ValueError as error:
                raise ValueError(
                    f"{points}: rows {start} to {start + len(queries[start : start + CHUNK])}: {error}"
                ) from error
            file.write(np.asarray(inside, dtype=bool).tobytes())
            count += int(inside.sum())
            bar.update(len(inside))
    return count, len(queries)


def is_labels(path: Path) -> bool:
    """Whether a file is a .npy of bool (n,), as `label_file` writes them."""
    try:
        with path.open("rb") as file:
            npy.read_magic(file)
            shape, _, kind = npy.read_array_header_1_0(file)
    except (OSError, ValueError):
        return False
    return len(shape) == 1 and kind == np.dtype(bool)
