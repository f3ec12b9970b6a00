"""What a machine lacks: a test is skipped and says what, except in CI, whose script (.ci/run) has it all or stops."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest


def skip(reason: str) -> NoReturn:
    """Skip the test for a reason; where CI is set, fail it: what is skipped there is no longer tried by anybody."""
    if os.environ.get("CI"):
        pytest.fail(f"in CI nothing may be lacking: {reason}", pytrace=False)
    pytest.skip(reason)
