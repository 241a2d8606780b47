#!/usr/bin/env python3
"""Seconds until `import ff3d` and `ff3d --help` end, against the same Python doing nothing: least of 10, in turns.

Processor seconds beside them: those hardly depend on what else the machine does.
"""

import subprocess
import sys
import time
from resource import RUSAGE_CHILDREN, getrusage

COMMANDS = {
    "python -c pass": ["-c", "pass"],
    "import ff3d": ["-c", "import ff3d"],
    "ff3d --help": ["-m", "ff3d.cli", "--help"],
    "ff3d fit --help": ["-m", "ff3d.cli", "fit", "--help"],
}


def measure(arguments: list[str]) -> tuple[float, float]:
    """Seconds and processor seconds of one process."""
    before, began = getrusage(RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    after = getrusage(RUSAGE_CHILDREN)
    return time.perf_counter() - began, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Print the table."""
    rounds = [{name: measure(arguments) for name, arguments in COMMANDS.items()} for _ in range(10)]
    print("| what | seconds | processor seconds |\n|---|---:|---:|")
    for name in COMMANDS:
        seconds, busy = (min(each[name][index] for each in rounds) for index in (0, 1))
        print(f"| `{name}` | {seconds:.3f} | {busy:.3f} |")


if __name__ == "__main__":
    main()
