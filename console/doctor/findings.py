"""What a check says, and running checks so that none can hang the command or break the others."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from goalrank.errors import GoalRankError

OK, WARNING, PROBLEM = "ok", "warning", "problem"


@dataclass(frozen=True)
class Finding:
    """One line of the diagnosis; `mend` says what to do, and is empty where nothing need be done."""

    group: str
    name: str
    status: str
    found: str
    mend: str = ""

    def document(self) -> dict[str, str]:
        """As --json shows it."""
        return asdict(self)


def problem(group: str, name: str, error: Exception) -> Finding:
    """What an error of ours says: found and expected, then, after a semicolon, how to mend it."""
    found, _, mend = str(error).partition("; ")
    return Finding(group, name, PROBLEM, found, mend or "see docs/runbook.md")


@dataclass(frozen=True)
class Check:
    """A question with a name; `ask` may raise or hang."""

    group: str
    name: str
    ask: Callable[..., list[Finding]]
    unforeseen: str = WARNING
    """What an exception that nobody foresaw is: a problem where it is about the folder that every command works in."""

    def of(self, *arguments: Any) -> Check:
        """The same question about something."""
        return Check(self.group, self.name, lambda: self.ask(*arguments), self.unforeseen)


def examine(checks: Sequence[Check], seconds: float) -> list[Finding]:
    """Ask all at the same time, wait `seconds` at most, and give the answers in the order of the checks.

    The threads are daemons: one that hangs (a dead network drive) does not keep the command from ending.
    """
    answers: dict[int, list[Finding]] = {}

    def ask(number: int, check: Check) -> None:
        try:
            answers[number] = check.ask()
        except GoalRankError as error:
            answers[number] = [problem(check.group, check.name, error)]
        except Exception as error:  # whatever is broken, the other checks go on
            found = f"could not be looked at ({type(error).__name__}: {error})"
            answers[number] = [Finding(check.group, check.name, check.unforeseen, found, "mend what the message says")]

    threads = [
        threading.Thread(target=ask, args=(number, check), daemon=True, name=f"doctor {check.name}")
        for number, check in enumerate(checks)
    ]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + seconds
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    findings = []
    for number, check in enumerate(checks):
        late = Finding(check.group, check.name, WARNING, f"no answer within {seconds:.0f} s", "see why it hangs")
        findings += answers.get(number, [late])
    return findings
