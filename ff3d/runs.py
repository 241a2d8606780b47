"""The run folder: what is in it, written atomically, readable after it is moved."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import logging
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ff3d.fields.checkpoint import FitError, Progress
from ff3d.fields.field import OccupancyField, load_field
from ff3d.fields.network import resolve_device
from ff3d.files import file_sha256, write_text
from ff3d.fitting import Fit, train
from ff3d.settings import FitConfig, from_flat

if TYPE_CHECKING:
    import trimesh

    from ff3d.labels.oracles import Oracle
    from ff3d.metrics import LabelledPoints


log = logging.getLogger("ff3d")


class RunError(ValueError):
    """A run folder that cannot be used; the message names it and says what to do."""


@dataclass(frozen=True)
class MeshSource:
    """Where a run's labels came from: the mesh file's name (no path: a run can be moved) and its sha256."""

    name: str
    sha256: str

    @classmethod
    def of(cls, path: Path) -> MeshSource:
        """Read the file's name and hash."""
        return cls(path.name, file_sha256(path))


class Run:
    """A folder with config.json, field.safetensors, metrics.jsonl and, while unfinished, checkpoint.safetensors.

    config.json holds the settings as they were given (`fit`), and where labels forced others, those (`used`) and why
    (`notes`).
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self.config_path = self.folder / "config.json"
        self.field_path = self.folder / "field.safetensors"
        self.metrics_path = self.folder / "metrics.jsonl"
        self.checkpoint_path = self.folder / "checkpoint.safetensors"

    @property
    def finished(self) -> bool:
        """Whether the fit reached the end of its budget."""
        return self.field_path.exists() and not self.checkpoint_path.exists()

    def matches(self, config: FitConfig, source: MeshSource) -> bool:
        """Whether this folder's config.json holds the same settings and the same mesh."""
        recorded = self.record()
        return bool(recorded["fit"] == config.flat() and recorded["mesh"] == _plain(source))

    def record(self) -> dict[str, Any]:
        """config.json as plain data; RunError if it is missing or is not one of ff3d's."""
        try:
            recorded = json.loads(self.config_path.read_text(encoding="utf-8"))
            if not {"fit", "mesh"} <= recorded.keys():
                raise ValueError("no fit and mesh in it")
        except FileNotFoundError:
            raise RunError(f"{self.folder}: no run here (config.json is missing); ff3d fit makes one") from None
        except (ValueError, AttributeError) as error:
            raise RunError(f"{self.config_path}: not a run's config.json ({error})") from error
        return dict(recorded)

    def history(self) -> list[dict[str, Any]]:
        """The rows of metrics.jsonl, one an evaluation; none yet is an empty list."""
        if not self.metrics_path.exists():
            return []
        try:
            rows = [json.loads(line) for line in self.metrics_path.read_text(encoding="utf-8").splitlines()]
            return [{**row, "step": int(row["step"]), "seconds": float(row["seconds"])} for row in rows]
        except (ValueError, TypeError, KeyError) as error:
            raise RunError(f"{self.metrics_path}: not a run's metrics.jsonl ({error})") from error

    def load(self, *, device: str = "auto") -> OccupancyField:
        """The run's field, of an interrupted one as far as it got; RunError if there is none yet."""
        if not self.field_path.exists():
            if not self.config_path.exists():
                raise RunError(f"{self.folder}: no field.safetensors here; expected the folder of a fit")
            command = self.record().get("command")
            raise RunError(
                f"{self.folder}: unfinished: run the same command again{f' ({command})' if command else ''}, "
                "and the fit is resumed"
            )
        if not self.finished:
            log.warning("%s: unfinished: this is the field so far; the same command again resumes the fit", self.folder)
        return load_field(self.field_path, device=device)

    def fit(
        self,
        mesh: trimesh.Trimesh,
        config: FitConfig,
        source: MeshSource,
        *,
        command: str = "",
        oracle: Oracle | None = None,
        held_out: dict[str, LabelledPoints] | None = None,
        spent: float = 0.0,
        progress_bar: bool = False,
    ) -> Fit:
        """Fit in this folder: new, or resumed from its checkpoint; a finished run of the same settings is only read.

        Otherwise as `train`. Ctrl-C keeps what there is: the field so far, and the checkpoint from which the same
        call resumes.
        Raises RunError if the folder holds a run of other settings or another mesh.
        """
        device, precision = resolve_device(config.device, config.network)
        if self.field_path.exists() or self.checkpoint_path.exists():
            if not self.matches(config, source):
                raise RunError(f"{self.folder}: holds a run of other settings or another mesh; give another --out")
            if self.finished:
                progress = Progress(history=self.history(), finished=True)
                progress.step = progress.history[-1]["step"] if progress.history else 0
                progress.seconds = progress.history[-1]["seconds"] if progress.history else 0.0
                progress.labelling = progress.history[-1].get("labelling", 0.0) if progress.history else 0.0
                recorded = self.record()
                used = from_flat(recorded.get("used", recorded["fit"]))
                said = {name: tuple(recorded.get(name, ())) for name in ("notes", "remarks")}
                return Fit(self.load(device=config.device), used, progress, **said, nothing=recorded.get("nothing"))
        else:
            self._write_record(_record(config, source, command) | {"device": device.type, "precision": precision})
        try:
            result = train(
                mesh,
                config,
                oracle=oracle,
                held_out=held_out,
                on_evaluation=lambda progress: self._write_history(progress.history),
                checkpoint=self.checkpoint_path,
                spent=spent,
                progress_bar=progress_bar,
                source=_plain(source),
            )
        except FitError as error:
            raise FitError(f"{self.folder}: {error}") from error
        self._write_history(result.progress.history)
        if result.notes:
            self._write_record(self.record() | {"used": result.config.flat(), "notes": list(result.notes)})
        if result.remarks:
            self._write_record(self.record() | {"remarks": list(result.remarks), "nothing": result.nothing})
        result.field.save(self.field_path)
        if result.progress.finished:
            self.checkpoint_path.unlink(missing_ok=True)
        return result

    def _write_record(self, record: dict[str, Any]) -> None:
        write_text(self.config_path, json.dumps(record, indent=2) + "\n")

    def _write_history(self, history: list[dict[str, Any]]) -> None:
        write_text(self.metrics_path, "".join(json.dumps(row) + "\n" for row in history))


def new_folder(parent: Path, name: str, *, reusable: Any = None) -> Path:
    """`parent/name`, or name-2, name-3, ... : the first that does not exist, or that `reusable(folder)` accepts."""
    number = 1
    while True:
        folder = parent / (name if number == 1 else f"{name}-{number}")
        if not folder.exists() or (reusable is not None and reusable(folder)):
            return folder
        number += 1


def _plain(data: Any) -> dict[str, Any]:
    """A dataclass as it reads back from JSON (tuples become lists)."""
    return dict(json.loads(json.dumps(dataclasses.asdict(data))))


def _record(config: FitConfig, source: MeshSource, command: str) -> dict[str, Any]:
    """Everything needed to repeat the fit."""
    libraries = ("ff3d", "torch", "numpy", "libigl", "trimesh")
    versions = {"python": platform.python_version()} | {it: importlib.metadata.version(it) for it in libraries}
    return {"fit": config.flat(), "mesh": _plain(source), "command": command, "versions": versions}
