#!/usr/bin/env python3
"""Compare two releases: `benchmarks/compare_releases.py benchmarks/releases/0.1.0.json benchmarks/releases/0.2.0.json`.

The files are those of `benchmarks/release.py`. Prints a table: each figure before and after, and their ratio; figures
that one file lacks are said. Exits with 1 if something is worse by over --limit (default 1.25, and .002 of IoU).
"""

import argparse
import json
from pathlib import Path
from typing import Any

IOU_LIMIT = 0.002


def worse(name: str, before: float, after: float, limit: float) -> bool:
    """Whether a figure is worse by more than the limit: more seconds or bytes, or less IoU."""
    return before - after > IOU_LIMIT if name.endswith("IoU") else after > limit * before


def compare(before: dict[str, Any], after: dict[str, Any], limit: float) -> tuple[list[str], list[str]]:
    """The lines of the table, and the names of what is worse."""
    lines, found = [f"| figure | {before['version']} | {after['version']} | ratio |", "|---|---:|---:|---:|"], []
    for name in dict.fromkeys([*before["figures"], *after["figures"]]):
        old, new = before["figures"].get(name), after["figures"].get(name)
        if old is None or new is None:
            lines.append(f"| {name} | {'-' if old is None else f'{old:g}'} | {'-' if new is None else f'{new:g}'} | |")
            continue
        mark = ""
        if worse(name, old, new, limit):
            found.append(name)
            mark = " worse"
        lines.append(f"| {name} | {old:.4g} | {new:.4g} | {new / old if old else 1:.2f}{mark} |")
    return lines, found


def main() -> int:
    """Print the table; 1 if something is worse."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("--limit", type=float, default=1.25, help="how many times as long or large is worse")
    options = parser.parse_args()
    before, after = (json.loads(path.read_text(encoding="utf-8")) for path in (options.before, options.after))
    lines, found = compare(before, after, options.limit)
    print("\n".join(lines))
    if before["machine"] != after["machine"]:
        print(f"\nnot the same machine: {before['machine']}; {after['machine']}: only IoU and bytes compare")
    print(f"\nworse: {', '.join(found) or 'nothing'}")
    return int(bool(found))


if __name__ == "__main__":
    raise SystemExit(main())
