"""The file of a field: one safetensors file, its header JSON. Loading runs no code."""

from __future__ import annotations

import json
import lzma
import math
import zlib
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

import numpy as np
import torch
from torch import Tensor

from ff3d.checks import check_type, one_line, parse_json
from ff3d.fields.quantization import DTYPES, unpacked
from ff3d.files import write_atomically
from ff3d.geometry.surface_cells import OUTSIDE, TOUCHED, SurfaceCells

FORMAT = "ff3d.field"  # the header is one entry: safetensors keeps no order among several
VERSIONS = (1, 2, 3, 4)  # 2 holds the cells that the surface touches; 3 all cells, tables, smaller numbers
NETWORK_VERSION, LATTICE_VERSION = 3, 4  # that are written
FARTHEST = 1e6  # unit coordinates of cells, and of a field's box: what fits in 1 / FARTHEST cells as whole numbers
MOST_CELLS = 2**20  # of a cell grid: three times what is made
# a byte a cell, without the header of an .xz file; a fifth to a third smaller than by zlib
SQUEEZE = [{"id": lzma.FILTER_LZMA2, "preset": 9, "dict_size": MOST_CELLS, "lc": 0, "lp": 0, "pb": 0}]
DEFAULTS = {
    "target": "occupancy",
    "storage": "float32",
    "settings": {},
    "guarded": False,
    "surface": None,
}  # what older versions lack
BYTES = ("surface.cells", "lattice.data")  # tensors of which each number is a byte
FAULTS: tuple[type[Exception], ...] = (
    KeyError,
    TypeError,
    ValueError,
    RuntimeError,
    AttributeError,
    OverflowError,
    lzma.LZMAError,
    zlib.error,
    AssertionError,  # of what decodes a lattice, for damaged data
)


class _Cells(TypedDict):
    lower: list[float]
    side: float
    shape: list[int]


class Header(TypedDict):
    """The header of a field's file, with `DEFAULTS` for what older versions lack."""

    version: int
    mapping: str
    width: int
    depth: int
    activation: str
    precision: str
    cube: dict[str, Any]
    bounds: list[list[float]]
    source: dict[str, Any]
    surface: _Cells | None
    target: str
    storage: str
    settings: dict[str, int]
    guarded: bool


class _Frame(_Cells):
    levels: int
    steps: int


class LatticeHeader(TypedDict):
    """The header of a lattice's file."""

    version: int
    mapping: str
    frame: _Frame
    numbers: int
    cube: dict[str, Any]
    bounds: list[list[float]]
    source: dict[str, Any]


class FieldError(ValueError):
    """A field file that cannot be used; the message names the file and the fault."""


class FieldFile(NamedTuple):
    """What a file holds: its header, the network's float32 tensors by name, and the surface's cells, if any."""

    header: dict[str, Any]
    tensors: dict[str, Tensor]
    surface: SurfaceCells | None


def write_field_file(
    path: str | Path, header: dict[str, Any], tensors: dict[str, Tensor], surface: SurfaceCells | None
) -> None:
    """Write a field's file atomically, as the newest version. tensors: as `quantization.packed` gives them."""
    from safetensors.torch import save_file

    header = {"version": NETWORK_VERSION, **header, "surface": None}
    if surface is not None:
        labels = surface.labels
        header["surface"] = {"lower": surface.lower.tolist(), "side": surface.side, "shape": list(labels.shape)}
        squeezed = bytearray(lzma.compress(labels.tobytes(), lzma.FORMAT_RAW, filters=SQUEEZE))
        tensors = tensors | {"surface.cells": torch.frombuffer(squeezed, dtype=torch.uint8)}
    with write_atomically(path) as temporary:
        save_file(tensors, temporary, {FORMAT: json.dumps(header)})


def read_field_file(path: Path) -> FieldFile:
    """Read a field's file of any known version.

    Raises FieldError, naming the file and the fault, for a missing or truncated file, another format or version, a
    header that is not understood, and tensors that are NaN, infinite or of another type.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise FieldError(f"{path}: no such file; expected a field that ff3d saved (field.safetensors)")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise FieldError(f"{path}: not a complete safetensors file ({one_line(error)})") from error
    if FORMAT not in metadata:
        raise FieldError(f"{path}: a safetensors file, but not one of ff3d's fields")
    for name, tensor in tensors.items():
        kinds = (torch.uint8,) if name in BYTES else DTYPES
        if tensor.dtype not in kinds or not bool(torch.isfinite(tensor).all()):
            expected = " or ".join(str(kind).removeprefix("torch.") for kind in kinds)
            raise FieldError(f"{path}: {name} is not finite {expected}; the fit diverged or the file was changed")
    try:
        header = DEFAULTS | parse_json(metadata[FORMAT], dict[str, Any])
        if header["version"] not in VERSIONS:
            known = " and ".join(map(str, VERSIONS))
            raise FieldError(f"format version {header['version']}, this ff3d reads version {known}: update ff3d?")
        check_type(header, LatticeHeader if header.get("version") == LATTICE_VERSION else Header, "header")
        cells = tensors.pop("surface.cells", None)
        surface = None if cells is None else _surface(header["surface"], cells, header["version"])
        coded = {name: tensors.pop(name) for name in BYTES if name in tensors}
        return FieldFile(header, unpacked(tensors) | coded, surface)
    except FAULTS as error:
        raise FieldError(f"{path}: header and tensors do not make a field ({one_line(error)})") from error


def _surface(header: dict[str, Any], stored: Tensor, version: int) -> SurfaceCells:
    """The cells of a file, checked."""
    shape = tuple(int(n) for n in header["shape"])
    lower, side = np.array(header["lower"], dtype=np.float64), float(header["side"])
    count = math.prod(shape)
    if len(shape) != 3 or min(shape) < 1 or count > MOST_CELLS:
        raise ValueError(f"surface cells of shape {shape}")
    if lower.shape != (3,) or not ((np.abs(lower) < FARTHEST).all() and 1 / FARTHEST < side < FARTHEST):
        raise ValueError(f"surface cells of side {side}, at {lower.tolist()}")
    if version == 2:
        if tuple(stored.shape) != (-(-count // 8),):
            raise ValueError(f"{tuple(stored.shape)} bytes of surface cells do not fit {shape}")
        labels = np.where(np.unpackbits(stored.numpy(), count=count), TOUCHED, OUTSIDE).astype(np.uint8)
    else:
        squeezed = stored.numpy().tobytes()
        # the first files of version 3 used zlib; its first byte cannot start a raw LZMA2 stream
        by_zlib = squeezed[:1] == b"x"
        decompressor = zlib.decompressobj() if by_zlib else lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=SQUEEZE)
        plain = decompressor.decompress(squeezed, count + 1)
        labels = np.frombuffer(plain, dtype=np.uint8)
        if len(labels) != count or labels.max() > TOUCHED:
            raise ValueError(f"{len(labels)} labels of surface cells do not fit {shape}")
    return SurfaceCells(lower, side, labels.reshape(shape))
