"""The command line."""

from ff3d.cli.main import main as main
