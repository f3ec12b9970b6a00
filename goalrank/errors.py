"""Every error GoalRank raises on purpose, and the exit code each one ends the command line with.

GoalRankError (exit 1)
 +-- UsageError (2)            the command or its settings are wrong
 +-- DataRefused (3)           logs or features break the data contract
 +-- ModelRefused (4)          not finite, below the floor, a verdict missing
 |    +-- CheckpointDamaged    a checkpoint or model file fails its checksum
 +-- ServingRefused (5)        the registered model does not answer as it did offline
 +-- TryAgain (75)             a full disk, a store or a server that is away

A message says what was found, what was expected and how to mend it.
"""

from __future__ import annotations

EXIT_DONE = 0
EXIT_BUG = 1
EXIT_USAGE = 2
EXIT_DATA_REFUSED = 3
EXIT_MODEL_REFUSED = 4
EXIT_SERVING_REFUSED = 5
EXIT_TRY_AGAIN = 75


class GoalRankError(Exception):
    """Base of all errors raised on purpose."""

    exit_code = EXIT_BUG
    kind = "failed"


class UsageError(GoalRankError):
    """The command, a flag or a setting is wrong; nothing was started."""

    exit_code = EXIT_USAGE
    kind = "usage"


class DataRefused(GoalRankError):
    """Logs or features break the data contract; nothing downstream may start."""

    exit_code = EXIT_DATA_REFUSED
    kind = "data_refused"


class ModelRefused(GoalRankError):
    """The model may not go further: not finite, below the floor, or a verdict is missing."""

    exit_code = EXIT_MODEL_REFUSED
    kind = "model_refused"


class CheckpointDamaged(ModelRefused):
    """A checkpoint or model file is truncated or altered: its SHA-256 is not the recorded one."""


class ServingRefused(GoalRankError):
    """The registered model, loaded as the server loads it, does not answer as it did offline."""

    exit_code = EXIT_SERVING_REFUSED
    kind = "serving_refused"


class TryAgain(GoalRankError):
    """Something outside is away or full; the same command may succeed later."""

    exit_code = EXIT_TRY_AGAIN
    kind = "try_again"
