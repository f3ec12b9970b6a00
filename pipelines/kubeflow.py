"""A connection to Kubeflow Pipelines through kfp's own client, with its errors turned into ours.

What goes wrong there becomes one of two things: a setting is wrong (UsageError: no or another token, a request that is
refused), or it is away or busy (TryAgain: no answer, 429, 5xx; Conflict, 409, and NotThere, 404, are kinds of it).
Reading, enabling, disabling and deleting may be repeated, so they are, a few times; creating may not.
"""

from __future__ import annotations

import io
import json
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from goalrank import naming
from goalrank.errors import GoalRankError, TryAgain, UsageError

if TYPE_CHECKING:
    import kfp

ANSWER_SECONDS = 30
"""Longest wait for one answer; kfp's client would wait for ever."""

TRIES = 4
PAUSE_SECONDS = 0.5
"""Before the second try of a call that may be repeated; doubled each time."""

PAGE = 100
LONGEST_MESSAGE = 300

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Address:
    """Where Kubeflow Pipelines is and who asks; the token never appears in a message.

    token is called before every request, since a cluster's tokens last an hour and a backfill for days; "": none.
    """

    host: str
    namespace: str = ""
    token: Callable[[], str] = field(default=str, repr=False)

    @property
    def shown(self) -> str:
        """The host as a message may name it."""
        return naming.masked(self.host)


class Kubeflow:
    """Kubeflow Pipelines as the night's commands use it."""

    def __init__(self, address: Address) -> None:
        """Connect, and look whether it answers and wants a namespace.

        Raises:
            UsageError: no address, a token it refuses, or no namespace where it has several users.
            TryAgain: nothing answers there, or not as Kubeflow Pipelines does.
        """
        import kfp_server_api

        if not address.host.startswith(("http://", "https://")):
            raise UsageError(
                f"GOALRANK_KFP_ENDPOINT {address.shown!r} found, expected the address of Kubeflow Pipelines, such as "
                "https://kubeflow.example/pipeline"
            )
        self.address = address
        configuration = kfp_server_api.Configuration(host=address.host.rstrip("/"))
        configuration.retries = False
        self._token = address.token()
        if self._token:
            configuration.api_key = {"authorization": self._token}  # else the hook below is not even asked
            configuration.api_key_prefix = {"authorization": "Bearer"}
            configuration.refresh_api_key_hook = self._authorise
        health = kfp_server_api.HealthzServiceApi(kfp_server_api.ApiClient(configuration))
        # Asked first, because kfp's client asks a silent host for half a minute, with a traceback each time.
        ask = health.healthz_service_get_healthz_with_http_info
        answer, _, headers = self.call(ask, _request_timeout=ANSWER_SECONDS)
        if "json" not in headers.get("Content-Type", ""):
            raise TryAgain(
                f"{address.shown} answers, but not as Kubeflow Pipelines does; check GOALRANK_KFP_ENDPOINT, try again"
            )
        if answer.multi_user and not address.namespace:
            raise UsageError(f"{address.shown} has a namespace for each user; set GOALRANK_KFP_NAMESPACE to yours")
        self.client: kfp.Client = self.once(self._client)

    @property
    def namespace(self) -> str | None:
        return self.address.namespace or None

    def _client(self) -> kfp.Client:
        import kfp

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            client = kfp.Client(
                host=self.address.host,
                namespace=self.address.namespace or "kubeflow",
                existing_token=self._token or None,
            )
        if self._token:
            client._run_api.api_client.configuration.refresh_api_key_hook = self._authorise
        client._context_setting["namespace"] = self.address.namespace  # not what a file in the home folder says
        rest = client._run_api.api_client.rest_client
        rest.request = partial(_with_time_limit, rest.request)
        return client

    def _authorise(self, configuration: Any) -> None:
        """Give a request the token of now."""
        self._token = self.address.token()
        configuration.api_key["authorization"] = self._token

    def call(self, function: Callable[..., Answer], /, *arguments: Any, **named: Any) -> Answer:
        """One call that may be repeated, and is where that may help.

        Raises:
            UsageError, TryAgain, NotThere: see this module.
        """
        for attempt in range(TRIES):
            try:
                return self.once(function, *arguments, **named)
            except TryAgain as error:
                if attempt == TRIES - 1 or isinstance(error, NotThere):
                    raise
                time.sleep(PAUSE_SECONDS * 2**attempt)
        raise AssertionError("unreachable")

    def once(self, function: Callable[..., Answer], /, *arguments: Any, **named: Any) -> Answer:
        """One call that must not be repeated blindly: what it makes would be made twice.

        Raises:
            UsageError, TryAgain, NotThere: see this module.
        """
        from kfp_server_api import ApiException
        from urllib3.exceptions import HTTPError

        try:
            with redirect_stdout(io.StringIO()):  # kfp prints links there, where --json has its object
                return function(*arguments, **named)
        except ApiException as error:
            raise _error(self.address, self._token, error.status, _message(error)) from error
        except (OSError, HTTPError) as error:
            raise _error(self.address, self._token, 0, type(error).__name__) from error

    def pages(self, function: Callable[..., Any], items: str, **named: Any) -> Iterator[Any]:
        """Everything a list call has, page by page."""
        token = ""
        while True:
            page = self.call(function, page_token=token, page_size=PAGE, **named)
            yield from getattr(page, items) or []
            token = page.next_page_token or ""
            if not token:
                return

    def experiment(self, name: str) -> str:
        """Id of the experiment of that name, made if need be."""
        found = self.find_experiment(name)
        if found is not None:
            return found
        try:
            made = self.once(self.client.create_experiment, name, namespace=self.namespace)
        except Conflict:
            made = self.call(self.client.get_experiment, experiment_name=name, namespace=self.namespace)
        return str(made.experiment_id)

    def find_experiment(self, name: str) -> str | None:
        """Id of the experiment of that name, or None."""
        for each in self.pages(self.client.list_experiments, "experiments", namespace=self.namespace):
            if each.display_name == name:
                return str(each.experiment_id)
        return None


class Conflict(TryAgain):
    """It exists already, or somebody changed it at the same time (409)."""


class NotThere(TryAgain):
    """What was asked for is not there (404): deleted meanwhile, or the address is another service's."""


def _with_time_limit(request: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    return request(*arguments, **named | {"_request_timeout": named.get("_request_timeout") or ANSWER_SECONDS})


def _message(error: Any) -> str:
    """What the server said; its own JSON message where there is one."""
    body = error.body.decode(errors="replace") if isinstance(error.body, bytes) else str(error.body or "")
    try:
        document = json.loads(body)
        body = str(document.get("message") or document.get("error") or body)
    except (ValueError, AttributeError):
        pass
    return " ".join((body or str(error.reason)).split())


def _error(address: Address, token: str, status: int | None, said: str) -> GoalRankError:
    """Our error for an answer of Kubeflow Pipelines."""
    where = f"Kubeflow Pipelines at {address.shown}"
    # Cut last of all: half a token or password is known as neither.
    said = naming.masked(said.replace(token, "...") if token else said)[:LONGEST_MESSAGE]
    if status == 401:
        found = "the token was refused" if token else "it wants a token and none is set"
        return UsageError(f"{where}: {found} (401); set GOALRANK_KFP_TOKEN or GOALRANK_KFP_TOKEN_FILE to a valid one")
    if status == 403:
        return UsageError(f"{where}: this token may not do that (403: {said}); expected one with the right to")
    if status is not None and 300 <= status < 400:
        return UsageError(f"{where} leads elsewhere ({status}), to a log-in as a rule; set GOALRANK_KFP_TOKEN_FILE")
    if status == 404:
        return NotThere(f"{where} does not know that (404: {said}); check GOALRANK_KFP_ENDPOINT, try again")
    if status == 409:
        return Conflict(f"{where}: somebody changed it at the same time (409: {said}); run the same command again")
    if status is not None and 400 <= status < 500 and status != 429:
        return UsageError(f"{where} refuses the request ({status}: {said})")
    told = f"{status}: {said}" if status else said
    return TryAgain(f"{where} does not answer ({told}); what was done is kept, run the same command again")
