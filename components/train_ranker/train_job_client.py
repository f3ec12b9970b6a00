"""TrainJobs of a cluster: asked for, waited for and deleted through its API server, however often that errs."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from components.train_ranker.train_job_manifest import (
    API_VERSION,
    COUNT,
    GROUP,
    KIND,
    PATCHES,
    PLURAL,
    RUNTIME,
    is_same,
)
from goalrank.errors import TryAgain, UsageError

POLL_SECONDS, ANSWER_SECONDS = 15.0, 20
TRIES, PAUSE_SECONDS = 5, 1.0
"""Of one call to the API server, and between the first two; each pause is twice the one before."""

START_SECONDS = 1800.0
"""How long a job may have neither a condition nor all its nodes running: no quota, no runtime, no such machines. A new
machine and the image on it are to fit into it."""

GONE_SECONDS = 300.0
"""How long a deleted job may take to go with its pods."""

OLDEST_TRAINER = "2.2"
"""Of Kubeflow Trainer: the release that knows `runtimePatches` (kubeflow/trainer, pull request 3309) and
`activeDeadlineSeconds` (3258)."""

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


class TrainJobs:
    """TrainJobs of one namespace, through the `kubernetes` client that kfp brings."""

    def __init__(
        self,
        host: str,
        namespace: str,
        token: Callable[[], str],
        ca_file: str | None = None,
        poll_seconds: float = POLL_SECONDS,
        start_seconds: float = START_SECONDS,
    ) -> None:
        """`token` is asked at every call: the cluster renews it in the pod's account long before training ends."""
        from kubernetes import client

        configuration = client.Configuration()
        configuration.host, configuration.ssl_ca_cert, configuration.retries = host, ca_file, False
        self._configuration, self._token = configuration, token
        self._api = client.CustomObjectsApi(client.ApiClient(configuration))
        self._core = client.CoreV1Api(client.ApiClient(configuration))
        self._where = {"group": GROUP, "version": API_VERSION, "namespace": namespace, "plural": PLURAL}
        self._poll_seconds, self._start_seconds = poll_seconds, start_seconds

    @classmethod
    def from_account(cls, account: Path = ACCOUNT) -> TrainJobs:
        """Of the pod's own namespace, with its own account.

        Raises:
            UsageError: this is no pod of a cluster.
        """
        try:
            _, namespace = ((account / name).read_text(encoding="utf-8").strip() for name in ("token", "namespace"))
            host = f"{os.environ['KUBERNETES_SERVICE_HOST']}:{os.environ['KUBERNETES_SERVICE_PORT']}"
        except (OSError, KeyError) as error:
            raise UsageError(
                f"{COUNT} is set, but {type(error).__name__}: expected a step's pod on a cluster"
            ) from error
        token = account / "token"
        return cls(
            f"https://{host}", namespace, lambda: token.read_text(encoding="utf-8").strip(), str(account / "ca.crt")
        )

    def owners_of(self, pod: str) -> list[dict[str, str]]:
        """What a pod belongs to, for a job to belong to it as well: the run's Workflow, whoever made the pod.

        Not the pod itself: the next try's pod is another one and takes the job over. Without a claim to hold up the
        owner's deletion, which an account must be allowed to make. Empty where the account may not look: a job without
        an owner ends by itself as well, only its record stays.

        Raises:
            UsageError: the API server does not know the account.
            TryAgain: it is away.
        """
        where = {"name": pod, "namespace": self._where["namespace"], "_request_timeout": ANSWER_SECONDS}
        found = self._called(lambda: self._core.read_namespaced_pod(**where), (403, 404))
        references = (found.metadata.owner_references if found is not None else None) or []
        return [
            {"apiVersion": each.api_version, "kind": each.kind, "name": each.name, "uid": each.uid}
            for each in references
        ]

    def ask(self, job: dict[str, Any], before: Callable[[], None] = lambda: None) -> bool:
        """Ask for a job, unless the very same is there already; another one of its name is deleted first. Returns
        whether it was there.

        Args:
            before: done right before a new job is asked for, when none is there.

        Raises:
            UsageError: the API server refuses the job, or knows a part of it only.
            TryAgain: it is away, or the other job does not go.
        """
        name, until = job["metadata"]["name"], time.monotonic() + GONE_SECONDS
        while (found := self._call(self._api.get_namespaced_custom_object, (404,), name=name)) is not None:
            if "deletionTimestamp" not in found["metadata"]:
                if is_same(found, job):
                    return True
                self.delete(name)
            elif time.monotonic() > until:
                raise TryAgain(f"TrainJob {name} was deleted {GONE_SECONDS:.0f} s ago and is still there; run it again")
            time.sleep(self._poll_seconds)
        before()
        # 409: this very call was answered, but the answer was lost.
        made = self._call(self._api.create_namespaced_custom_object, (409,), body=job)
        made = made or self._call(self._api.get_namespaced_custom_object, (404,), name=name)
        if made is not None and PATCHES not in made["spec"]:
            # An API server drops what a definition does not know, and tells nobody.
            self.delete(name)
            raise UsageError(
                f"TrainJob {name} came back without its {PATCHES}, and was deleted; expected Kubeflow Trainer "
                f"{OLDEST_TRAINER} or newer, an older one would run its pods without volume, account and user"
            )
        return False

    def ended_well(
        self, name: str, said: Callable[[str], None] = lambda _: None, looking: Callable[[], None] = lambda: None
    ) -> bool:
        """Wait until a job is over; whether it ended well. One that does not start is deleted.

        Args:
            said: told each change of the job's state.
            looking: done at every look.

        Raises:
            TryAgain: the API server is away, somebody deleted the job, or it does not start.
        """
        told, started = "", time.monotonic()
        while True:
            looking()
            found = self._call(self._api.get_namespaced_custom_object, (404,), name=name)
            if found is None:
                raise TryAgain(f"TrainJob {name} is gone, somebody deleted it; run it again")
            status = found.get("status", {})
            conditions = {each["type"]: each for each in status.get("conditions", [])}
            over = [kind for kind in ("Complete", "Failed") if conditions.get(kind, {}).get("status") == "True"]
            now = ", ".join(f"{kind} {each['status']}" for kind, each in sorted(conditions.items())) or "no condition"
            if now != told:
                said(f"TrainJob {name}: {now}")
                told = now
            if over:
                return over == ["Complete"]
            held = any(each["status"] == "True" for each in conditions.values())  # suspended: somebody's queue has it
            if held or any(each.get("ready") or each.get("succeeded") for each in status.get("jobsStatus", [])):
                started = time.monotonic()
            elif time.monotonic() - started > self._start_seconds:
                self.delete(name)
                raise TryAgain(
                    f"TrainJob {name} had no condition and not all its nodes running for {self._start_seconds:.0f} s, "
                    f"and was deleted; look for quota, machines with room, and runtime {RUNTIME}, then run it again"
                )
            time.sleep(self._poll_seconds)

    def delete(self, name: str) -> None:
        """Delete a job with its pods; its name is free once they are gone."""
        self._call(self._api.delete_namespaced_custom_object, (404,), name=name, propagation_policy="Foreground")

    def _call(
        self, function: Callable[..., Any], tolerated: tuple[int, ...] = (), **more: Any
    ) -> dict[str, Any] | None:
        """One call about TrainJobs."""
        answer: dict[str, Any] | None = self._called(
            lambda: function(**self._where, **more, _request_timeout=ANSWER_SECONDS), tolerated
        )
        return answer

    def _called(self, function: Callable[[], Any], tolerated: tuple[int, ...]) -> Any:
        """One call, tried again while the server errs; None where the answer is one of the tolerated statuses."""
        from kubernetes.client.rest import ApiException
        from urllib3.exceptions import HTTPError

        for attempt in range(TRIES):
            try:
                self._configuration.api_key = {"authorization": f"Bearer {self._token()}"}
                return function()
            except ApiException as error:
                status, said = error.status or 0, " ".join(f"{error.reason} {error.body or ''}".split())[:300]
                if status in tolerated:
                    return None
                if 400 <= status < 500 and status != 429:
                    raise UsageError(
                        f"the API server says {status} ({said}); expected Kubeflow Trainer {OLDEST_TRAINER} or newer "
                        f"with runtime {RUNTIME}, and an account that may create, get and delete a {KIND} "
                        "(k8s/components/trainer)"
                    ) from error
            except (OSError, HTTPError) as error:
                status, said = 0, type(error).__name__
            if attempt + 1 < TRIES:
                time.sleep(PAUSE_SECONDS * 2**attempt)
        raise TryAgain(f"the API server does not answer ({status or said}); run it again")
