"""The examples in docstrings."""

import doctest
import importlib
from pathlib import Path

import pytest

import ff3d

PACKAGE = Path(ff3d.__file__).parent
EXAMPLES = sorted(path for path in PACKAGE.rglob("*.py") if ">>> " in path.read_text())
NAMES = [".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts) for path in EXAMPLES]


@pytest.mark.parametrize("name", NAMES)
def test_every_example_in_a_docstring_gives_what_it_says(name):
    failed, tried = doctest.testmod(importlib.import_module(name))
    assert tried
    assert not failed
