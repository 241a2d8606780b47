#!/usr/bin/env python3
"""The paper's table of 3D shapes, whole: `scripts/reproduce_paper.py [dragon.obj buddha.obj armadillo.obj]`.

`ff3d benchmark` under the preset `paper`: Tancik et al. 2020 to the letter, 10,000 steps of 32,768 points for each of
four mappings and three meshes. Minutes on a GPU; on two CPU cores 20 to 35 minutes a fit. Stopped anywhere, the
same command resumes. Options of `ff3d benchmark` may follow, such as --seeds 0 1 2 or --testsets FOLDER.
report.md holds the table in the paper's form.
"""

import sys

from ff3d.cli.main import main

MESHES = ["dragon", "buddha", "armadillo"]
SETTINGS = ["--preset", "paper", "--mappings", "none", "basic", "positional", "gaussian", "--seeds", "0"]

if __name__ == "__main__":
    given = sys.argv[1:]
    meshes = MESHES if given[:1] == [] or given[0].startswith("-") else []
    arguments = [*meshes, *SETTINGS, "--out", "runs/paper", *given]  # of an option given twice the last one holds
    sys.exit(main(arguments, prog="reproduce_paper.py", only="benchmark"))
