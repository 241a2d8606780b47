#!/usr/bin/env python3
"""Readers against trimesh's and plyfile's: seconds on one large mesh in every format, and what each makes of odd PLY.

    benchmarks/readers.py [--faces 320000] [--repeats 3] [--polygon 10000]

The readers take turns, and the seconds are of the processor, so that other work on the machine counts little; the
median of the turns is shown, and of the others the ratio to ours. Loading is whole: a mesh of float64 vertices and, for
ff3d, checked faces. The second table alters and cuts PLY files and counts the odd ones that each reader reads right and
the damaged ones that it refuses; the third has the seconds of a spiral polygon.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import trimesh

from ff3d.formats.polygons import clip_ears, triangulate_ring
from ff3d.formats.writers import save_mesh
from ff3d.shapes.mesh import load_mesh

Reader = Callable[[Path], tuple[np.ndarray, np.ndarray]]


def ours(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """This project's reader."""
    mesh = load_mesh(path)
    return np.asarray(mesh.vertices), np.asarray(mesh.faces)


def by_trimesh(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """trimesh's reader, without its merging of vertices."""
    mesh = trimesh.load_mesh(path, process=False)
    return np.asarray(mesh.vertices, dtype=np.float64), np.asarray(mesh.faces)


def by_plyfile(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """plyfile's reader; its lists of corners become triangles."""
    from plyfile import PlyData

    data = PlyData.read(str(path))
    vertex, face = data["vertex"], data["face"]
    names = [name for name in face.data.dtype.names if name.startswith("vertex_ind")]
    vertices = np.stack([np.asarray(vertex[axis], dtype=np.float64) for axis in "xyz"], axis=1)
    return vertices, np.vstack(face[names[0]])


READERS: dict[str, Reader] = {"ff3d": ours, "trimesh": by_trimesh, "plyfile": by_plyfile}


def write_files(mesh: trimesh.Trimesh, folder: Path) -> list[Path]:
    """The mesh in every format that is read here."""
    for ending in (".obj", ".ply", ".stl", ".glb"):
        save_mesh(mesh, folder / f"mesh{ending}")
    points, faces = mesh.vertices.tolist(), mesh.faces.tolist()
    text = "".join(f"{x!r} {y!r} {z!r}\n" for x, y, z in points) + "".join(f"3 {a} {b} {c}\n" for a, b, c in faces)
    (folder / "text.off").write_text(f"OFF\n{len(points)} {len(faces)} 0\n{text}")
    (folder / "text.ply").write_text(ply_head("ascii", len(points), len(faces)) + text)
    kinds = [("n", "u1"), ("corners", "<i4", 3)]
    triangles = np.zeros(len(faces) - 1, kinds)
    triangles["n"], triangles["corners"] = 3, faces[1:]
    head = ply_head("binary_little_endian", len(points), len(faces) + 1).encode()
    with (folder / "uneven.ply").open("wb") as file:  # one quad of no area first, so that lengths differ
        a, b, c = faces[0]
        file.write(head + np.asarray(points, "<f8").tobytes() + b"\4" + np.array([a, b, c, c], "<i4").tobytes())
        file.write(b"\3" + np.array(faces[0], "<i4").tobytes() + triangles.tobytes())
    (folder / "text.stl").write_text(
        "solid a\n"
        + "".join(
            "facet normal 0 0 0\nouter loop\n" + "".join(f"vertex {x!r} {y!r} {z!r}\n" for x, y, z in triangle)
            + "endloop\nendfacet\n"
            for triangle in mesh.triangles.tolist()
        )
        + "endsolid a\n"
    )  # fmt: skip
    return sorted(folder.iterdir())


def ply_head(encoding: str, vertices: int, faces: int) -> str:
    """A PLY header for float64 points and faces."""
    return (
        f"ply\nformat {encoding} 1.0\nelement vertex {vertices}\nproperty double x\nproperty double y\n"
        f"property double z\nelement face {faces}\nproperty list uchar int vertex_indices\nend_header\n"
    )


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Neither logs nor warnings."""
    logging.disable(logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    logging.disable(logging.NOTSET)


def speeds(folder: Path, faces: int, repeats: int) -> None:
    """Print seconds and ratios for each file."""
    subdivisions = max(1, round(np.log(faces / 20) / np.log(4)))
    mesh = trimesh.creation.icosphere(subdivisions)
    print(f"{len(mesh.faces):,} faces, median of {repeats} in turns\n\n| file | MB | ff3d s | trimesh | plyfile |")
    print("|---|---:|---:|---:|---:|")
    for path in write_files(mesh, folder):
        readers = {name: read for name, read in READERS.items() if name != "plyfile" or path.suffix == ".ply"}
        seconds: dict[str, list[float]] = {name: [] for name in readers}
        for _ in range(repeats):
            for name, read in readers.items():
                start = time.process_time()
                try:
                    with quiet():
                        read(path)
                    seconds[name].append(time.process_time() - start)
                except Exception as error:
                    seconds[name].append(float("nan"))
                    print(f"<!-- {path.name}: {name}: {type(error).__name__}: {error} -->")
        middle = {name: statistics.median(values) for name, values in seconds.items()}
        ratios = [f"{middle[name] / middle['ff3d']:.1f} x" if name in middle else "" for name in ("trimesh", "plyfile")]
        print(f"| {path.name} | {path.stat().st_size / 1e6:.1f} | {middle['ff3d']:.2f} | {' | '.join(ratios)} |")


def odd_plys() -> dict[str, tuple[bytes, bool]]:
    """PLY files of a cube: each its bytes, and whether it is to be read (with 12 faces) or refused."""
    box = trimesh.creation.box()
    points = "".join(f"{x} {y} {z}\n" for x, y, z in box.vertices.tolist())
    faces = "".join(f"3 {a} {b} {c}\n" for a, b, c in box.faces.tolist())
    text = ply_head("ascii", 8, 12) + points + faces
    body = box.vertices.astype("<f8").tobytes() + b"".join(b"\3" + face.astype("<i4").tobytes() for face in box.faces)
    head = ply_head("binary_little_endian", 8, 12)
    binary = head.encode() + body
    good = {
        "text": text.encode(),
        "binary": binary,
        "numbers behind rows": text.replace("0.5\n", "0.5 255 0 0\n").encode(),
        "a row behind the last": text.encode() + b"0\n",
        "CR in the header": head.replace("\n", "\r").encode() + body,
        "CR LF in the header": head.replace("\n", "\r\n").encode() + body,
        "byte-order mark": b"\xef\xbb\xbf" + text.encode(),
        "a newline behind": binary + b"\n",
        "X Y Z": text.replace(" x\n", " X\n").replace(" y\n", " Y\n").replace(" z\n", " Z\n").encode(),
        "vertex_indexes": text.replace("vertex_indices", "vertex_indexes").encode(),
        "a property twice": text.replace("double z\n", "double z\nproperty uchar a\nproperty uchar a\n")
        .replace("0.5\n", "0.5 1 1\n")
        .encode(),
        "rows broken into lines": (ply_head("ascii", 8, 12) + (points + faces).replace(" ", "\n")).encode(),
    }
    bad = {f"binary cut at byte {size}": binary[:size] for size in range(5, len(binary), 23)}
    lines = text.splitlines(keepends=True)
    bad |= {f"text cut behind line {count}": "".join(lines[:count]).encode() for count in range(1, len(lines))}
    bad |= {
        "a corner past the vertices": text.replace("3 1 3 0", "3 1 8 0").encode(),
        "a corner of -1": text.replace("3 1 3 0", "3 1 -1 0").encode(),
        "a corner that is no number": text.replace("3 1 3 0", "3 1 nan 0").encode(),
        "a count of 10^9": binary.replace(b"vertex 8", b"vertex 1000000000"),
        "three bytes behind": binary + b"abc",
    }
    return {name: (data, True) for name, data in good.items()} | {name: (data, False) for name, data in bad.items()}


def damaged(folder: Path) -> None:
    """Print of each PLY reader how many odd files it reads right and how many damaged ones it refuses."""
    cases = odd_plys()
    readable = sum(right for _, right in cases.values())
    print(f"\n| reader | odd files read, of {readable} | damaged refused, of {len(cases) - readable} | faults |")
    print("|---|---:|---:|---|")
    for reader, read in READERS.items():
        faults = []
        for name, (data, right) in cases.items():
            path = folder / "odd.ply"
            path.write_bytes(data)
            try:
                with quiet():
                    vertices, faces = read(path)
                volume = trimesh.Trimesh(vertices, faces, process=False).volume
                loaded = len(faces) == 12 and abs(volume - 1) < 1e-9
                fault = not (right and loaded)
            except Exception:
                fault = right
            if fault:
                faults.append((name, right))
        read_right = readable - sum(right for _, right in faults)
        refused = len(cases) - readable - sum(not right for _, right in faults)
        named = ", ".join(name for name, _ in faults[:8]) + " ..." * (len(faults) > 8)
        print(f"| {reader} | {read_right} | {refused} | {named} |")


def polygons(corners: int) -> None:
    """Print the seconds of spiral polygons, by earcut and by clipping ears one by one."""
    print("\n| corners of a spiral | earcut s | clipping ears s |\n|---:|---:|---:|")
    for count, slow in ((100, True), (300, True), (1500, False), (corners, False)):
        turns = np.linspace(0, 20 * np.pi, count // 2)
        inner, outer = (
            np.stack([(r + turns) * np.cos(turns), (r + turns) * np.sin(turns), 0 * turns], 1) for r in (1, 2)
        )
        ring = np.concatenate([inner, outer[::-1]])
        times = []
        for method in (triangulate_ring, clip_ears) if slow else (triangulate_ring,):
            start = time.process_time()
            method(ring)
            times.append(f"{time.process_time() - start:.4f}")
        print(f"| {count:,} | {' | '.join(times + ['' for _ in range(2 - len(times))])} |")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faces", type=int, default=320_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--polygon", type=int, default=10_000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        speeds(Path(name), given.faces, given.repeats)
        damaged(Path(name))
    polygons(given.polygon)


if __name__ == "__main__":
    main()
