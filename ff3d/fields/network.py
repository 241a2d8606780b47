"""Network: an input mapping and a few dense layers, with any number of inputs and outputs; where it runs, and how."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import torch
import torch.nn.functional as F  # noqa: N812  (torch's own name for it)
from torch import Tensor, nn
from torch.nn.utils import skip_init

from ff3d.fields.config import NetworkConfig
from ff3d.fields.feature_grids import Features, UnitPoints
from ff3d.fields.mapping import Mapping

WAVES = ("siren", "finer", "gaussian")  # activations that bfloat16 would shift by a tenth of a turn
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
INITIALISATIONS = ("glorot", "he")
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class Network(nn.Module):
    """gamma(x) -> `depth` hidden layers of `width` -> `outputs` numbers.

    mapping: the input mapping, of points (n, d).  precision: what the products run in; weights are float32 always.
    initialisation: glorot, the normal of Glorot and Bengio 2010 and biases N(0, 0.01^2), as in the notebook of Tancik
    et al. 2020, or he, the normal of He et al. 2015 (arXiv:1502.01852) and biases of 0; drawn from `seed`. Siren and
    finer start as their authors draw them.
    Raises ValueError for an unknown activation or initialisation, or a width, depth or number of outputs under 1.
    """

    def __init__(
        self,
        mapping: Mapping,
        *,
        width: int = 256,
        depth: int = 4,
        outputs: int = 1,
        activation: str = "relu",
        initialisation: str = "glorot",
        precision: str = "float32",
        seed: int = 0,
    ):
        super().__init__()
        if activation not in ACTIVATIONS:
            raise ValueError(f"unknown activation {activation!r}; known: {', '.join(ACTIVATIONS)}")
        if initialisation not in INITIALISATIONS:
            raise ValueError(f"unknown initialisation {initialisation!r}; known: {', '.join(INITIALISATIONS)}")
        if width < 1 or depth < 1 or outputs < 1:
            raise ValueError(f"width, depth and outputs must be at least 1, got {width}, {depth} and {outputs}")
        self.mapping, self.activation, self.precision = mapping, activation, precision
        self.width, self.depth, self.outputs = width, depth, outputs
        sizes = [mapping.features, *[width] * depth, outputs]
        # without the weights that torch would draw from its global generator
        self.layers = nn.ModuleList(skip_init(nn.Linear, m, n) for m, n in pairwise(sizes))
        generator = torch.Generator().manual_seed(seed)
        for layer in self.layers:
            _draw_weights(layer, activation, initialisation, generator, first=layer is self.layers[0])

    @property
    def parameter_count(self) -> int:
        """The number of trained weights and biases."""
        return sum(parameter.numel() for parameter in self.parameters())

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        return next(self.parameters()).device

    def forward(self, points: UnitPoints) -> Features:
        """points (n, d), unit coordinates -> (n, outputs) float32."""
        dtype = PRECISIONS[self.precision]
        activate = ACTIVATIONS[self.activation]
        if points.requires_grad or (self.mapping.trained and torch.is_grad_enabled()):
            hidden = self.mapping(points).to(dtype)
        else:
            hidden = self.mapping.encode(points, dtype)
        *body, head = (layer for layer in self.layers if isinstance(layer, nn.Linear))
        for layer in body:
            hidden = activate(F.linear(hidden, layer.weight.to(dtype), layer.bias.to(dtype)))
        return F.linear(hidden, head.weight.to(dtype), head.bias.to(dtype)).float()


def _draw_weights(
    layer: nn.Module, activation: str, initialisation: str, generator: torch.Generator, *, first: bool
) -> None:
    """Weights and biases of a layer before training."""
    assert isinstance(layer, nn.Linear)
    if activation in ("siren", "finer"):
        reach = 1 / layer.in_features if first else math.sqrt(6 / layer.in_features) / OMEGA
        nn.init.uniform_(layer.weight, -reach, reach, generator=generator)
        bias = 1.0 if first and activation == "finer" else 1 / math.sqrt(layer.in_features)
        nn.init.uniform_(layer.bias, -bias, bias, generator=generator)
    elif initialisation == "he":
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu", generator=generator)
        nn.init.zeros_(layer.bias)
    else:
        nn.init.xavier_normal_(layer.weight, generator=generator)
        nn.init.normal_(layer.bias, std=0.01, generator=generator)


def best_device(name: str = "auto") -> torch.device:
    """`auto` is CUDA, then Apple's MPS, then the CPU; any other name is taken as torch's.

    Raises ValueError if that device is unknown or not there.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"device {name!r} cannot be used here ({reason}); try --device auto") from error
    return device


def best_precision(device: torch.device) -> str:
    """`bfloat16` where the hardware multiplies it fast (AVX512-BF16 or AMX, CUDA), else `float32`."""
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    if device.type == "cpu":
        capabilities = torch.cpu.get_capabilities()
        return "bfloat16" if capabilities.get("avx512_bf16") or capabilities.get("amx_bf16") else "float32"
    return "float32"


def resolve_device(device: str, network: NetworkConfig) -> tuple[torch.device, str]:
    """The device and the precision that a fit of these settings uses on this machine. Raises as `best_device`."""
    chosen = best_device(device)
    if network.precision != "auto":
        return chosen, network.precision
    return chosen, "float32" if network.activation in WAVES else best_precision(chosen)
