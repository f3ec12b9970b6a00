"""The KServe InferenceService that serves the ranker, as promotion needs it: which version is tried, on what share.

A version is tried by naming it in the container's environment (GOALRANK_SERVE_VERSION), which makes a new revision;
spec.predictor.canaryTrafficPercent is the share of traffic it gets. So all there is to know about a canary stands in
the object itself, and whoever comes after a crash reads it there.

Everything goes over HTTP through the `kubernetes` client that kfp brings, with the rights to get and patch one object.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from goalrank.errors import TryAgain, UsageError

VARIABLE = "GOALRANK_SERVE_VERSION"
"""In the server's environment: the version it serves, whatever the registry's aliases say (console/settings.py)."""

UNWELL = "goalrank-unwell"
"""Annotation: the version that was unwell and taken back; a step that kfp starts again must not try it again."""

BECAUSE = "goalrank-unwell-because"
"""Annotation: why it was, for whoever asks to try it again."""

BEFORE = "goalrank-revision-before"
"""Annotation: the newest revision when the last one was asked for; while it still is, the status is of the time before.

KServe's observedGeneration does not tell: it is the Knative service's own counter, not the InferenceService's. KServe
copies annotations into a revision's template, so changing any of ours asks for a revision as a changed container does.
"""

GROUP, API_VERSION, PLURAL = "serving.kserve.io", "v1beta1", "inferenceservices"
TRIES = 5
PAUSE_SECONDS = 1.0
"""Before a call is tried again: a conflict, or an API server that is away; doubled each time."""

ANSWER_SECONDS = 20


@dataclass(frozen=True)
class State:
    """What the object says.

    tried is the version named in the environment ("" where there is none: the server follows the registry), percent the
    share of traffic it should have (None: all of it). unwell is the version that was taken back last, because why.
    current says whether the status has caught up with the last revision asked for. revision is the newest one; ready
    says whether it is, share what traffic it has in fact (-1: nobody can tell).
    """

    tried: str
    percent: int | None
    unwell: str
    because: str
    current: bool
    revision: str
    ready: bool
    share: int
    said: str


class InferenceService:
    """One InferenceService, read and changed under its resourceVersion."""

    def __init__(self, host: str, namespace: str, name: str, token: str = "", ca_file: str | None = None) -> None:
        """`host` is the API server's address; nothing is asked yet."""
        from kubernetes import client

        configuration = client.Configuration()
        configuration.host = host
        configuration.ssl_ca_cert = ca_file
        configuration.retries = False
        if token:
            configuration.api_key = {"authorization": f"Bearer {token}"}
        self._api = client.CustomObjectsApi(client.ApiClient(configuration))
        self._object = {
            "group": GROUP,
            "version": API_VERSION,
            "namespace": namespace,
            "plural": PLURAL,
            "name": name,
            "_request_timeout": ANSWER_SECONDS,
        }
        self.namespace = namespace
        self.name = f"{namespace}/{name}"

    @classmethod
    def from_environment(cls) -> InferenceService | None:
        """The one that GOALRANK_CANARY_SERVICE names, with the account mounted in GOALRANK_CANARY_ACCOUNT; else None.

        Raises:
            UsageError: it is named, and the account or the cluster is missing.
        """
        name = os.environ.get("GOALRANK_CANARY_SERVICE", "")
        if not name:
            return None
        account = Path(os.environ.get("GOALRANK_CANARY_ACCOUNT", ""))
        try:
            token, namespace = ((account / file).read_text(encoding="utf-8").strip() for file in ("token", "namespace"))
            host = f"{os.environ['KUBERNETES_SERVICE_HOST']}:{os.environ['KUBERNETES_SERVICE_PORT']}"
        except (OSError, KeyError) as error:
            raise UsageError(
                f"GOALRANK_CANARY_SERVICE is {name}, but {type(error).__name__}: expected a pod with a service "
                "account's token, namespace and ca.crt mounted at GOALRANK_CANARY_ACCOUNT"
            ) from error
        return cls(f"https://{host}", namespace, name, token, str(account / "ca.crt"))

    def read(self) -> State:
        """What the object says now.

        Raises:
            UsageError: there is none, or this account may not read it.
            TryAgain: the API server is away.
        """
        return _state(self._call(self._api.get_namespaced_custom_object))

    def change(
        self,
        tried: str,
        percent: int | None,
        unwell: str = "",
        because: str = "",
        among: Collection[str] | None = None,
    ) -> None:
        """Let it try `tried` on `percent` of the traffic; changes nothing where that is so already.

        Args:
            unwell, because: a version to be remembered as such, and why.
            among: what may be on trial before ("" is nothing); another version's trial is left alone.

        Raises:
            UsageError, TryAgain: as read; TryAgain too where somebody else changed it, or keeps changing it.
        """
        for attempt in range(TRIES):
            document = self._call(self._api.get_namespaced_custom_object)
            found = _state(document).tried
            if among is not None and found not in among:
                raise TryAgain(
                    f"InferenceService {self.name} tries version {found or 'none'}, expected "
                    f"{' or '.join(each or 'none' for each in among)}: somebody else changed it; look who, run it again"
                )
            patch = _changes(document, tried, percent, {UNWELL: unwell, BECAUSE: because} if unwell else {})
            if not patch:
                return
            # Naming the version that was read has the server refuse (409) what rests on an older object.
            version = {"resourceVersion": document["metadata"]["resourceVersion"]}
            try:
                body = patch | {"metadata": patch.get("metadata", {}) | version}
                self._call(self._api.patch_namespaced_custom_object, body=body)
                return
            except _Conflict:
                time.sleep(PAUSE_SECONDS * 2**attempt)
        raise TryAgain(f"InferenceService {self.name} was changed by somebody else {TRIES} times; run it again")

    def _call(self, function: Callable[..., Any], **more: Any) -> dict[str, Any]:
        from kubernetes.client.rest import ApiException
        from urllib3.exceptions import HTTPError

        for attempt in range(TRIES):
            try:
                answer: dict[str, Any] = function(**self._object, **more)
                return answer
            except ApiException as error:
                said, status = " ".join(str(error.reason).split()), error.status or 0
                if status == 409:
                    raise _Conflict(said) from error
                if status not in (0, 429) and status < 500:
                    raise UsageError(
                        f"InferenceService {self.name}: the API server says {status} ({said}); expected an account "
                        "that may get and patch it, and the service in the manifests"
                    ) from error
            except (OSError, HTTPError) as error:
                said, status = type(error).__name__, 0
            if attempt + 1 < TRIES:
                time.sleep(PAUSE_SECONDS * 2**attempt)
        raise TryAgain(f"InferenceService {self.name}: the API server does not answer ({status or said}); try again")


class _Conflict(Exception):
    """The object was changed since it was read."""


def _container(document: dict[str, Any]) -> dict[str, Any]:
    containers: list[dict[str, Any]] = document["spec"]["predictor"]["containers"]
    return containers[0]


def _changes(document: dict[str, Any], tried: str, percent: int | None, marks: dict[str, str]) -> dict[str, Any]:
    """The JSON merge patch that leads there; empty where it is so already."""
    predictor: dict[str, Any] = {}
    before = _container(document).get("env", [])
    rest = [variable for variable in before if variable["name"] != VARIABLE]
    after = [*rest, {"name": VARIABLE, "value": tried}] if tried else rest
    now = document["spec"]["predictor"]
    if after != before:
        # A merge patch replaces a list as a whole; the resourceVersion sees that it is the one that was read.
        predictor["containers"] = [{**now["containers"][0], "env": after}, *now["containers"][1:]]
    if now.get("canaryTrafficPercent") != percent:
        predictor["canaryTrafficPercent"] = percent
    patch: dict[str, Any] = {"spec": {"predictor": predictor}} if predictor else {}
    there = document["metadata"].get("annotations", {})
    if "containers" in predictor or any(there.get(name) != value for name, value in marks.items()):
        newest = _predictor_status(document).get("latestCreatedRevision", "")
        patch["metadata"] = {"annotations": {**marks, BEFORE: newest}}
    return patch


def _predictor_status(document: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = document.get("status", {}).get("components", {}).get("predictor", {})
    return found


def _state(document: dict[str, Any]) -> State:
    named = [each.get("value", "") for each in _container(document).get("env", []) if each["name"] == VARIABLE]
    percent = document["spec"]["predictor"].get("canaryTrafficPercent")
    annotations, status = document["metadata"].get("annotations", {}), document.get("status", {})
    predictor = _predictor_status(document)
    created, traffic = predictor.get("latestCreatedRevision", ""), predictor.get("traffic", [])
    condition: dict[str, str] = next(
        (each for each in status.get("conditions", []) if each["type"] == "PredictorReady"), {}
    )
    current = bool(created) and created != annotations.get(BEFORE, "")
    is_ready = current and created == predictor.get("latestReadyRevision", "") and condition.get("status") == "True"
    share = sum(
        each.get("percent", 0)
        for each in traffic
        if each.get("revisionName") == created or (each.get("latestRevision") and not each.get("revisionName"))
    )
    return State(
        tried=named[0] if named else "",
        percent=percent,
        unwell=annotations.get(UNWELL, ""),
        because=annotations.get(BECAUSE, ""),
        current=current,
        revision=created,
        ready=is_ready,
        share=share if current and traffic else -1,
        said=f"{created or 'no revision'}: {condition.get('reason') or condition.get('status') or 'no condition'}",
    )
