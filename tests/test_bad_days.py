"""A slice of benchmarks/abuse.py and benchmarks/kills.py: hostile files to every reader, commands ended at random."""

import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="its processes are forked by a server"),
]


def run(script, *options):
    command = [sys.executable, str(BENCHMARKS / script), *options]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_no_mutated_file_is_more_than_one_clear_line():
    done = run("abuse.py", "--seconds", "5", "--processes", "1", "--batch", "10")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "| all " in done.stdout


def test_a_command_that_is_ended_at_any_moment_loses_nothing_and_leaves_nothing():
    done = run("kills.py", "--seconds", "8", "--commands", "label", "--ways", "kill", "term", "full", "twice")
    assert done.returncode == 0, done.stdout + done.stderr
