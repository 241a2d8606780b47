"""`python -m ff3d.cli`: the command line without an installed script."""

import sys

from ff3d.cli.main import main

sys.exit(main())
