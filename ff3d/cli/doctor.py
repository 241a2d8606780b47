"""ff3d doctor: what this machine offers, and what ff3d will use of it."""

from __future__ import annotations

import ctypes.util
import importlib
import importlib.metadata
import json
import os
import platform
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from tyro.conf import arg

from ff3d.cli.options import say

# what each extra brings: the module, and what it is for
EXTRAS = {
    "gpu": ("warp", "labels on a GPU"),
    "open3d": ("open3d", "a third oracle"),
    "ray": ("ray", "fits on a cluster"),
    "thingi10k": ("thingi10k", "meshes of Thingi10K by file id"),
    "objaverse": ("objaverse", "meshes of Objaverse by uid"),
    "draco": ("DracoPy", "glTF with Draco's compression"),
    "view": ("viser", "ff3d view and fit --watch"),
    "tensorboard": ("tensorboard", "fit --tensorboard"),
    "video": ("imageio_ffmpeg", "turntables as .mp4"),
    "benchmarks": ("matplotlib", "the benchmarks' pictures"),
    "docs": ("mkdocs", "make docs"),
}
LIBRARIES = ("torch", "numpy", "libigl", "trimesh", "embreex", "scikit-image", "scipy", "safetensors")


@dataclass
class DoctorCommand:
    """Say what this machine offers (cores, memory, bfloat16, GPUs, extras) and what ff3d will use of it."""

    EXAMPLES: ClassVar = ("", "--json")

    as_json: Annotated[bool, arg(name="json")] = False
    """print one line of JSON"""

    def __call__(self) -> int:  # noqa: D102  (the class says it)
        found = examine()
        if self.as_json:
            say(json.dumps(found))
            return 0
        for name, value in found.items():
            if isinstance(value, dict):
                say(name)
                for inner, text in value.items():
                    say(f"  {inner:14} {text}")
            else:
                say(f"{name:16} {value}")
        return 0


def examine() -> dict[str, Any]:
    """What this machine offers, by name; plain JSON values."""
    import torch

    import ff3d
    from ff3d.fields.network import best_device, best_precision
    from ff3d.geometry.cores import available_memory, threads
    from ff3d.shapes.sources import cache_folder

    device = best_device()
    capabilities = torch.cpu.get_capabilities()
    fast = [name for name in ("avx512_bf16", "amx_bf16", "avx512", "avx2") if capabilities.get(name)]
    cuda = ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
    return {
        "ff3d": ff3d.__version__,
        "python": f"{platform.python_version()} on {platform.platform()}",
        "libraries": {name: _version(name) for name in LIBRARIES},
        "cores": f"{os.cpu_count()} in the machine, {threads()} for this process",
        "memory": f"{available_memory() / 1e9:.1f} GB available",
        "processor": ", ".join(fast) or "none of AVX2, AVX-512, AMX",
        "cuda": cuda or "no device",
        "mps": "yes" if torch.backends.mps.is_available() else "no device",
        "will use": f"{device.type} in {best_precision(device)}",
        "extras": {name: _extra(name, *about) for name, about in EXTRAS.items()},
        "system": {
            name: "there" if ctypes.util.find_library(name) else "missing; open3d needs it"
            for name in ("GL", "usb-1.0")
        },
        "downloads": str(cache_folder()),
    }


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "missing"


def _extra(extra: str, module: str, purpose: str) -> str:
    """Whether an extra's module imports, and why not."""
    try:
        importlib.import_module(module)
    except ImportError as error:
        reason = "" if error.name == module else f" ({str(error).splitlines()[0]})"
        return f"not there{reason}: pip install 'ff3d[{extra}]' for {purpose}"
    except Exception as error:  # a library that breaks while it is imported is not to be relied on
        return f"does not import ({type(error).__name__}: {str(error).splitlines()[0][:100]})"
    return f"there: {purpose}"
