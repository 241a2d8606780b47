"""Labels in files: for points that do not fit in memory, and labelled samples of many meshes for use elsewhere."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from tqdm.auto import tqdm

from ff3d.checks import one_line
from ff3d.files import FORCE, FolderError, append_row, locked, read_rows, write_atomically
from ff3d.geometry.coordinates import UnitCube, grown_box
from ff3d.geometry.sampling import SampleMix
from ff3d.labels.oracles import Oracle, load_surface
from ff3d.shapes.sources import distinct_names

log = logging.getLogger("ff3d")

CHUNK = 2**20  # points in memory at a time
ROWS = "prepared.jsonl"
LAYOUT = 1  # of the files that `prepare` writes; those of another one are made again


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


def prepare(
    meshes: Sequence[Path],
    out: Path,
    *,
    count: int = 100_000,
    mix: SampleMix,
    margin: float,
    seed: int = 0,
    progress: bool = False,
    force: bool = False,
) -> list[dict[str, Any]]:
    """Write `count` labelled points of each mesh to out/NAME.npz, and a row for each to out/prepared.jsonl (appended:
    of two rows of one file the last counts).

    A file holds `points` (n, 3) float32, in a cube of side 1 about the origin; `occupancies`, their labels as packed
    bits, True inside (np.unpackbits(occupancies, count=n)); `loc` (3,) and `scale`, so that points * scale + loc are
    input coordinates; and `meta`, JSON: the mesh's file name and sha256, seed, mix and what the oracle had to say.
    The names are those of Occupancy Networks (Mescheder et al. 2019). Labels are those of the points as they are
    stored, rounded. The same mesh and settings give the same bytes.

    A file that is there already, of the same mesh and settings, is kept. A mesh that fails is a row with its
    `failure`, tried again next time. Returns the rows of these meshes, in order.
    force: replace files of these names that ff3d has not made. Raises FolderError without, if there are such files, or
    if another process writes there.
    """
    with locked(out):
        known = read_rows(out / ROWS)
        for name in distinct_names(meshes):
            file = out / f"{name}.npz"
            if file.exists() and not force and file.name not in known and _meta(file) is None:
                raise FolderError(f"{file}: is there, and was not made by ff3d; {FORCE}")
        return _prepared(meshes, out, mix, count=count, margin=margin, seed=seed, progress=progress)


def _prepared(
    meshes: Sequence[Path], out: Path, mix: SampleMix, *, count: int, margin: float, seed: int, progress: bool
) -> list[dict[str, Any]]:
    settings = {
        "layout": LAYOUT,
        "count": count,
        "seed": seed,
        "uniform": mix.uniform,
        "widths": list(mix.widths),
        "margin": margin,
    }
    rows = []
    for path, name in tqdm(
        list(zip(meshes, distinct_names(meshes), strict=True)), desc="prepare", disable=not progress
    ):
        row: dict[str, Any] = {"mesh": str(path), "file": f"{name}.npz"}
        try:
            request = {"mesh": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest(), **settings}
            meta, arrays = _kept(out / row["file"], request), None
            if meta is None:
                meta, arrays = _labelled(path, request, mix)
            row |= {"inside": meta["inside"], "notes": meta["notes"], "sha256": meta["sha256"]}
        except Exception as error:  # whatever it trips over, the other meshes go on
            row["failure"] = one_line(error)
            log.warning("%s: %s", path, row["failure"])
        else:
            if arrays is not None:
                with write_atomically(out / row["file"]) as temporary, temporary.open("wb") as stream:
                    np.savez(stream, **arrays, meta=np.array(json.dumps(meta)))
        rows.append(row)
        append_row(out / ROWS, row)
    return rows


def _meta(path: Path) -> dict[str, Any] | None:
    """What a file says of itself; None if it is none of `prepare`'s."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            meta = json.loads(str(archive["meta"]))
        return meta if {"mesh", "sha256", "layout"} <= meta.keys() else None
    except Exception:  # whatever is wrong with it
        return None


def _kept(path: Path, request: dict[str, Any]) -> dict[str, Any] | None:
    """What a file says of itself if it is whole and of this mesh and these settings, else None."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            meta: dict[str, Any] = json.loads(str(archive["meta"]))
            shapes = archive["points"].shape, archive["occupancies"].shape
            same = {**meta, **request} == meta
    except Exception:  # whatever is wrong with it, it is made again
        return None
    count = request["count"]
    return meta if same and shapes == ((count, 3), (-(-count // 8),)) else None


def _labelled(path: Path, request: dict[str, Any], mix: SampleMix) -> tuple[dict[str, Any], dict[str, Any]]:
    """What `prepare` writes of a mesh."""
    surface = load_surface(path)
    mesh, oracle = surface.mesh, surface.oracle
    cube = UnitCube.padded(mesh.vertices)
    rng = np.random.default_rng(request["seed"])
    drawn = mix.draw(mesh, grown_box(mesh, request["margin"] * cube.scale), cube.scale, request["count"], rng)
    points = (cube.to_unit(drawn) - 0.5).astype(np.float32)
    inside = oracle(cube.from_unit(points.astype(np.float64) + 0.5))
    meta = request | {"inside": float(inside.mean()), "notes": list(surface.notes)}
    return meta, {
        "points": points,
        "occupancies": np.packbits(inside),
        "loc": np.array(cube.center),
        "scale": np.array(cube.scale),
    }
