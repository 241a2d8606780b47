"""Numbers in fewer bytes: float32 tensors as float16, or as 8-bit whole numbers with a scale for each block."""

from __future__ import annotations

import math

import torch
from torch import Tensor

STORAGES = ("float32", "float16", "int8")
DTYPES = (torch.float32, torch.float16, torch.int8, torch.bfloat16)  # of what `packed` writes
# Of 8-bit numbers, one scale each: as in Dettmers et al. 2022, "8-bit Optimizers via Block-wise Quantization",
# arXiv:2110.02861, section 2, so that a large number spoils the digits of its own block alone
BLOCK = 64
SCALES = ".scales"


def packed(tensors: dict[str, Tensor], storage: str, *, kept: tuple[str, ...] = ()) -> dict[str, Tensor]:
    """Finite float32 tensors by name -> what to write; `unpacked` gives them back, rounded.

    float16: half the bytes; numbers past its range become the largest that it has.
    int8: tensors of two axes or more become int8, with `NAME.scales`, bfloat16, one for each `BLOCK` numbers in order:
    value = number * scale, right to half a scale. The others become float16.
    kept: names of tensors that stay as they are.  Raises ValueError for an unknown storage.

    >>> written = packed({"weight": torch.tensor([[-127.0, 64.4, 0.0]])}, "int8")
    >>> {name: tensor.tolist() for name, tensor in written.items()}
    {'weight': [[-127, 64, 0]], 'weight.scales': [1.0]}
    >>> unpacked(written)
    {'weight': tensor([[-127.,   64.,    0.]])}
    """
    if storage not in STORAGES:
        raise ValueError(f"unknown storage {storage!r}; known: {', '.join(STORAGES)}")
    written: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if storage == "float32" or name in kept:
            written[name] = tensor
        elif storage == "float16" or tensor.ndim < 2:
            largest = torch.finfo(torch.float16).max
            written[name] = tensor.clamp(-largest, largest).to(torch.float16)
        else:
            blocks = torch.nn.functional.pad(tensor.flatten(), (0, -tensor.numel() % BLOCK)).view(-1, BLOCK)
            scales = (blocks.abs().amax(dim=1) / 127).to(torch.bfloat16)  # off by 1/512 at most: no number passes 127
            steps = scales.to(torch.float32).clamp(min=torch.finfo(torch.float32).tiny)
            numbers = (blocks / steps[:, None]).round().to(torch.int8)
            written[name] = numbers.flatten()[: tensor.numel()].view(tensor.shape)
            written[name + SCALES] = scales
    return written


def unpacked(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """What `packed` wrote -> float32 tensors by name. Raises ValueError for scales that do not fit or are too large."""
    read: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if name.endswith(SCALES) and name.removesuffix(SCALES) in tensors:
            continue
        if tensor.dtype == torch.int8:
            scales = tensors.get(name + SCALES)
            if scales is None or scales.dtype != torch.bfloat16 or scales.shape != (math.ceil(tensor.numel() / BLOCK),):
                raise ValueError(f"{name}: 8-bit numbers without their scales")
            scales = scales.to(torch.float32)
            if not bool(torch.isfinite(128 * scales).all()):
                raise ValueError(f"{name}: 8-bit numbers times scales that are not finite")
            each = scales.repeat_interleave(BLOCK)[: tensor.numel()]
            read[name] = (tensor.flatten() * each).view(tensor.shape)
        else:
            read[name] = tensor.to(torch.float32)
    return read
