#!/usr/bin/env python3
"""Meshes x mappings x seeds -> a table with intervals: `scripts/benchmark.py dragon.obj buddha.obj --seconds 20`."""

import sys

from ff3d.cli.main import main

if __name__ == "__main__":  # its workers import it too
    sys.exit(main(prog="benchmark.py", only="benchmark"))
