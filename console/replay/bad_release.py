"""A bad release, for the broken challenger of `goalrank replay` and for nothing else.

A copy of this file, called sitecustomize.py, is put in front of Python's path for one night (faults.py), so the steps
of that night import it by themselves. It changes one thing, in whichever process trains: the ranker is taught the
reward with its sign turned, as a refactoring might. The model is finite and learns well: the worst lists. Nothing in
the production code knows of this file.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from types import ModuleType
from typing import Any

MODULE = "goalrank.objective"


class TurnedSign(MetaPathFinder):
    """Loads goalrank.objective as it is, then turns the sign of the rewards that its loss is given."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """The module's own spec, with a loader that spoils it; None for any other module."""
        if name != MODULE:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is None or spec.loader is None:
            return None
        load = spec.loader.exec_module

        def load_and_spoil(module: ModuleType) -> None:
            load(module)
            right = module.group_relative_loss

            def wrong(log_prob: Any, rewards: Any, *rest: Any) -> Any:
                return right(log_prob, -rewards, *rest)

            module.group_relative_loss = wrong  # type: ignore[attr-defined]

        spec.loader.exec_module = load_and_spoil  # type: ignore[method-assign]
        return spec


if __name__ == "sitecustomize":
    sys.meta_path.insert(0, TurnedSign())
