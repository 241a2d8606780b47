#!/usr/bin/env python3
"""Coverage-guided fuzzing of every reader, by atheris: inputs that reach new lines of ff3d are mutated further.

    benchmarks/guided.py CORPUS -max_total_time=600 [other options of libFuzzer]

The first byte of an input chooses the reader, as benchmarks/abuse.py has them, the rest is the file. The folder CORPUS
gets a sound file of each, and then what was found. A fault is what abuse.py calls one: it ends the run, and the input
lies in the working folder (crash-*). Needs pip install atheris.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import atheris
from abuse import loaded, quiet, readers


def main() -> None:
    """Fuzz until libFuzzer's options, or a fault, end it."""
    corpus = Path(sys.argv[1])
    corpus.mkdir(parents=True, exist_ok=True)
    quiet()
    place = Path(tempfile.mkdtemp(prefix="ff3d-guided-"))
    with atheris.instrument_imports(include=["ff3d"]):
        known = list(readers(str(place)).values())
    for number, reader in enumerate(known):
        (corpus / f"sound-{reader.name}").write_bytes(bytes([number]) + reader.data)

    def one(data: bytes) -> None:
        if data:
            reader = known[data[0] % len(known)]
            outcome = loaded(reader, data[1:], place)
            if outcome not in ("read", "refused"):
                raise RuntimeError(f"{reader.name}: {outcome}")

    atheris.Setup(sys.argv, one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
