"""A canary goes up by stages and comes back by itself, through the kubernetes client, against a server with 409s."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import parse_qs, urlsplit

import pytest

from components.promote_model import canary as canaries
from components.promote_model.canary import Canary, Plan, PrometheusHealth, Reading
from components.promote_model.inference_service import BEFORE, UNWELL, InferenceService
from components.serve_model.metrics import OUTCOMES, Metrics
from components.serve_model.ranking import MISSING_FEATURES, MODEL_FAILED, NO_CHAMPION, STORE_AWAY, UNKNOWN_USER
from goalrank.errors import ModelRefused, TryAgain, UsageError
from tests.cluster.exported import metrics, read_by
from tests.cluster.kserve_server import NAME, NAMESPACE, TOKEN, KServe, serving

PLAN = Plan(stage_seconds=0.02, longest_seconds=0.2, ready_seconds=4, poll_seconds=0.005, least_requests=100)
WELL = Reading(1000, 1, 20.0)
SICK = Reading(1000, 11, 20.0)
SLOW = Reading(1000, 0, PLAN.slowest_p99_ms + 1)
FEW = Reading(99, 0, 20.0)


@dataclass
class Scripted:
    """Health by the share of traffic: what is read on it; else well."""

    server: KServe
    by_percent: dict[int, Reading | Exception | Callable[[], Reading]] = field(default_factory=dict)

    def read(self, revision: str, seconds: float) -> Reading:
        assert self.server.version_of(revision) == self.server.tried, "another revision's figures"
        assert self.server.traffic_of(self.server.tried) == self.server.percent, "watched before it had its share"
        said = self.by_percent.get(self.server.percent or 0, WELL)
        if isinstance(said, Exception):
            raise said
        return said if isinstance(said, Reading) else said()


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("components.promote_model.inference_service.PAUSE_SECONDS", 0.001)


@pytest.fixture
def server() -> Iterator[KServe]:
    with serving() as answering:
        yield answering


@pytest.fixture
def health(server: KServe) -> Scripted:
    return Scripted(server)


@pytest.fixture
def canary(server: KServe, health: Scripted) -> Canary:
    return Canary(InferenceService(server.host, NAMESPACE, NAME, TOKEN), health, PLAN)


def as_before(server: KServe) -> bool:
    """Nothing of a trial is left in the object, and whoever follows the registry has all the traffic."""
    server.settle()
    return server.document["spec"] == server.original and server.traffic_of("") == 100 and not server.early


def test_up_by_stages(server: KServe, canary: Canary) -> None:
    assert canary.roll_out("7") == list(PLAN.stages)
    assert server.history == [("7", share) for share in PLAN.stages]
    assert (server.tried, server.percent) == ("7", PLAN.stages[-1])
    canary.finish()
    server.read()
    server.read()
    assert server.traffic_of("7") == 100, "it answers until the server that follows the registry is ready"
    assert as_before(server)
    patches = server.patches
    canary.finish()
    assert server.patches == patches


@pytest.mark.parametrize("lag", [0, 5, 12])
def test_a_controller_that_is_late_is_waited_for(server: KServe, canary: Canary, health: Scripted, lag: int) -> None:
    """Neither the way up nor the way back believes a status of before its own change."""
    server.lag = lag
    assert canary.roll_out("7") == list(PLAN.stages)
    canary.finish()
    health.by_percent[25] = SICK
    with pytest.raises(ModelRefused, match="version 8 was unwell on 25%"):
        canary.roll_out("8")
    server.settle()
    assert [each for each in server.history if each[0] == "8"] == [("8", 5), ("8", 25), ("8", 0)]
    assert server.traffic_of("") == 100
    assert not server.early


def test_a_change_that_makes_no_revision_is_nobodys_trial(server: KServe, canary: Canary) -> None:
    server.document["metadata"]["annotations"] = {BEFORE: server.newest}
    with pytest.raises(TryAgain, match="makes no revision of its last change"):
        canary.roll_out("7")
    assert server.patches == 0


@pytest.mark.parametrize("stage", PLAN.stages)
@pytest.mark.parametrize(
    ("reading", "said"),
    [
        (SICK, "1.1% of 1000 requests failed, expected at most 1.0%"),
        (SLOW, "p99 is 101 ms, expected at most 100 ms"),
        (FEW, "99 requests in"),
        (Reading(1000, 0, None), "p99 is unknown"),
        (Reading(5, 0, 20.0, restarts=1), "its servers were started again 1 times, expected none"),
        (TryAgain("Prometheus is away"), "0 requests in"),
    ],
    ids=["failing", "slow", "too few to tell", "no latency", "dying", "nobody can tell"],
)
def test_an_unwell_stage_comes_back_by_itself(
    server: KServe, canary: Canary, health: Scripted, stage: int, reading: Reading | Exception, said: str
) -> None:
    health.by_percent[stage] = reading
    with pytest.raises(
        ModelRefused, match=f"version 7 was unwell on {stage}% of the traffic and was taken back"
    ) as end:
        canary.roll_out("7")
    assert said in str(end.value)
    reached = list(PLAN.stages[: PLAN.stages.index(stage) + 1])
    assert server.history == [("7", share) for share in [*reached, 0]]
    assert as_before(server)


def test_an_unwell_version_is_not_tried_again_but_another_is(server: KServe, canary: Canary, health: Scripted) -> None:
    """kfp starts a step that refused again: it says the same reason, which nobody but the object remembers."""
    health.by_percent[25] = SICK
    with pytest.raises(ModelRefused):
        canary.roll_out("7")
    assert as_before(server)
    before = list(server.history)
    health.by_percent.clear()
    with pytest.raises(ModelRefused, match=rf"on 25% of the traffic, 1\.1% of 1000 requests failed.*{UNWELL}"):
        canary.roll_out("7")
    assert server.history == before
    assert canary.roll_out("8") == list(PLAN.stages)


def test_a_revision_that_does_not_come_up(server: KServe, canary: Canary) -> None:
    server.never_ready = {"7"}
    with pytest.raises(ModelRefused, match=r"was not ready within .* \(goalrank-ranker-00002: RevisionFailed\)"):
        canary.roll_out("7")
    assert server.history == []
    assert as_before(server)


def test_what_somebody_else_changed_is_not_held_against_the_version(
    server: KServe, canary: Canary, health: Scripted
) -> None:
    def changed() -> Reading:
        server.document["spec"]["predictor"]["canaryTrafficPercent"] = 90  # a person did
        return FEW

    health.by_percent[50] = changed
    with pytest.raises(TryAgain, match="version 7 on 90% of the traffic, expected 7 on 50%: somebody else changed it"):
        canary.roll_out("7")
    assert (server.tried, server.percent, canary._service.read().unwell) == ("7", 90, "")


@pytest.mark.parametrize("reading", [WELL, SICK], ids=["well", "unwell"])
def test_another_versions_trial_is_left_alone_and_says_nothing_of_ones_own(
    server: KServe, canary: Canary, health: Scripted, reading: Reading
) -> None:
    """Somebody tries another version while one's own figures are read: seen at the next look, or in the way back."""

    def taken_over() -> Reading:
        canary._service.change("8", 5)
        return reading if reading is SICK else FEW

    health.by_percent[25] = taken_over
    with pytest.raises(TryAgain, match="somebody else changed it"):
        canary.roll_out("7")
    server.settle()
    assert (server.tried, server.percent, server.traffic_of("8")) == ("8", 5, 5)
    assert canary._service.read().unwell == ""


class Killed(BaseException):
    """As SIGKILL does: nothing is tidied."""


@pytest.mark.parametrize("stage", PLAN.stages)
def test_killed_in_a_stage_it_goes_on_with_that_one(
    server: KServe, canary: Canary, health: Scripted, stage: int
) -> None:
    health.by_percent[stage] = Killed()  # type: ignore[assignment]
    killed = Canary(canary._service, _Killing(health), PLAN)
    with pytest.raises(Killed):
        killed.roll_out("7")
    assert (server.tried, server.percent) == ("7", stage)
    health.by_percent.clear()
    assert canary.roll_out("7") == list(PLAN.stages[PLAN.stages.index(stage) :])
    assert [share for _, share in server.history] == list(PLAN.stages)


@dataclass
class _Killing:
    health: Scripted

    def read(self, revision: str, seconds: float) -> Reading:
        said = self.health.by_percent.get(self.health.server.percent or 0, WELL)
        if isinstance(said, BaseException):
            raise said
        return self.health.read(revision, seconds)


@pytest.mark.parametrize("after", range(1, 4))
def test_killed_while_it_comes_back_the_next_finishes(
    server: KServe, canary: Canary, health: Scripted, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    health.by_percent[25] = SICK
    change, begun = canary._service.change, []

    def killed(tried: str, percent: int | None, *more: str, **named: Collection[str]) -> None:
        if percent in (0, None):
            begun.append(percent)
            if len(begun) == after:
                raise Killed
        change(tried, percent, *more, **named)

    with monkeypatch.context() as patch:
        patch.setattr(canary._service, "change", killed)
        with pytest.raises(Killed):
            canary.roll_out("7")
    reason = ("1.1% of 1000 requests failed", "ended before it could say why", "1.1% of 1000 requests failed")[
        after - 1
    ]
    for _ in range(2):
        with pytest.raises(ModelRefused, match=re.escape(reason)):
            canary.roll_out("7")
    assert as_before(server)
    assert max(share for _, share in server.history) == 25


def test_what_an_earlier_night_left_is_taken_back_first(server: KServe, canary: Canary) -> None:
    canary._service.change("6", 50)
    server.settle()
    assert canary.roll_out("7") == list(PLAN.stages)
    assert server.history[:2] == [("6", 50), ("6", 0)]
    assert server.history[2:] == [("7", share) for share in PLAN.stages]


def test_conflicts_and_an_api_server_that_errs(server: KServe, canary: Canary) -> None:
    server.conflicts, server.faults = 3, [500, 0, 429]
    assert canary.roll_out("7") == list(PLAN.stages)
    assert [share for _, share in server.history] == list(PLAN.stages)
    server.conflicts = 99
    with pytest.raises(TryAgain, match="changed by somebody else"):
        canary.finish()


def test_away_in_a_stage_it_stays_there(server: KServe, canary: Canary, health: Scripted) -> None:
    def away() -> Reading:
        server.faults = [503] * 6
        return FEW

    health.by_percent[25] = away
    with pytest.raises(TryAgain, match="does not answer"):
        canary.roll_out("7")
    server.faults = []
    assert (server.tried, server.percent) == ("7", 25)
    health.by_percent.clear()
    assert canary.roll_out("7") == [25, 50, 99]


@pytest.mark.parametrize(
    ("token", "name", "said"), [("another", NAME, "says 401"), (TOKEN, "another-service", "says 404")]
)
def test_who_asks_and_for_what(server: KServe, health: Scripted, token: str, name: str, said: str) -> None:
    service = InferenceService(server.host, NAMESPACE, name, token)
    with pytest.raises(UsageError, match=said):
        Canary(service, health, PLAN).roll_out("7")


@pytest.mark.parametrize("stages", [(), (0, 50), (50, 5), (5, 5), (5, 100)])
def test_stages_that_are_none(stages: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match="growing shares above 0 and below 100"):
        Plan(stages=stages)


class Prometheus(ThreadingHTTPServer):
    """Answers every query by the first of `answers` whose key is in it."""

    answers: dict[str, object]
    asked: list[str]


class Query(BaseHTTPRequestHandler):
    server: Prometheus

    def do_GET(self) -> None:
        (query,) = parse_qs(urlsplit(self.path).query)["query"]
        self.server.asked.append(query)
        value = next((each for key, each in self.server.answers.items() if key in query), None)
        result = [] if value is None else [{"metric": {}, "value": [0, value]}]
        content = b"<html>" if value == "html" else json.dumps({"data": {"result": result}}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.mark.parametrize(
    ("answers", "reading"),
    [
        ({"model_failed": "1", "overloaded": "2", "requests": "200", "quantile": "0.05"}, Reading(200, 3, 50.0)),
        ({"restarts_total": "2", "quantile": "0.05"}, Reading(0, 0, 50.0, 2)),
        ({"quantile": "NaN"}, Reading(0, 0, None)),
        ({"overloaded": "html"}, None),
    ],
)
def test_health_from_prometheus(answers: dict[str, object], reading: Reading | None) -> None:
    with Prometheus(("127.0.0.1", 0), Query) as server:
        server.answers, server.asked = answers, []
        Thread(target=server.serve_forever, daemon=True).start()
        health = PrometheusHealth(f"http://127.0.0.1:{server.server_address[1]}/", NAMESPACE)
        if reading is None:
            with pytest.raises(TryAgain, match="Prometheus at"):
                health.read("r-00002", 90)
        else:
            assert health.read("r-00002", 90) == reading
        which = f'namespace="{NAMESPACE}",pod=~"r-00002-.*"'
        assert all(which in query and "[90s]" in query for query in server.asked)
        # What users asked for and got no list for: feedback, probes and wrong bodies are none of the model's business.
        lists = [query for query in server.asked if "goalrank_request" in query]
        assert lists and all('endpoint=~"rank|infer"' in query for query in lists)
        (asked,) = [query for query in lists if 'outcome!="invalid"' in query] or [""]
        assert bool(asked) == (reading is not None)
        server.shutdown()


def test_what_the_canary_reads_is_what_the_service_exports() -> None:
    """A metric or a label value that nobody writes would be health for ever."""
    asked: list[str] = []

    class Listening(PrometheusHealth):
        def _ask(self, query: str) -> float | None:
            asked.append(query)
            return None

    Listening("http://nowhere", NAMESPACE).read("r-00002", 90)
    assert {name for query in asked for name in read_by(query)} <= metrics() | {
        "kube_pod_container_status_restarts_total"
    }
    outcomes = {one for query in asked for each in re.findall(r'outcome=~"([^"]*)"', query) for one in each.split("|")}
    assert outcomes < set(OUTCOMES) and "answered" not in outcomes


def test_every_kind_of_fallback_is_there_from_the_start() -> None:
    """Prometheus sees no increase in a series that begins with its first count: the first failure would be lost."""
    exported = Metrics().text().decode()
    for kind in (UNKNOWN_USER, MISSING_FEATURES, STORE_AWAY, MODEL_FAILED, NO_CHAMPION):
        assert f'goalrank_fallbacks_total{{kind="{kind}"}} 0.0' in exported


def test_where_serving_is_no_kserve_there_is_no_canary(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("GOALRANK_CANARY_SERVICE", raising=False)
    assert canaries.from_environment(print) is None
    monkeypatch.setenv("GOALRANK_CANARY_SERVICE", NAME)
    with pytest.raises(UsageError, match="GOALRANK_CANARY_ACCOUNT"):
        canaries.from_environment(print)
    for file, content in (("token", TOKEN), ("namespace", NAMESPACE), ("ca.crt", "")):
        (tmp_path / file).write_text(content)
    monkeypatch.setenv("GOALRANK_CANARY_ACCOUNT", str(tmp_path))
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "9")
    with pytest.raises(UsageError, match="GOALRANK_PROMETHEUS"):
        canaries.from_environment(print)
