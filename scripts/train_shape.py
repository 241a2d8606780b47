#!/usr/bin/env python3
"""Fit the four mappings of Tancik et al. 2020 to a mesh and compare them: `scripts/train_shape.py bunny.obj`.

The same as `ff3d compare`; see --help for every setting.
"""

import sys

from ff3d.cli.main import main

if __name__ == "__main__":
    sys.exit(main(prog="train_shape.py", only="compare"))
