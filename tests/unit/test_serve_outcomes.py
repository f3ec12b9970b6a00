"""How the service says no: the status, the reason, and the outcome that its metrics count."""

from __future__ import annotations

import pytest
from starlette.testclient import TestClient

from components.serve_model.app import create_app
from tests.unit.instant_service import INFER, service


@pytest.mark.parametrize("path", ["/rank/", "/feedback/", f"{INFER}/", "/ready/", "/v2/", "//rank"])
@pytest.mark.parametrize("method", ["POST", "GET"])
def test_a_path_that_is_not_ours_is_not_redirected(tmp_path, path, method):
    """Least of all to the host that the client names."""
    with TestClient(create_app(service(tmp_path)), follow_redirects=False) as client:
        answer = client.request(method, path, headers={"host": "evil.example"}, content=b"{}")
    assert answer.status_code == 404 and "location" not in answer.headers and answer.json() == {"error": "Not Found"}
