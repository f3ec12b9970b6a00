"""For every test: components first, since importing it settles how torch's threads wait."""

import sys
from pathlib import Path

import pytest

import components  # noqa: F401

_main = sys.modules["__main__"]
if not hasattr(_main, "__file__"):
    # A worker of pytest-xdist, which Spark takes for its own doctests and ends (pyspark/sql/connect/utils.py).
    _main.__file__ = str(Path(pytest.__file__).with_name("__main__.py"))
