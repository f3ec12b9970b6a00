"""The canary: a version gets a growing share of the traffic, watched, and is taken back by itself where it is unwell.

    5 % -> 25 % -> 50 % -> 99 % -> the aliases move -> the servers follow the registry again

Where a stage is unwell (its revision not ready in time, too many failed requests, answers too slow, or nobody can
tell), all traffic goes back to the revision before at once, then the trial is taken out of the object, and the night
ends refused with the aliases where they were. A trial never gets all of it: KServe takes a revision on 100% for rolled
out, and would send the traffic there that is to be taken from it. All there is to remember stands in the object:

    tried  percent   means                                        whoever comes next
    -      -         nothing is tried                             begins
    7      25        version 7 is in its second stage             goes on with that stage; another version takes it back
    7      0         version 7 is being taken back                finishes that
    -      0         taken back, the old revision is starting     waits for it, gives it all the traffic

Who drives it holds a lock beside the promotions' journal (journal.TRIAL), which goes with its process; a heartbeat in
the object would make a revision at every beat. Whoever changes the object all the same is told of, not judged.

An annotation names the version that was unwell, another says why: it is refused, in the same words, until somebody
takes the first away. They are written as the trial is taken out of the object; a step that was killed between the two
leaves a version on 0% and no reason, which is refused as well.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import urlencode
from urllib.request import urlopen

from components.promote_model.inference_service import UNWELL, InferenceService, State
from goalrank.errors import ModelRefused, TryAgain, UsageError
from goalrank.verdict import LATENCY_BUDGET_MS


@dataclass(frozen=True)
class Plan:
    """How a version is tried.

    stages are shares of traffic in percent; stage_seconds is how long each is watched, longest_seconds how long where
    too few requests came; ready_seconds is the longest a revision may take to be ready, model loading included.
    """

    stages: tuple[int, ...] = (5, 25, 50, 99)
    stage_seconds: float = 600.0
    longest_seconds: float = 3600.0
    ready_seconds: float = 900.0
    poll_seconds: float = 15.0
    least_requests: int = 200
    most_failed: float = 0.01
    slowest_p99_ms: float = LATENCY_BUDGET_MS

    def __post_init__(self) -> None:
        if (
            not self.stages
            or list(self.stages) != sorted({*self.stages})
            or not 0 < self.stages[0] <= self.stages[-1] < 100
        ):
            raise UsageError(f"stages {self.stages} found, expected growing shares above 0 and below 100")


@dataclass(frozen=True)
class Reading:
    """How a revision fared since a stage began.

    requests is how often it was asked for a list, but for what a client asked wrongly; failed how many of them came to
    no list of its model, any answer of 5xx included; p99_ms is None where nothing was answered; restarts is how often
    its servers were started again after they had died or hung.
    """

    requests: float
    failed: float
    p99_ms: float | None
    restarts: float = 0.0


class Health(Protocol):
    """Tells how a revision fares."""

    def read(self, revision: str, seconds: float) -> Reading:
        """Over the last `seconds`.

        Raises:
            TryAgain: nobody can tell now.
        """


def require_prometheus(address: str) -> str:
    """The address of a Prometheus, by its looks.

    Raises:
        UsageError: it is none.
    """
    if not re.fullmatch(r"https?://[^/?#\s]\S*", address, re.IGNORECASE):
        raise UsageError(
            f"GOALRANK_PROMETHEUS {address!r} found, expected the address of Prometheus, such as "
            "http://prometheus-operated.monitoring:9090"
        )
    return address


class PrometheusHealth:
    """From the service's own metrics, as Prometheus has scraped them; a pod's name begins with its revision's."""

    def __init__(self, address: str, namespace: str) -> None:
        """Environments may share a Prometheus, and their revisions are called alike: the namespace tells them apart."""
        self._address, self._namespace = address.rstrip("/"), namespace

    @classmethod
    def from_environment(cls, namespace: str) -> PrometheusHealth:
        """The one that GOALRANK_PROMETHEUS names, asked of that namespace.

        Raises:
            UsageError: none is named: a canary that nobody watches is none.
        """
        return cls(require_prometheus(os.environ.get("GOALRANK_PROMETHEUS", "")), namespace)

    def read(self, revision: str, seconds: float) -> Reading:
        pods = f'namespace="{self._namespace}",pod=~"{revision}-.*"'
        lists = f'endpoint=~"rank|infer",{pods}'  # feedback and probes are answered by no model
        window = f"[{max(60, round(seconds))}s]"

        def counted(metric: str, labels: str) -> float:
            return self._ask(f"sum(increase({metric}{{{labels}}}{window}))") or 0.0

        failed = counted("goalrank_requests_total", f'outcome=~"failed|overloaded|not_kept",{lists}')
        # Answered, but in the retriever's order, since the model gave no list.
        in_its_place = counted("goalrank_fallbacks_total", f'kind="model_failed",{pods}')
        p99 = self._ask(
            f"histogram_quantile(0.99, sum by (le) (rate(goalrank_request_seconds_bucket{{{lists}}}{window})))"
        )
        return Reading(
            requests=counted("goalrank_requests_total", f'outcome!="invalid",{lists}'),
            failed=failed + in_its_place,
            p99_ms=None if p99 is None else 1000 * p99,
            restarts=counted("kube_pod_container_status_restarts_total", f'container="kserve-container",{pods}'),
        )

    def _ask(self, query: str) -> float | None:
        """One number, or None where there is no such series or it is not a number."""
        try:
            with urlopen(f"{self._address}/api/v1/query?{urlencode({'query': query})}", timeout=20) as answer:
                result = json.load(answer)["data"]["result"]
            value = float(result[0]["value"][1]) if result else None
        except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
            raise TryAgain(f"Prometheus at {self._address} does not answer ({type(error).__name__})") from error
        return value if value is not None and value == value else None


class Canary:
    """Tries versions on one InferenceService."""

    def __init__(
        self,
        service: InferenceService,
        health: Health,
        plan: Plan | None = None,
        said: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._service, self._health, self._plan, self._said = service, health, plan or Plan(), said

    def roll_out(self, version: str) -> list[int]:
        """Lead `version` through the stages that are left; the stages watched now.

        Raises:
            ModelRefused: a stage was unwell, or is being taken back already; the traffic is where it was before.
            TryAgain: the API server is away: the trial stays in its stage, the next call goes on from it. Or somebody
                else changed the object, which says nothing of the version: what they made of it stays.
        """
        # Else the revision still on its way could be taken for the trial's.
        if not self._wait(lambda now: now.current):
            raise TryAgain(
                f"InferenceService {self._service.name} makes no revision of its last change; look at it, try again"
            )
        state = self._service.read()
        if (state.tried, state.percent) == (version, 0):
            self.take_back(
                version, version, "the step that took it back was ended before it could say why here; its log does"
            )
            state = self._service.read()
        if state.percent == 0 or state.tried not in ("", version) or (not state.tried and state.percent is not None):
            self._said(f"taking back what was left: version {state.tried or 'none'} on {state.percent}%")
            self.take_back(state.tried)
            state = self._service.read()
        if state.unwell == version:
            raise ModelRefused(
                f"version {version} was unwell in its canary and was taken back: {state.because or 'unknown'}; to "
                f"try it again, take the annotation {UNWELL} from InferenceService {self._service.name}"
            )
        stages = [stage for stage in self._plan.stages if state.tried != version or stage >= (state.percent or 100)]
        for stage in stages:
            self._said(f"version {version} on {stage}% of the traffic")
            self._service.change(version, stage, among=("", version))
            unwell = self._watch(version, stage)
            if unwell:
                self._said(f"taking version {version} back: {unwell}")
                reason = f"version {version} was unwell on {stage}% of the traffic and was taken back: {unwell}"
                try:
                    self.take_back(version, version, f"on {stage}% of the traffic, {unwell}")
                except TryAgain as error:
                    raise TryAgain(f"{reason}; but {error}") from error
                raise ModelRefused(f"{reason}; the version before answers all requests again")
        return stages

    def finish(self) -> None:
        """After the aliases have moved: let the servers follow the registry again, all traffic on them.

        The trial's revision answers until the new one is ready, with the same version.
        """
        self._service.change("", None)

    def take_back(self, tried: str, unwell: str = "", because: str = "") -> None:
        """Give all traffic to the revision before, then take the trial out of the object; may be called at any stage.

        Args:
            tried: the version whose trial it is, "" where it is out of the object already.
            unwell, because: a version that is not to be tried again, and why.

        Raises:
            TryAgain: the API server is away, or the traffic does not move, or the server without the trial does not
                become ready; called again, it goes on. Or another version is on trial, which stays.
        """
        if tried:
            self._service.change(tried, 0, among=(tried,))
            # Only then: taking the trial out makes a new revision, and the unwell one would be the one before it.
            if not self._wait(lambda now: now.share == 0):
                raise TryAgain(
                    f"InferenceService {self._service.name} does not move its traffic; look at it, try again"
                )
        if tried or self._service.read().percent is not None:
            # Out of it already: a call whose answer was lost.
            self._service.change("", 0, unwell, because, among=(tried, ""))
            if not self._wait(lambda now: now.ready and not now.tried):
                raise TryAgain(
                    f"InferenceService {self._service.name} is not ready again yet; its traffic is where it was"
                )
            self._service.change("", None, among=("",))

    def is_tried(self, version: str) -> bool:
        """Is `version` on trial?

        Raises:
            TryAgain: the API server is away.
        """
        return self._service.read().tried == version

    def abandon(self, version: str) -> None:
        """Take `version` back if it is on trial; nobody may promote it any more.

        Raises:
            TryAgain: as take_back.
        """
        if self.is_tried(version):
            self._said(f"taking version {version} back: it is refused")
            self.take_back(version)

    def _watch(self, version: str, stage: int) -> str:
        """Watch one stage; why it is unwell, or nothing.

        Raises:
            TryAgain: the API server is away, or somebody else changed the object.
        """
        plan = self._plan
        if not self._wait(lambda now: self._is_ours(now, version, stage) and now.ready and now.share == stage):
            return f"its revision was not ready within {plan.ready_seconds:.0f} s ({self._service.read().said})"
        begun, reading = time.monotonic(), Reading(0, 0, None)
        while True:
            time.sleep(plan.poll_seconds)
            elapsed = time.monotonic() - begun
            state = self._service.read()
            if self._is_ours(state, version, stage) and not state.ready:
                return f"it is not ready any more ({state.said})"
            told = True
            try:
                reading = self._health.read(state.revision, elapsed)
            except TryAgain as error:
                self._said(str(error))
                told = False
            if told and reading.restarts >= 1:
                return f"its servers were started again {reading.restarts:.0f} times, expected none"
            enough = told and reading.requests >= plan.least_requests
            if enough and (unwell := self._unwell(reading)):
                return unwell
            if elapsed >= plan.stage_seconds and enough:
                return ""
            if elapsed >= plan.longest_seconds:
                return f"{reading.requests:.0f} requests in {elapsed:.0f} s, expected {plan.least_requests} to tell by"

    def _is_ours(self, state: State, version: str, stage: int) -> bool:
        """True; a stage that is not ours any more raises TryAgain: its figures are another's."""
        if (state.tried, state.percent) == (version, stage):
            return True
        share = "all" if state.percent is None else f"{state.percent}%"
        raise TryAgain(
            f"InferenceService {self._service.name} has version {state.tried or 'none'} on {share} of the traffic, "
            f"expected {version} on {stage}%: somebody else changed it; look who, run it again"
        )

    def _unwell(self, reading: Reading) -> str:
        share = reading.failed / reading.requests
        if share > self._plan.most_failed:
            return (
                f"{share:.1%} of {reading.requests:.0f} requests failed, expected at most {self._plan.most_failed:.1%}"
            )
        if reading.p99_ms is None or reading.p99_ms > self._plan.slowest_p99_ms:
            slow = "unknown" if reading.p99_ms is None else f"{reading.p99_ms:.0f} ms"
            return f"p99 is {slow}, expected at most {self._plan.slowest_p99_ms:.0f} ms"
        return ""

    def _wait(self, until: Callable[[State], bool]) -> bool:
        """Wait until the object is so; False where it does not get there in time."""
        deadline = time.monotonic() + self._plan.ready_seconds
        while not until(self._service.read()):
            if time.monotonic() >= deadline:
                return False
            time.sleep(self._plan.poll_seconds)
        return True


def from_environment(said: Callable[[str], None]) -> Canary | None:
    """The canary of this installation; None where serving is no KServe (GOALRANK_CANARY_SERVICE is not set).

    Raises:
        UsageError: it is half configured.
    """
    service = InferenceService.from_environment()
    return None if service is None else Canary(service, PrometheusHealth.from_environment(service.namespace), said=said)
