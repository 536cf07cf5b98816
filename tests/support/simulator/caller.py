"""A caller of the cloud that knows nothing but the API reference."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.simulator import Simulator

HOOK = {"lifecycle_hook_name": "test-hook1", "lifecycle_hook_type": "INSTANCE_LAUNCHING"}


def token_request(simulator: Simulator, *, scope: dict[str, Any] | None = None, **user: Any) -> dict[str, Any]:
    env = simulator.credentials_env()
    named = {"name": env["OS_USERNAME"], "domain": {"name": env["OS_USER_DOMAIN_NAME"]}}
    user = {"password": env["OS_PASSWORD"], **({} if "id" in user else named), **user}
    scope = {"project": {"name": env["OS_PROJECT_NAME"]}} if scope is None else scope
    return {"auth": {"identity": {"methods": ["password"], "password": {"user": user}}, "scope": scope}}


class Caller:
    def __init__(self, simulator: Simulator, http: httpx.Client) -> None:
        self.simulator = simulator
        self.http = http
        self.topic = simulator.add_topic("gsh")
        self.group = simulator.add_group()
        self.log_in()

    def authenticate(self, **request: Any) -> httpx.Response:
        return self.http.post(f"{self.simulator.auth_url}/auth/tokens", json=token_request(self.simulator, **request))

    def log_in(self, **request: Any) -> httpx.Response:
        response = self.authenticate(**request)
        assert response.status_code == 201
        self.http.headers["X-Auth-Token"] = response.headers["X-Subject-Token"]
        return response

    def call(self, method: str, path: str, *, project_id: str | None = None, **request: Any) -> httpx.Response:
        return self.http.request(method, f"{self.simulator.as_endpoint(project_id)}/{path}", **request)

    def hook(self, **fields: Any) -> dict[str, Any]:
        """Return the body of a good create; a field that is None is left out."""
        body = {**HOOK, "notification_topic_urn": self.topic, **fields}
        return {name: value for name, value in body.items() if value is not None}

    def create(self, *, group: str | None = None, **fields: Any) -> httpx.Response:
        return self.call("POST", f"scaling_lifecycle_hook/{group or self.group}", json=self.hook(**fields))

    def list(self, *, group: str | None = None) -> httpx.Response:
        return self.call("GET", f"scaling_lifecycle_hook/{group or self.group}/list")

    def get(self, name: str = "test-hook1", *, group: str | None = None) -> httpx.Response:
        return self.call("GET", f"scaling_lifecycle_hook/{group or self.group}/{name}")

    def modify(self, name: str = "test-hook1", *, group: str | None = None, **fields: Any) -> httpx.Response:
        return self.call("PUT", f"scaling_lifecycle_hook/{group or self.group}/{name}", json=fields)

    def delete(self, name: str = "test-hook1", *, group: str | None = None) -> httpx.Response:
        return self.call("DELETE", f"scaling_lifecycle_hook/{group or self.group}/{name}")

    def list_hanging(self, *, group: str | None = None, **query: str) -> httpx.Response:
        return self.call("GET", f"scaling_instance_hook/{group or self.group}/list", params=query)

    def call_back(self, *, group: str | None = None, **fields: Any) -> httpx.Response:
        return self.call("PUT", f"scaling_instance_hook/{group or self.group}/callback", json=fields)


def error_of(response: httpx.Response) -> tuple[int, str]:
    """Return the HTTP status and the AS code of an error in the documented shape."""
    body = response.json()
    assert body.keys() == {"error"}
    assert body["error"].keys() == {"code", "message"}
    assert body["error"]["message"]
    return response.status_code, body["error"]["code"]


def build_go_program(package: str, folder: Path, module: Path = Path(__file__).parent / "gosdk") -> Path:
    """Build a package of a module into a folder, and return the program."""
    go = shutil.which("go")
    if go is None:
        pytest.fail("these tests build a Go program: put Go 1.26 or later on the PATH")
    built = folder / "program"
    command = [go, "build", "-mod=readonly", "-trimpath", "-o", str(built), package]
    build = subprocess.run(
        command,
        cwd=module,
        env={**os.environ, "CGO_ENABLED": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    if build.returncode != 0:
        pytest.fail(f"the Go program did not build:\n{build.stderr}")
    return built
