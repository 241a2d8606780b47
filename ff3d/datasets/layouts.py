"""Samples as the files that other projects read; docs/datasets.md says what each expects, and where that is written."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from ff3d.datasets.config import QUERIES, SetsConfig
from ff3d.datasets.sampling import Samples
from ff3d.files import is_marked, write_atomically
from ff3d.formats.writers import WRITERS

NAME = "\0"  # of no file


@dataclass(frozen=True)
class File:
    """One of a shape's files.

    path: in the set's folder.  ending: behind the shape's key in a .tar; what comes after its first dot.
    """

    path: str
    ending: str
    data: bytes


def place_of(name: str, config: SetsConfig) -> str:
    """Where the samples of this name lie: a file, or a folder."""
    places = {
        "occnet": f"{config.category}/{name}",
        "3dshape2vecset": f"ShapeNetV2_point/{config.category}/{name}.npz",
        "hunyuan": f"preprocessed/{name}",
    }
    return places.get(config.layout, f"{name}.npz")


def files_of(name: str, samples: Samples, config: SetsConfig, meta: dict[str, Any]) -> list[File]:
    """The files of a shape of this name. The first one stands for all: it is written last.

    Each .npz has `loc` (3,) and `scale`, so that its points * scale + loc are input coordinates, and `meta`, JSON.
    """
    files = WRITE[config.layout](name, samples, config, meta)
    if samples.closed is not None and config.layout != "hunyuan":
        first = Path(files[0].path)
        mesh = first.with_name(f"{'mesh' if config.layout == 'occnet' else first.stem}.watertight.ply")
        files.append(File(mesh.as_posix(), "watertight.ply", WRITERS[".ply"](samples.closed, mesh)))
    return files


def paths_of(name: str, config: SetsConfig) -> list[str]:
    """Where the files of a shape of this name will lie."""
    return [path.replace(NAME, name) for path in _paths(config)]


@cache
def _paths(config: SetsConfig) -> list[str]:
    """The same, for a name that no file has."""
    import trimesh

    nothing = Samples(
        points={kind: np.zeros((0, 3), np.float32) for kind in config.names},
        values={kind: np.zeros(0, bool) if kind in QUERIES else np.zeros((0, 3)) for kind in config.names},
        loc=np.zeros(3),
        scale=1.0,
        inside=None,
        closed=None if config.resolution is None else trimesh.Trimesh(np.eye(3), [[0, 1, 2]]),
        notes=(),
    )
    return [file.path for file in files_of(NAME, nothing, config, {})]


def _ff3d(name: str, samples: Samples, config: SetsConfig, meta: dict[str, Any]) -> list[File]:
    arrays = {}
    for kind, points in samples.points.items():
        prefix = "" if kind == "mixed" else f"{kind}_"
        values = samples.values[kind]
        arrays[f"{prefix}points"] = points
        if kind not in QUERIES:
            arrays[f"{prefix}normals"] = values
        elif values.dtype == bool:
            arrays[f"{prefix}occupancies"] = np.packbits(values)
        else:
            arrays[f"{prefix}distances"] = values
    return [File(f"{name}.npz", "npz", _npz(arrays, samples, meta))]


def _occnet(name: str, samples: Samples, config: SetsConfig, meta: dict[str, Any]) -> list[File]:
    files, folder = [], place_of(name, config)
    if queries := [kind for kind in samples.points if kind in QUERIES]:
        inside = np.concatenate([samples.values[kind] for kind in queries])
        points = np.concatenate([samples.points[kind] for kind in queries])
        arrays = {"points": points, "occupancies": np.packbits(inside)}
        files.append(File(f"{folder}/points.npz", "points.npz", _npz(arrays, samples, meta)))
    if "surface" in samples.points:
        arrays = {"points": samples.points["surface"], "normals": samples.values["surface"]}
        files.append(File(f"{folder}/pointcloud.npz", "pointcloud.npz", _npz(arrays, samples, meta)))
    return files


def _3dshape2vecset(name: str, samples: Samples, config: SetsConfig, meta: dict[str, Any]) -> list[File]:
    place = f"ShapeNetV2_point/{config.category}/{name}"
    arrays: dict[str, Any] = {}
    for kind, prefix in (("volume", "vol"), ("near", "near")):
        if kind in samples.points:
            arrays |= {f"{prefix}_points": samples.points[kind], f"{prefix}_label": samples.values[kind]}
    files = [File(f"{place}.npz", "point.npz", _npz(arrays, samples, meta))]
    if "surface" in samples.points:
        # as Occupancy Networks has it, in [-.5, .5]; the loader multiplies by the scale in the .npy
        arrays = {"points": samples.points["surface"] / np.float32(2), "normals": samples.values["surface"]}
        cloud = f"ShapeNetV2_watertight/{config.category}/4_pointcloud/{name}.npz"
        files.append(File(cloud, "pointcloud.npz", _npz(arrays, samples, meta, 2.0)))
    return [*files, File(f"{place}.npy", "scale.npy", _factor())]


def _factor() -> bytes:
    """The .npy of what the loader of 3DShape2VecSet multiplies its point clouds by."""
    stream = io.BytesIO()
    np.save(stream, np.array(2.0))
    return stream.getvalue()


def _dora(name: str, samples: Samples, config: SetsConfig, meta: dict[str, Any]) -> list[File]:
    arrays = {}
    for kind, key in (("surface", "fps_coarse_surface"), ("salient", "fps_sharp_surface")):
        if kind in samples.points:
            arrays[key] = np.concatenate([samples.points[kind], samples.values[kind]], axis=1)[:, None]
    for kinds, key in ((("sharp",), "sharp_near_surface"), (("near", "volume"), "rand_points")):
        parts = [
            np.concatenate([samples.points[kind], samples.values[kind][:, None]], axis=1)
            for kind in kinds
            if kind in samples.points
        ]
        if parts:
            arrays[key] = np.concatenate(parts)
    return [File(f"{name}.npz", "npz", _npz(arrays, samples, meta))]


def _hunyuan(name: str, samples: Samples, config: SetsConfig, meta: dict[str, Any]) -> list[File]:
    place, distances, surfaces = f"{place_of(name, config)}/geo_data/{name}", {}, {}
    for kind, key in (("volume", "vol"), ("near", "random_near"), ("sharp", "sharp_near")):
        if kind in samples.points:
            distances[f"{key}_points"] = samples.points[kind]
            distances[f"{key}_label"] = samples.values[kind].astype(np.float16)
    for kind, key in (("surface", "random_surface"), ("salient", "sharp_surface")):
        if kind in samples.points:
            surfaces[key] = np.concatenate([samples.points[kind], samples.values[kind]], axis=1)
    files = [
        File(f"{place}_{part}.npz", f"{part}.npz", _npz(arrays, samples, meta))
        for part, arrays in (("surface", surfaces), ("sdf", distances))
        if arrays
    ]
    if samples.closed is not None:
        closed = samples.closed.copy()
        closed.vertices = (closed.vertices - samples.loc) / samples.scale
        mesh = Path(f"{place}_watertight.obj")
        files.append(File(mesh.as_posix(), "watertight.obj", WRITERS[".obj"](closed, mesh)))
    return files


WRITE: dict[str, Callable[[str, Samples, SetsConfig, dict[str, Any]], list[File]]] = {
    "ff3d": _ff3d,
    "occnet": _occnet,
    "3dshape2vecset": _3dshape2vecset,
    "dora": _dora,
    "hunyuan": _hunyuan,
}


def _npz(arrays: dict[str, Any], samples: Samples, meta: dict[str, Any], factor: float = 1.0) -> bytes:
    """An uncompressed .npz; numpy dates its entries 1980.  factor: of the samples' scale."""
    stream = io.BytesIO()
    scale = np.array(samples.scale * factor)
    np.savez(stream, **arrays, loc=samples.loc, scale=scale, meta=np.array(json.dumps(meta)))
    return stream.getvalue()


def list_of(names: Sequence[str], split: str, config: SetsConfig, place: str) -> File | None:
    """The file that names the shapes of a split, where the layout's loader reads one.  place: the set's address."""
    if config.layout == "dora":
        text, path = json.dumps([f"{place}/{name}.npz" for name in names], indent=1) + "\n", f"{split}.json"
    elif config.layout == "occnet":
        text, path = "\n".join(names), f"{config.category}/{split}.lst"  # the loader takes an empty line for a shape
    elif config.layout == "3dshape2vecset":
        text, path = "\n".join(f"{name}.npz" for name in names), f"ShapeNetV2_point/{config.category}/{split}.lst"
    else:
        return None
    return File(path, "", text.encode())


@contextmanager
def open_shard(path: Path) -> Iterator[Callable[[str, list[File]], None]]:
    """Write a .tar as webdataset reads it, atomically; gives what adds a shape: its key, without a dot, and its files.

    The files of a shape lie side by side, as KEY.ENDING. The same shapes give the same bytes. After an error of what
    adds, the archive must be left by it: a file that was cut short would have those behind it misread.
    """
    comment = {"comment": "ff3d"}  # by which `is_made` knows it
    with (
        write_atomically(path) as temporary,
        tarfile.open(temporary, "w", format=tarfile.PAX_FORMAT, pax_headers=comment) as archive,
    ):

        def add(key: str, files: list[File]) -> None:
            for file in files:
                entry = tarfile.TarInfo(f"{key}.{file.ending}")
                entry.size = len(file.data)
                archive.addfile(entry, io.BytesIO(file.data))

        yield add


def is_made(path: Path) -> bool:
    """Whether a file looks as if `prepare` had written it."""
    if path.suffix == ".npy":
        return path.read_bytes() == _factor()
    if path.suffix == ".npz":
        return {"mesh", "sha256", "layout"} <= meta_of(path).keys()
    return is_marked(path)


def meta_of(path: Path) -> dict[str, Any]:
    """The `meta` of an .npz; {} of one that has none, or is none."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return dict(json.loads(str(archive["meta"])))
    except Exception:  # whatever is wrong with it
        return {}
