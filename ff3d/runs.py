"""The run folder: what is in it, written atomically, readable after it is moved."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import json
import logging
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, cast

from ff3d.checks import one_line, parse_json, read_json
from ff3d.fields.checkpoint import Evaluation, FitError, Progress
from ff3d.fields.field import LatticeField, OccupancyField, load_field
from ff3d.fields.network import resolve_device
from ff3d.files import check_unmade, file_sha256, locked, short_name, write_text
from ff3d.fitting import Fit, Observer, train
from ff3d.settings import FitConfig, from_flat

if TYPE_CHECKING:
    import trimesh

    from ff3d.labels.oracles import Oracle
    from ff3d.metrics import LabelledPoints


log = logging.getLogger("ff3d")

FINGERPRINT = "fingerprint"


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


class _Mesh(TypedDict):
    name: str
    sha256: str


class _Record(TypedDict):
    fit: dict[str, Any]
    mesh: _Mesh


class Record(_Record, total=False):
    """config.json."""

    used: dict[str, Any]
    notes: list[str]
    remarks: list[str]
    nothing: str | None
    command: str
    versions: dict[str, str]
    device: str
    precision: str


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
            return cast("dict[str, Any]", read_json(self.config_path, Record))
        except FileNotFoundError:
            raise RunError(f"{self.folder}: no run here (config.json is missing); ff3d fit makes one") from None
        except (OSError, ValueError) as error:
            raise RunError(f"{self.config_path}: not a run's config.json ({one_line(error)})") from error

    def history(self) -> list[dict[str, Any]]:
        """The rows of metrics.jsonl, one an evaluation; none yet is an empty list."""
        if not self.metrics_path.exists():
            return []
        try:
            lines = self.metrics_path.read_text(encoding="utf-8").splitlines()
            return [parse_json(line, Evaluation) for line in lines]
        except (OSError, ValueError) as error:
            raise RunError(f"{self.metrics_path}: not a run's metrics.jsonl ({one_line(error)})") from error

    def load(self, *, device: str = "auto") -> OccupancyField | LatticeField:
        """The run's field, of an interrupted one as far as it got.

        Raises RunError if there is none yet, or if it is not that of config.json.
        """
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
        field = load_field(self.field_path, device=device)
        if self.config_path.exists() and field.source.get(FINGERPRINT) not in (None, _fingerprint(self.record())):
            raise RunError(
                f"{self.folder}: config.json and field.safetensors are of different fits; fit anew with another --out"
            )
        return field

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
        observers: Sequence[Observer] = (),
        force: bool = False,
    ) -> Fit:
        """Fit in this folder: new, or resumed from its checkpoint; a finished run of the same settings is only read.

        Otherwise as `train`. Ctrl-C keeps what there is: the field so far, and the checkpoint from which the same
        call resumes.  force: replace files of the names of a run's that ff3d has not made.
        Raises RunError if the folder holds a run of other settings or another mesh, FolderError if it holds such files,
        or another process fits there.
        """
        device, precision = resolve_device(config.device, config.network)
        if self.finished:  # before a lock, which a folder that can only be read does not take
            return self._read(config, source)
        with locked(self.folder):
            if self.field_path.exists() or self.checkpoint_path.exists():
                if self.finished or not self.matches(config, source):
                    return self._read(config, source)
            else:
                if not (force or self._made):
                    check_unmade(self.config_path, self.metrics_path, self.folder / "mesh.ply")
                self._write_record(_record(config, source, command) | {"device": device.type, "precision": precision})
            return self._fitted(
                mesh,
                config,
                source,
                oracle=oracle,
                held_out=held_out,
                spent=spent,
                progress_bar=progress_bar,
                observers=observers,
            )

    @property
    def _made(self) -> bool:
        """Whether the folder's config.json is ff3d's."""
        try:
            return bool(self.record())
        except RunError:
            return False

    def _read(self, config: FitConfig, source: MeshSource) -> Fit:
        """What a finished run was. Raises RunError if it is one of other settings."""
        if not self.matches(config, source):
            raise RunError(f"{self.folder}: holds a run of other settings or another mesh; give another --out")
        progress = Progress(history=self.history(), finished=True)
        progress.step = progress.history[-1]["step"] if progress.history else 0
        progress.seconds = progress.history[-1]["seconds"] if progress.history else 0.0
        progress.labelling = progress.history[-1].get("labelling", 0.0) if progress.history else 0.0
        recorded = self.record()
        try:
            used = from_flat(recorded.get("used", recorded["fit"]))
        except (ValueError, TypeError) as error:
            raise RunError(f"{self.config_path}: not a run's config.json ({one_line(error)})") from error
        said = {name: tuple(recorded.get(name, ())) for name in ("notes", "remarks")}
        return Fit(self.load(device=config.device), used, progress, **said, nothing=recorded.get("nothing"))

    def _fitted(self, mesh: trimesh.Trimesh, config: FitConfig, source: MeshSource, **settings: Any) -> Fit:
        """Fit, and write what came of it."""
        try:
            result = train(
                mesh,
                config,
                on_evaluation=lambda progress: self._write_history(progress.history),
                checkpoint=self.checkpoint_path,
                **settings,
                source=_plain(source) | {FINGERPRINT: _fingerprint(self.record())},
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
        folder = parent / (short_name(name) if number == 1 else f"{short_name(name)}-{number}")
        if not folder.exists() or (reusable is not None and reusable(folder)):
            return folder
        number += 1


def _plain(data: Any) -> dict[str, Any]:
    """A dataclass as it reads back from JSON (tuples become lists)."""
    return dict(json.loads(json.dumps(dataclasses.asdict(data))))


def _fingerprint(recorded: dict[str, Any]) -> str:
    """A hash of the settings and the mesh of a config.json, which its field carries along."""
    return hashlib.sha256(json.dumps([recorded["fit"], recorded["mesh"]], sort_keys=True).encode()).hexdigest()[:16]


def _record(config: FitConfig, source: MeshSource, command: str) -> dict[str, Any]:
    """Everything needed to repeat the fit."""
    libraries = ("ff3d", "torch", "numpy", "libigl", "trimesh")
    versions = {"python": platform.python_version()} | {it: importlib.metadata.version(it) for it in libraries}
    return {"fit": config.flat(), "mesh": _plain(source), "command": command, "versions": versions}
