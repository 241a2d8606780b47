"""How far a fit is, and the checkpoint from which an unfinished one resumes."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, TypedDict

from torch import Tensor, nn

from ff3d.checks import check_type, one_line, parse_json
from ff3d.files import write_atomically


class FitError(RuntimeError):
    """A fit that cannot continue; the message says what happened and what to change."""


class _Evaluation(TypedDict):
    step: int
    seconds: float


class Evaluation(_Evaluation, total=False):
    """A row of metrics.jsonl."""

    labelling: float
    samples: int
    loss: float
    iou: dict[str, float]


@dataclass
class Progress:
    """How far a fit is: steps done, seconds of the budget spent, the last loss, and each evaluation's row.

    labelling: those of the seconds that went into drawing and labelling points, beside a GPU into waiting for them.
    prepared: those before the first step.
    finished: the budget is spent.  interrupted: a signal ended the fit; after the last step both are true.
    signal: its number, 0 for none, also of a fit that was stopped by whoever watches it.
    """

    step: int = 0
    seconds: float = 0.0
    labelling: float = 0.0
    prepared: float = 0.0
    loss: float = math.nan
    finished: bool = False
    interrupted: bool = False
    signal: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)

    def record(self, batch_size: int, scores: dict[str, float]) -> None:
        """Append one line of metrics.jsonl to the history."""
        self.history.append(
            {
                "step": self.step,
                "seconds": round(self.seconds, 3),
                "labelling": round(self.labelling, 3),
                "samples": self.step * batch_size,
                "loss": self.loss,
                "iou": {name: round(score, 6) for name, score in scores.items()},
            }
        )


class Optimiser(Protocol):
    """What an optimiser is to a checkpoint: named tensors."""

    def state(self) -> dict[str, Tensor]:
        """The tensors, by name."""

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Take them over. Raises KeyError or ValueError if they are another network's."""


@dataclass(frozen=True)
class Checkpoint:
    """A file from which a fit of these settings (plain JSON values) resumes."""

    path: Path
    settings: dict[str, Any]

    def save(self, network: nn.Module, optimizer: Optimiser, progress: Progress) -> None:
        """Write weights, moments and progress to one .safetensors file, atomically."""
        from safetensors.torch import save_file

        tensors = {f"field.{name}": tensor for name, tensor in network.state_dict().items()}
        tensors |= {f"adam.{name}": tensor for name, tensor in optimizer.state().items()}
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        metadata = {
            "config": json.dumps(self.settings),
            "progress": json.dumps(dataclasses.asdict(replace(progress, interrupted=False, signal=0))),
        }
        with write_atomically(self.path) as temporary:
            save_file(tensors, temporary, metadata)

    def load(self, network: nn.Module, optimizer: Optimiser) -> Progress | None:
        """Put the weights and moments into `network` and `optimizer`; how far it was, or None where there is no file.

        Raises FitError if the file is damaged or was written under other settings.
        """
        from safetensors import SafetensorError, safe_open

        if not self.path.exists():
            return None
        try:
            with safe_open(self.path, framework="pt") as file:
                metadata = file.metadata() or {}
                tensors: dict[str, Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            stored = parse_json(metadata["config"], dict[str, Any])
            progress = Progress(**parse_json(metadata["progress"], Progress))
            check_type(progress.history, list[Evaluation], "history")
            if stored != json.loads(json.dumps(self.settings)):
                raise FitError(f"{self.path}: belongs to a fit with other settings; give another --out, or delete it")
            network.load_state_dict({name[6:]: tensors[name] for name in tensors if name.startswith("field.")})
            optimizer.load_state({name[5:]: tensors[name] for name in tensors if name.startswith("adam.")})
        except FitError:
            raise
        except (SafetensorError, OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
            raise FitError(
                f"{self.path}: not a checkpoint that can be resumed ({one_line(error)}); delete it"
            ) from error
        return progress
