"""Rows of a table of the docs, as scripts/make_tables.py reads them: what a benchmark writes with --rows FILE."""

import json
import platform
import re
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from ff3d.files import write_text


def machine() -> str:
    """The machine that this runs on, in words."""
    cpu = Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*: (.*)", cpu.read_text(encoding="utf-8")) if cpu.exists() else []
    name = names[0] if names else platform.processor() or platform.machine()
    return f"{torch.get_num_threads()} threads, {name}, torch {torch.__version__}"


def write_rows(
    path: Path,
    columns: Mapping[str, str],
    rows: Iterable[Sequence[Any]],
    *,
    seeds: Sequence[int] | str,
    command: str = "",
    machine_name: str = "",
) -> None:
    """Write rows and where they come from, atomically.

    columns: title: the form of its numbers, "" for words, "±.4" for a mean and its spread.
    command, machine_name: by default this one's.
    A file that is there keeps its page and, if there are as many, its columns: so a table that is measured again keeps
    its titles.
    """
    about: dict[str, Any] = {"page": "", "columns": []}
    if path.exists():
        about = json.loads(path.read_text(encoding="utf-8").partition("\n")[0])
    if len(about["columns"]) != len(columns):
        about["columns"] = [
            {"title": title, "key": re.sub(r"\W+", "-", title.lower()).strip("-")}
            | ({"align": "right", "form": form.strip("±")} if form else {"align": "left"})
            | ({"spread": "±"} if "±" in form else {})
            for title, form in columns.items()
        ]
    about |= {
        "command": command or shlex.join(["benchmarks/" + Path(sys.argv[0]).name, *sys.argv[1:]]),
        "machine": machine_name or machine(),
        "seeds": seeds if isinstance(seeds, str) else ", ".join(map(str, seeds)),
        "date": datetime.now(UTC).date().isoformat(),
    }
    keys = [column["key"] for column in about["columns"]]
    lines = [about, *(dict(zip(keys, row, strict=True)) for row in rows)]
    write_text(path, "\n".join(json.dumps(line, ensure_ascii=False) for line in lines) + "\n")
