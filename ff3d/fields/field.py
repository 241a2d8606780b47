"""OccupancyField: an input mapping and a small network -> logits; save and load by safetensors alone."""

from __future__ import annotations

import json
import lzma
import math
import zlib
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  (torch's own name for it)
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from ff3d.fields.devices import best_device, best_precision
from ff3d.fields.feature_grids import GRID_MAPPINGS, GridMapping
from ff3d.fields.mapping import InputMapping, Mapping
from ff3d.fields.quantization import DTYPES, STORAGES, packed, unpacked
from ff3d.files import write_whole
from ff3d.geometry.coordinates import UnitCube, check_points
from ff3d.geometry.surface_cells import OUTSIDE, TOUCHED, SurfaceCells

if TYPE_CHECKING:
    import trimesh

FORMAT = "ff3d.field"  # the header is one entry: safetensors keeps no order among several
VERSIONS = (1, 2, 3)  # 2 holds the cells that the surface touches; 3 all cells, tables, and smaller numbers
OUTSIDE_LOGIT = -100.0
FAR_LOGIT = 10.0  # that of a field of distances far from the surface, about, and of what a guard answers
GAINS = {"occupancy": 1.0, "distance": FAR_LOGIT}
LEAST_LOGIT = 1e-3  # of a point whose side a guard knows
MOST_CELLS = 2**20  # of a cell grid: three times what is made
# a byte a cell, without the header of an .xz file; a fifth to a third smaller than by zlib
SQUEEZE = [{"id": lzma.FILTER_LZMA2, "preset": 9, "dict_size": MOST_CELLS, "lc": 0, "lp": 0, "pb": 0}]
DAMAGED = (lzma.LZMAError, zlib.error)
OMEGA = 30.0
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    # in place: the layer's own output is not needed again, and memory traffic is a third of a training step
    "relu": lambda x: F.relu(x, inplace=True),
    "gelu": F.gelu,
    "silu": F.silu,
    "sine": torch.sin,
    # Sitzmann et al. 2020, arXiv:2006.09661, section 3.2
    "siren": lambda x: torch.sin(OMEGA * x),
    # Liu et al. 2024, "FINER: Flexible Spectral-bias Tuning in Implicit Neural Representation", arXiv:2312.02434
    "finer": lambda x: torch.sin(OMEGA * (x.abs() + 1) * x),
    # Ramasinghe and Lucey 2022, "Beyond Periodicity", arXiv:2111.15135, section 4; the tails end at 2e-9, for products
    # of numbers under 1e-38 take a processor ten times as long
    "gaussian": lambda x: torch.exp((x**2 / (-2 * BELL**2)).clamp(min=-20)),
}

BELL = 0.1
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class FieldError(ValueError):
    """A field file that cannot be used; the message names the file and the fault."""


class OccupancyField(nn.Module):
    """A shape as a network: gamma(x) -> `depth` hidden layers of `width` -> one logit, > 0 inside.

    mapping: the input mapping, on unit coordinates.  cube: input coordinates <-> unit coordinates.
    bounds: (2, 3), input coordinates: the box that was sampled in training; outside it everything is outside.
    target: what it was fitted to, occupancy or distance: then logits far from the surface are +-`FAR_LOGIT`.
    precision: what the network's products run in; weights are float32 always.
    source: where the labels came from (plain JSON values), carried along in the file.
    surface: the coarse cells that the labels' surface touches, if known: extraction then finds thin parts by them.
    guarded: `surface` alone says what is inside in the cells that it has a label for. There the network says, beside
    cells that the surface touches, how far from it a point seems; further away it is not asked.
    storage: of the numbers in a file (`ff3d.fields.quantization`).
    Weights: Glorot normal, biases N(0, 0.01^2), as in the authors' notebook, from `seed`; for siren and finer as their
    authors draw them.
    """

    def __init__(
        self,
        mapping: Mapping,
        *,
        width: int = 256,
        depth: int = 4,
        activation: str = "relu",
        target: str = "occupancy",
        cube: UnitCube,
        bounds: ArrayLike,
        precision: str = "float32",
        source: dict[str, Any] | None = None,
        surface: SurfaceCells | None = None,
        guarded: bool = False,
        storage: str = "float32",
        seed: int = 0,
    ):
        super().__init__()
        if activation not in ACTIVATIONS:
            raise ValueError(f"unknown activation {activation!r}; known: {', '.join(ACTIVATIONS)}")
        if target not in GAINS:
            raise ValueError(f"unknown target {target!r}; known: {', '.join(GAINS)}")
        if storage not in STORAGES:
            raise ValueError(f"unknown storage {storage!r}; known: {', '.join(STORAGES)}")
        if guarded and surface is None:
            raise ValueError("a guarded field needs the surface's cells")
        if width < 1 or depth < 1:
            raise ValueError(f"width and depth must be at least 1, got {width} and {depth}")
        box = np.array(bounds, dtype=np.float64)
        if box.shape != (2, 3) or not np.isfinite(box).all() or not (box[0] < box[1]).all():
            raise ValueError(f"bounds must be (2, 3), finite, lower corner first, got {box.tolist()}")
        self.mapping, self.cube, self.bounds = mapping, cube, box
        self.width, self.depth, self.activation = width, depth, activation
        self.target, self.precision, self.source = target, precision, source or {}
        self.surface, self.guarded, self.storage = surface, guarded, storage
        sizes = [mapping.features, *[width] * depth, 1]
        self.layers = nn.ModuleList(nn.Linear(m, n) for m, n in pairwise(sizes))
        generator = torch.Generator().manual_seed(seed)
        for layer in self.layers:
            _draw_weights(layer, activation, generator, first=layer is self.layers[0])

    @property
    def parameter_count(self) -> int:
        """The number of trained weights and biases."""
        return sum(parameter.numel() for parameter in self.parameters())

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        return next(self.parameters()).device

    def forward(self, unit_points: Tensor) -> Tensor:
        """unit_points (n, 3), unit coordinates -> the network's logits (n,) float32, without the guard."""
        dtype = PRECISIONS[self.precision]
        activate = ACTIVATIONS[self.activation]
        if unit_points.requires_grad or (self.mapping.trained and torch.is_grad_enabled()):
            hidden = self.mapping(unit_points).to(dtype)
        else:
            hidden = self.mapping.encode(unit_points, dtype)
        *body, head = (layer for layer in self.layers if isinstance(layer, nn.Linear))
        for layer in body:
            hidden = activate(F.linear(hidden, layer.weight.to(dtype), layer.bias.to(dtype)))
        return F.linear(hidden, head.weight.to(dtype), head.bias.to(dtype)).squeeze(-1).float() * GAINS[self.target]

    @torch.no_grad()
    def logits(self, points: ArrayLike, *, chunk: int = 2**15) -> NDArray[np.float32]:
        """points (n, 3), input coordinates -> logits (n,) float32; `OUTSIDE_LOGIT` outside the field's box."""
        points = check_points(points)
        answer = np.full(len(points), OUTSIDE_LOGIT, dtype=np.float32)
        inside_box = ((points >= self.bounds[0]) & (points <= self.bounds[1])).all(axis=1)
        within = np.flatnonzero(inside_box)
        for start in range(0, len(within), chunk):
            rows = within[start : start + chunk]
            unit = self.cube.to_unit(points[rows])
            if self.guarded and self.surface is not None:
                side = self.surface.sides(unit)
                answer[rows] = np.sign(side) * FAR_LOGIT
                asked = np.abs(side) < 2
                rows, side, unit = rows[asked], side[asked], unit[asked]
                network = self._ask(unit)
                answer[rows] = np.where(side == 0, network, side * np.maximum(np.abs(network), LEAST_LOGIT))
            else:
                answer[rows] = self._ask(unit)
        return answer

    def _ask(self, unit: NDArray[np.float64]) -> NDArray[np.float32]:
        """The network's logits of unit points."""
        logits: NDArray[np.float32] = self(torch.from_numpy(unit.astype(np.float32)).to(self.device)).cpu().numpy()
        return logits

    def occupancy(self, points: ArrayLike) -> NDArray[np.float32]:
        """points (n, 3), input coordinates -> the sigmoid of the logits, (n,) float32 in [0, 1], 1/2 on the surface.

        Of a field of labels, the probability of being inside.
        """
        return torch.from_numpy(self.logits(points)).sigmoid().numpy()

    def contains(self, points: ArrayLike) -> NDArray[np.bool_]:
        """points (n, 3), input coordinates -> (n,) bool, True inside."""
        return self.logits(points) > 0

    def extract_mesh(self, resolution: int = 256, **settings: Any) -> trimesh.Trimesh:
        """The field's surface as a watertight mesh in input coordinates.

        settings: those of `ff3d.extract_mesh`. Where the field knows its `surface`, coarse cells there are halved in
        any case: a part of the shape that holds a point of a grid twice as fine as the coarse one is not missed.
        """
        from ff3d.surfaces.extraction import extract_mesh

        def guide(centers: NDArray[np.float64], side: float) -> NDArray[np.bool_]:
            assert self.surface is not None
            return self.surface(self.cube.to_unit(centers), side / self.cube.scale)

        settings.setdefault("guide", None if self.surface is None else guide)
        return extract_mesh(self.logits, self.bounds, resolution=resolution, **settings)

    def round_to(self, storage: str) -> None:
        """Round every number to what a file of this storage holds, and save to such a file from now on."""
        self.load_state_dict(unpacked(self._packed(storage)))
        self.storage = storage

    def _packed(self, storage: str) -> dict[str, Tensor]:
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in self.state_dict().items()}
        return packed(tensors, storage, kept=("mapping.frequencies",))  # phases, which many cycles multiply

    def save(self, path: str | Path) -> None:
        """Write the field to one .safetensors file, whole or not at all. No pickle: loading runs no code."""
        from safetensors.torch import save_file

        header = {
            "version": VERSIONS[-1],
            "mapping": self.mapping.name,
            "settings": self.mapping.settings,
            "width": self.width,
            "depth": self.depth,
            "activation": self.activation,
            "target": self.target,
            "precision": self.precision,
            "storage": self.storage,
            "cube": self.cube.to_json(),
            "bounds": self.bounds.tolist(),
            "source": self.source,
            "guarded": self.guarded,
            "surface": None,
        }
        tensors = self._packed(self.storage)
        if self.surface is not None:
            labels = self.surface.labels
            place = {"lower": self.surface.lower.tolist(), "side": self.surface.side, "shape": list(labels.shape)}
            header |= {"surface": place}
            squeezed = bytearray(lzma.compress(labels.tobytes(), lzma.FORMAT_RAW, filters=SQUEEZE))
            tensors["surface.cells"] = torch.frombuffer(squeezed, dtype=torch.uint8)
        with write_whole(path) as temporary:
            save_file(tensors, temporary, {FORMAT: json.dumps(header)})


def _draw_weights(layer: nn.Module, activation: str, generator: torch.Generator, *, first: bool) -> None:
    """Weights and biases of a layer before training."""
    assert isinstance(layer, nn.Linear)
    if activation in ("siren", "finer"):
        reach = 1 / layer.in_features if first else math.sqrt(6 / layer.in_features) / OMEGA
        nn.init.uniform_(layer.weight, -reach, reach, generator=generator)
        bias = 1.0 if first and activation == "finer" else 1 / math.sqrt(layer.in_features)
        nn.init.uniform_(layer.bias, -bias, bias, generator=generator)
    else:
        nn.init.xavier_normal_(layer.weight, generator=generator)
        nn.init.normal_(layer.bias, std=0.01, generator=generator)


def load_field(path: str | Path, *, device: str = "auto") -> OccupancyField:
    """Read a field that `OccupancyField.save` wrote; its products run in the precision that it was fitted in,
    or in float32 where the device is not fast at that.

    Raises FieldError, naming the file and the fault, for a missing or truncated file, another format or version, a
    header that is not understood, tensors of the wrong names or shapes, and values that are NaN or infinite.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if not path.is_file():
        raise FieldError(f"{path}: no such file; expected a field that ff3d saved (field.safetensors)")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise FieldError(f"{path}: not a whole safetensors file ({error})") from error
    if FORMAT not in metadata:
        raise FieldError(f"{path}: a safetensors file, but not one of ff3d's fields")
    for name, tensor in tensors.items():
        kinds = (torch.uint8,) if name == "surface.cells" else DTYPES
        if tensor.dtype not in kinds or not bool(torch.isfinite(tensor).all()):
            expected = " or ".join(str(kind).removeprefix("torch.") for kind in kinds)
            raise FieldError(f"{path}: {name} is not finite {expected}; the fit diverged or the file was changed")
    try:
        header = json.loads(metadata[FORMAT])
        if header["version"] not in VERSIONS:
            known = " and ".join(map(str, VERSIONS))
            raise FieldError(f"format version {header['version']}, this ff3d reads version {known}: update ff3d?")
        field = _assemble(header, tensors)
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError, OverflowError, *DAMAGED) as error:
        raise FieldError(f"{path}: header and tensors do not make a field ({error})") from error
    chosen = best_device(device)
    if field.precision != "float32":
        field.precision = best_precision(chosen)
    return field.to(chosen)


def _surface(header: dict[str, Any], stored: Tensor, version: int) -> SurfaceCells:
    """The cells of a file, checked."""
    shape = tuple(int(n) for n in header["shape"])
    lower, side = np.array(header["lower"], dtype=np.float64), float(header["side"])
    count = math.prod(shape)
    if len(shape) != 3 or min(shape) < 1 or count > MOST_CELLS:
        raise ValueError(f"surface cells of shape {shape}")
    if lower.shape != (3,) or not (np.isfinite(lower).all() and 0 < side < np.inf):
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


def _assemble(header: dict[str, Any], tensors: dict[str, Tensor]) -> OccupancyField:
    """The field of a file's header and tensors; any mismatch raises before a network is built."""
    version = header["version"]
    usual: dict[str, Any] = {"target": "occupancy", "storage": "float32", "settings": {}, "guarded": False}
    header = usual | header
    width, depth = int(header["width"]), int(header["depth"])
    cells = tensors.pop("surface.cells", None)
    tensors = unpacked(tensors)
    mapping: Mapping
    if header["mapping"] in GRID_MAPPINGS:
        mapping = GridMapping(header["mapping"], **header["settings"])
        expected = {"mapping.table": tuple(mapping.table.shape)}
    else:
        mapping = InputMapping(header["mapping"], tensors["mapping.frequencies"])
        expected = {"mapping.frequencies": tuple(mapping.frequencies.shape)}
    surface = None if cells is None else _surface(header["surface"], cells, version)
    if mapping.dimension != 3 or header["precision"] not in PRECISIONS:
        raise ValueError(f"dimension {mapping.dimension}, precision {header['precision']!r}")
    sizes = [mapping.features, *[width] * depth, 1] if depth <= len(tensors) else []
    for index, (m, n) in enumerate(pairwise(sizes)):
        expected |= {f"layers.{index}.weight": (n, m), f"layers.{index}.bias": (n,)}
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if found != expected:
        wrong = sorted(set(found.items()) ^ set(expected.items()))
        raise ValueError(f"tensors {wrong[:4]} do not fit width {width}, depth {depth}")
    field = OccupancyField(
        mapping,
        width=width,
        depth=depth,
        activation=header["activation"],
        target=header["target"],
        precision=header["precision"],
        cube=UnitCube.from_json(header["cube"]),
        bounds=header["bounds"],
        source=header["source"],
        surface=surface,
        guarded=bool(header["guarded"]),
        storage=header["storage"],
    )
    field.load_state_dict(tensors)
    return field
