"""Fields that answer what is inside, in the input's coordinates: a network or a lattice; saved and loaded."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from ff3d.checks import one_line
from ff3d.fields.config import GRID_MAPPINGS, LATTICE_MAPPINGS
from ff3d.fields.feature_grids import GridMapping, UnitPoints
from ff3d.fields.field_file import (
    FARTHEST,
    FAULTS,
    LATTICE_VERSION,
    FieldError,
    FieldFile,
    read_field_file,
    write_field_file,
)
from ff3d.fields.mapping import InputMapping, Mapping
from ff3d.fields.network import PRECISIONS, WAVES, Network, best_device, best_precision
from ff3d.fields.quantization import STORAGES, packed, unpacked
from ff3d.geometry.arrays import Labels, Logits
from ff3d.geometry.coordinates import UnitCube, check_points
from ff3d.geometry.surface_cells import SurfaceCells
from ff3d.lattices.codec import Decoder, encoded, grow
from ff3d.lattices.lattice import Frame, Lattice

if TYPE_CHECKING:
    import trimesh

    from ff3d.surfaces.export import Export

OUTSIDE_LOGIT = -100.0
FAR_LOGIT = 10.0  # that of a field of distances far from the surface, about, and of what a guard answers
GAINS = {"occupancy": 1.0, "distance": FAR_LOGIT}
LARGEST = 1e36  # of numbers in the network: float32 and bfloat16 end at 3e38
GUIDE_REACH = 1.0  # sides: half a cube's diagonal is .87, the rest for what is trilinear instead of a distance
MOST_NUMBERS = 2**31  # of a lattice in a file
Guide = Callable[[NDArray[np.float64], float], NDArray[np.bool_]]
CHUNKS = {"cpu": 2**15, "cuda": 2**17}  # points that are queried at once, by device
LEAST_LOGIT = 1e-3  # of a point whose side a guard knows


class Field(ABC):
    """A shape as a function of space: logits, > 0 inside.

    cube: input coordinates <-> unit coordinates.  bounds: (2, 3), input coordinates; outside this box everything is
    outside.  source: where the labels came from (plain JSON values), carried along in the file.
    """

    cube: UnitCube
    bounds: NDArray[np.float64]
    source: dict[str, Any]

    @property
    @abstractmethod
    def parameter_count(self) -> int:
        """How many numbers were fitted."""

    @abstractmethod
    def logits(self, points: ArrayLike) -> Logits:
        """points (n, 3), input coordinates -> logits (n,) float32; `OUTSIDE_LOGIT` outside the field's box."""

    @abstractmethod
    def save(self, path: str | Path) -> None:
        """Write the field to one .safetensors file, atomically. No pickle: loading runs no code."""

    @property
    @abstractmethod
    def _guide(self) -> Guide | None:
        """Whether cubes, centers (n, 3) and side in input coordinates, may hold the surface; None if unknown."""

    def occupancy(self, points: ArrayLike) -> Logits:
        """points (n, 3), input coordinates -> the sigmoid of the logits, (n,) float32 in [0, 1], 1/2 on the surface.

        Of a network fitted to labels, the probability of being inside.
        """
        return torch.from_numpy(self.logits(points)).sigmoid().numpy()

    def contains(self, points: ArrayLike) -> Labels:
        """points (n, 3), input coordinates -> (n,) bool, True inside."""
        return self.logits(points) > 0

    def extract_mesh(self, resolution: int = 256, **settings: Any) -> trimesh.Trimesh:
        """The field's surface as a watertight mesh in input coordinates.

        settings: those of `ff3d.extract_mesh`. Where the field knows about where its surface is, coarse cells there
        are halved in any case: a part of the shape that holds a point of a grid twice as fine as the coarse one is not
        missed.
        """
        from ff3d.surfaces.extraction import extract_mesh

        settings.setdefault("guide", self._guide)
        return extract_mesh(self.logits, self.bounds, resolution=resolution, **settings)

    def export(self, path: str | Path, **settings: Any) -> Export:
        """Extract the field's surface, clean it, and write it to a file by its ending: all that `ff3d extract` does.

        path: .ply, .obj, .stl, .glb: a watertight mesh in input coordinates; .xyz: points on it; .npz: voxels.
        settings: those of `ff3d.surfaces.export.export_surface`: resolution, refine, drop_floaters, simplify, ...
        """
        from ff3d.surfaces.export import export_surface

        settings.setdefault("guide", self._guide)
        return export_surface(self.logits, self.bounds, path, **settings)


def _checked_box(bounds: ArrayLike) -> NDArray[np.float64]:
    """The box of a field, (2, 3). Raises ValueError."""
    box = np.array(bounds, dtype=np.float64)
    if box.shape != (2, 3) or not np.isfinite(box).all() or not (box[0] < box[1]).all():
        raise ValueError(f"bounds must be (2, 3), finite, lower corner first, got {box.tolist()}")
    return box


class OccupancyField(Network, Field):
    """A shape as a network: gamma(x) -> `depth` hidden layers of `width` -> one logit, > 0 inside.

    mapping: the input mapping, on unit coordinates.  cube: input coordinates <-> unit coordinates.
    bounds: (2, 3), input coordinates: the box that was sampled in training; outside it everything is outside.
    target: what it was fitted to, occupancy or distance: then logits far from the surface are +-`FAR_LOGIT`.
    source: where the labels came from (plain JSON values), carried along in the file.
    surface: the coarse cells that the labels' surface touches, if known: extraction then finds thin parts by them.
    guarded: `surface` alone says what is inside in the cells that it has a label for. There the network says, beside
    cells that the surface touches, how far from it a point seems; further away it is not queried.
    storage: of the numbers in a file (`ff3d.fields.quantization`).
    Otherwise as `Network`. Raises ValueError for settings that are unknown or do not go together.
    """

    def __init__(
        self,
        mapping: Mapping,
        *,
        width: int = 256,
        depth: int = 4,
        activation: str = "relu",
        initialisation: str = "glorot",
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
        super().__init__(
            mapping,
            width=width,
            depth=depth,
            activation=activation,
            initialisation=initialisation,
            precision=precision,
            seed=seed,
        )
        if target not in GAINS:
            raise ValueError(f"unknown target {target!r}; known: {', '.join(GAINS)}")
        if storage not in STORAGES:
            raise ValueError(f"unknown storage {storage!r}; known: {', '.join(STORAGES)}")
        if guarded and surface is None:
            raise ValueError("a guarded field needs the surface's cells")
        self.cube, self.bounds = cube, _checked_box(bounds)
        self.target, self.source = target, source or {}
        self.surface, self.guarded, self.storage = surface, guarded, storage

    def forward(self, points: UnitPoints) -> Tensor:
        """points (n, 3), unit coordinates -> the network's logits (n,) float32, without the guard."""
        return super().forward(points).squeeze(-1) * GAINS[self.target]

    @torch.no_grad()
    def logits(self, points: ArrayLike, *, chunk: int | None = None) -> Logits:
        """points (n, 3), input coordinates -> logits (n,) float32; `OUTSIDE_LOGIT` outside the field's box.

        chunk: points at once, by default as many as suit the device.
        """
        points, chunk = check_points(points), chunk or CHUNKS.get(self.device.type, CHUNKS["cpu"])
        answer = np.full(len(points), OUTSIDE_LOGIT, dtype=np.float32)
        inside_box = ((points >= self.bounds[0]) & (points <= self.bounds[1])).all(axis=1)
        within = np.flatnonzero(inside_box)
        for start in range(0, len(within), chunk):
            rows = within[start : start + chunk]
            unit = self.cube.to_unit(points[rows])
            if self.guarded and self.surface is not None:
                side = self.surface.sides(unit)
                answer[rows] = np.sign(side) * FAR_LOGIT
                near = np.abs(side) < 2
                rows, side, unit = rows[near], side[near], unit[near]
                network = self._query(unit)
                answer[rows] = np.where(side == 0, network, side * np.maximum(np.abs(network), LEAST_LOGIT))
            else:
                answer[rows] = self._query(unit)
        return answer

    def _query(self, unit: NDArray[np.float64]) -> NDArray[np.float32]:
        """The network's logits of unit points."""
        logits: NDArray[np.float32] = self(torch.from_numpy(unit.astype(np.float32)).to(self.device)).cpu().numpy()
        return logits

    @property
    def _reach(self) -> float:
        """The largest unit coordinate in the box."""
        with np.errstate(over="ignore", invalid="ignore"):
            return float(np.abs(self.cube.to_unit(self.bounds)).max())

    @torch.no_grad()
    def largest_number(self) -> float:
        """A bound on the size of the logits, and of all numbers on the way to them, within the box."""
        largest = reach = self._reach
        if isinstance(self.mapping, GridMapping):  # weights of corners sum to 1; planes are multiplied
            bound = max(1.0, float(self.mapping.table.abs().max())) ** len(self.mapping.axes)
        elif self.mapping.name == "none":
            bound = 2 * reach + 1
        else:
            bound = 1.0
            largest *= 7 * max(1.0, float(self.mapping.frequencies.abs().sum(dim=1).max()))
        for layer in self.layers:
            assert isinstance(layer, nn.Linear)
            sums = layer.weight.double().abs().sum(dim=1) * bound + layer.bias.double().abs()
            reached = float(sums.max())
            # the largest that an activation takes is finer's, 30 (|x| + 1) x
            largest = max(largest, bound, 30 * (reached + 1) * reached if self.activation in WAVES else reached)
            bound = reached if self.activation in ("relu", "gelu", "silu") else 1.0
        return largest

    @property
    def _guide(self) -> Guide | None:
        """Whether cubes, centers (n, 3) and side in input coordinates, meet a cell that `surface` touches."""
        cells = self.surface
        if cells is None:
            return None
        return lambda centers, side: cells(self.cube.to_unit(centers), side / self.cube.scale)

    def round_to(self, storage: str) -> None:
        """Round every number to what a file of this storage holds, and save to such a file from now on."""
        self.load_state_dict(unpacked(self._packed(storage)))
        self.storage = storage

    def _packed(self, storage: str) -> dict[str, Tensor]:
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in self.state_dict().items()}
        return packed(tensors, storage, kept=("mapping.frequencies",))  # phases, which many cycles multiply

    def save(self, path: str | Path) -> None:
        """Write the field to one .safetensors file, atomically. No pickle: loading runs no code."""
        header = {
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
        }
        write_field_file(path, header, self._packed(self.storage), self.surface)


class LatticeField(Field):
    """A shape as signed distances at the corners of a lattice's cells, without a network.

    lattice: in unit coordinates.  mapping: how it came about, "voxels" or "lattice".
    Logits are distances in sides of the smallest cells, positive inside.
    Otherwise as `OccupancyField`.
    """

    def __init__(
        self,
        lattice: Lattice,
        *,
        mapping: str,
        cube: UnitCube,
        bounds: ArrayLike,
        source: dict[str, Any] | None = None,
    ):
        if mapping not in LATTICE_MAPPINGS:
            raise ValueError(f"unknown kind of lattice {mapping!r}; known: {', '.join(LATTICE_MAPPINGS)}")
        self.lattice, self.mapping = lattice, mapping
        self.cube, self.bounds, self.source = cube, _checked_box(bounds), source or {}
        self.width, self.depth = 0, 0  # of no network

    @property
    def parameter_count(self) -> int:
        """The numbers at the corners of cells, on each level."""
        return self.lattice.numbers

    def logits(self, points: ArrayLike) -> Logits:
        """points (n, 3), input coordinates -> logits (n,) float32; `OUTSIDE_LOGIT` outside the field's box."""
        points = check_points(points)
        distance = self.lattice(self.cube.to_unit(points))
        distance /= np.float32(self.lattice.frame.cell)
        distance[((points < self.bounds[0]) | (points > self.bounds[1])).any(axis=1)] = OUTSIDE_LOGIT
        return distance

    def coarser(self, levels: int) -> LatticeField:
        """The field of the lattice's first levels, to be looked at."""
        return LatticeField(self.lattice.coarser(levels), mapping=self.mapping, cube=self.cube, bounds=self.bounds)

    @property
    def _guide(self) -> Guide:
        """Whether cubes, centers (n, 3) and side in input coordinates, may hold the surface: it is no further away."""

        def may_hold_surface(centers: NDArray[np.float64], side: float) -> NDArray[np.bool_]:
            reach = GUIDE_REACH * side / self.cube.scale + self.lattice.frame.cell
            found: NDArray[np.bool_] = np.abs(self.lattice(self.cube.to_unit(centers))) <= reach
            return found

        return may_hold_surface

    def save(self, path: str | Path) -> None:
        """Write the field to one .safetensors file, atomically. No pickle: loading runs no code."""
        frame = self.lattice.frame
        header = {
            "version": LATTICE_VERSION,
            "mapping": self.mapping,
            "frame": {
                "lower": frame.lower.tolist(),
                "side": frame.side,
                "shape": frame.shape.tolist(),
                "levels": frame.levels,
                "steps": frame.steps,
            },
            "numbers": self.lattice.numbers,
            "cube": self.cube.to_json(),
            "bounds": self.bounds.tolist(),
            "source": self.source,
        }
        write_field_file(path, header, {"lattice.data": torch.from_numpy(encoded(self.lattice))}, None)


def load_field(path: str | Path, *, device: str = "auto") -> OccupancyField | LatticeField:
    """Read a field that was saved. A network's products run in the precision that it was fitted in, or in float32
    where the device is not fast at that.

    Raises FieldError, naming the file and the fault, for a missing or truncated file, another format or version, a
    header that is not understood, tensors of the wrong names or shapes, and values that are NaN or infinite.
    """
    path = Path(path)
    stored = read_field_file(path)
    try:
        field = _decoded(stored) if stored.header["mapping"] in LATTICE_MAPPINGS else _assembled(stored)
    except FAULTS as error:
        raise FieldError(f"{path}: header and tensors do not make a field ({one_line(error)})") from error
    if isinstance(field, LatticeField):
        return field
    chosen = best_device(device)
    if field.precision != "float32":
        field.precision = best_precision(chosen)
    return field.to(chosen)


def _assembled(stored: FieldFile) -> OccupancyField:
    """The field of a file's header and tensors; any mismatch raises before a network is built."""
    header, tensors, surface = stored
    width, depth = int(header["width"]), int(header["depth"])
    mapping: Mapping
    if header["mapping"] in GRID_MAPPINGS:
        mapping = GridMapping(header["mapping"], **header["settings"])
        expected = {"mapping.table": tuple(mapping.table.shape)}
    else:
        mapping = InputMapping(header["mapping"], tensors["mapping.frequencies"])
        expected = {"mapping.frequencies": tuple(mapping.frequencies.shape)}
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
    if not field._reach < FARTHEST:
        raise ValueError(f"its box reaches {field._reach:.0e} sides of its cube away")
    largest = field.largest_number()
    if not largest < LARGEST:
        raise ValueError(f"its numbers may grow to {largest:.0e}, past what float32 holds")
    return field


def _decoded(stored: FieldFile) -> LatticeField:
    """The lattice of a file; whatever is wrong with it raises one of `FAULTS`."""
    header, data = stored.header, stored.tensors["lattice.data"].numpy()
    frame = Frame(
        np.array(header["frame"]["lower"], dtype=np.float64),
        float(header["frame"]["side"]),
        np.array(header["frame"]["shape"], dtype=np.int64),
        int(header["frame"]["levels"]),
        int(header["frame"]["steps"]),
    )
    frame.check()
    lattice = grow(frame, Decoder(data, min(int(header["numbers"]), MOST_NUMBERS)))
    return LatticeField(
        lattice,
        mapping=header["mapping"],
        cube=UnitCube.from_json(header["cube"]),
        bounds=header["bounds"],
        source=header["source"],
    )
