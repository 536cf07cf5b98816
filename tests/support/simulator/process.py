"""The simulator as a process of its own, and the client that tests steer it with."""

import json
import os
import select
import ssl
import subprocess
import sys
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import httpx

from .requestlog import LoggedRequest

REPOSITORY = Path(__file__).resolve().parents[3]
SEARCHED_CHARACTERS = 200_000  # of a text, in one request
LONGEST_SECRET = 512
START_SECONDS = 30.0
STOP_SECONDS = 10.0


class Simulator:
    """Steers a running simulator by its control API. Each method is one request, and raises if that fails."""

    def __init__(
        self, url: str, *, environment: dict[str, str], project_id: str, verify: ssl.SSLContext | bool = True
    ) -> None:
        self.url = url
        self.project_id = project_id
        self.pid: int | None = None
        self._environment = environment
        self._client = httpx.Client(base_url=f"{url}/_sim", trust_env=False, timeout=30, verify=verify)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    @property
    def auth_url(self) -> str:
        return f"{self.url}/v3"

    def as_endpoint(self, project_id: str | None = None) -> str:
        return f"{self.url}/autoscaling-api/v1/{project_id or self.project_id}"

    def credentials_env(self) -> dict[str, str]:
        """Return the `OS_*` variables of the default user and project."""
        return dict(self._environment)

    def reset(self) -> None:
        """Bring the cloud back to how it started; held requests lose their connection, the log is emptied."""
        self._send("POST", "/reset")

    def settings(self) -> dict[str, float]:
        settings: dict[str, float] = self._send("GET", "/settings")
        return settings

    def set_latency(self, seconds: float) -> None:
        """Let each AS call take this long."""
        self._send("PATCH", "/settings", {"latency_seconds": seconds})

    def set_token_lifetime(self, seconds: float) -> None:
        """Let tokens that are issued from now on live this long."""
        self._send("PATCH", "/settings", {"token_lifetime_seconds": seconds})

    def set_clock_skew(self, seconds: float) -> None:
        """Let the cloud's clock be ahead of ours by this much, for tokens already issued as well."""
        self._send("PATCH", "/settings", {"clock_skew_seconds": seconds})

    def revoke_tokens(self) -> None:
        self._send("DELETE", "/tokens")

    def add_project(self, name: str, project_id: str | None = None, **fields: Any) -> str:
        """Add a project (`domain`: name of its domain) and return its id."""
        project_id = project_id or uuid.uuid4().hex
        self._send("POST", "/projects", {"name": name, "project_id": project_id, **fields})
        return project_id

    def add_user(self, name: str, password: str, **fields: Any) -> str:
        """Add a user, or change the one of that name, and return its id.

        `domain`: name of the user's domain; `permissions`: as for `set_permissions`.
        """
        return str(self._send("POST", "/users", {"name": name, "password": password, **fields})["id"])

    def set_permissions(self, permissions: Sequence[str] | None, user: str | None = None, **fields: str) -> None:
        """Let a user, or all users that there are, perform these AS actions and no others.

        None: all. A user who lacks one meets AS.0031, one who has none at all, and so no role, AS.0011. `domain`: name
        of the user's domain.
        """
        self._send("PUT", "/permissions", {"permissions": permissions, "user": user, **fields})

    def add_access_key(
        self,
        user: str | None = None,
        access: str | None = None,
        secret: str | None = None,
        security_token: str | bool | None = None,
        **fields: Any,
    ) -> tuple[str, ...]:
        """Add an access key of a user (default: the default user's) and return it: AK, SK, and security token if any.

        `security_token`: given, or made up if True, makes the key a temporary one. `domain`: name of the user's domain;
        `must_sign`: names of headers that requests have to sign with it, X-Sdk-Date aside (default: Host).
        """
        if user is None:
            user = self._environment["OS_USERNAME"]
            fields.setdefault("domain", self._environment["OS_USER_DOMAIN_NAME"])
        body = {"user": user, "access": access, "secret": secret, "security_token": security_token, **fields}
        key = self._send("POST", "/access_keys", body)
        return tuple(key[name] for name in ("access", "secret", "security_token") if key[name] is not None)

    def find_secrets(self, text: str) -> list[str]:
        """Return the kinds of the secrets that a text holds, of all passwords, keys and tokens that there ever were."""
        kinds: set[str] = set()
        for begin in range(0, len(text) or 1, SEARCHED_CHARACTERS):
            part = text[begin : begin + SEARCHED_CHARACTERS + LONGEST_SECRET]
            kinds.update(self._check(self._client.post("/secrets/find", content=part.encode())).json())
        return sorted(kinds)

    def revoke_access_key(self, access: str) -> None:
        self._send("DELETE", f"/access_keys/{access}")

    def add_group(self, group_id: str | None = None, *, busy: bool = False, project_id: str | None = None) -> str:
        body = {"group_id": group_id, "busy": busy, "project_id": project_id or self.project_id}
        return str(self._send("POST", "/groups", body)["id"])

    def set_busy(self, group_id: str, busy: bool = True) -> None:
        self._send("PATCH", f"/groups/{group_id}", {"busy": busy})

    def delete_group(self, group_id: str) -> None:
        """Delete a group and its hooks."""
        self._send("DELETE", f"/groups/{group_id}")

    def add_topic(self, name: str, *, project_id: str | None = None) -> str:
        """Add an SMN topic, given by its name or its whole URN, and return the URN."""
        region = self._environment["OS_REGION_NAME"]
        urn = name if name.startswith("urn:") else f"urn:smn:{region}:{project_id or self.project_id}:{name}"
        return str(self._send("POST", "/topics", {"urn": urn})["urn"])

    def delete_topic(self, urn: str) -> None:
        self._send("DELETE", f"/topics/{urn}")

    def hooks(self, group_id: str) -> list[dict[str, Any]]:
        """Return the hooks of a group as AS answers them, oldest first."""
        hooks: list[dict[str, Any]] = self._send("GET", f"/groups/{group_id}/hooks")
        return hooks

    def put_hook(self, group_id: str, name: str, **fields: Any) -> dict[str, Any]:
        """Create or replace a hook behind the client's back, past every rule of AS."""
        hook: dict[str, Any] = self._send("PUT", f"/groups/{group_id}/hooks/{name}", fields)
        return hook

    def update_hook(self, group_id: str, name: str, **fields: Any) -> dict[str, Any]:
        hook: dict[str, Any] = self._send("PATCH", f"/groups/{group_id}/hooks/{name}", fields)
        return hook

    def delete_hook(self, group_id: str, name: str) -> None:
        self._send("DELETE", f"/groups/{group_id}/hooks/{name}")

    def add_hanging_instance(self, group_id: str, hook_name: str, instance_id: str, **fields: Any) -> str:
        """Let a hook suspend an instance, as its type says when, and return the key of the lifecycle action.

        `timeout_seconds`: for how long, instead of the hook's default timeout.
        """
        body = {"lifecycle_hook_name": hook_name, "instance_id": instance_id, **fields}
        return str(self._send("POST", f"/groups/{group_id}/hanging", body)["lifecycle_action_key"])

    def hanging_instances(self, group_id: str) -> list[dict[str, Any]]:
        """Return the suspensions of a group as AS lists them, those that have ended included."""
        found: list[dict[str, Any]] = self._send("GET", f"/groups/{group_id}/hanging")
        return found

    def update_hanging_instance(self, group_id: str, key: str, **fields: Any) -> dict[str, Any]:
        """Change a suspension behind the client's back: `lifecycle_hook_status`, `timeout_seconds` from now on."""
        changed: dict[str, Any] = self._send("PATCH", f"/groups/{group_id}/hanging/{key}", fields)
        return changed

    def delete_hanging_instance(self, group_id: str, key: str) -> None:
        """List a suspension no more, ended or not."""
        self._send("DELETE", f"/groups/{group_id}/hanging/{key}")

    def fault(self, operation: str | None = None, **fields: Any) -> int:
        """Arm a fault and return its id. `tests.support.simulator.faults.Fault` documents the fields."""
        return int(self._send("POST", "/faults", {"operation": operation, **fields})["id"])

    def faults(self) -> list[dict[str, Any]]:
        faults: list[dict[str, Any]] = self._send("GET", "/faults")
        return faults

    def clear_faults(self) -> None:
        """Forget all faults; what they hold loses its connection."""
        self._send("DELETE", "/faults")

    def release(self, fault_id: int, *, drop: bool = False) -> None:
        """Let the requests that a fault holds go on, or with `drop` lose their connection."""
        self._send("POST", f"/faults/{fault_id}/release?drop={str(drop).lower()}")

    def requests(self, operation: str | None = None, group_id: str | None = None, **wanted: Any) -> list[LoggedRequest]:
        """Return the requests that match, oldest first.

        More to match: `hook_name`, `state` (received, held, answered or lost), `fault` (an id), `after` (a sequence).
        """
        return self._find_requests(operation=operation, group_id=group_id, **wanted)

    def wait_for_request(
        self,
        operation: str | None = None,
        group_id: str | None = None,
        *,
        count: int = 1,
        timeout: float = 60,
        **wanted: Any,
    ) -> list[LoggedRequest]:
        """Wait until `count` requests match (see `requests`) and return them; raise TimeoutError if they don't come."""
        wanted |= {"operation": operation, "group_id": group_id}
        found = self._find_requests(count=count, wait_seconds=timeout, **wanted)
        if len(found) < count:
            message = f"{len(found)} of {count} requests came within {timeout} s: {wanted}"
            raise TimeoutError(message)
        return found

    def clear_requests(self, until: int | None = None) -> None:
        """Forget the requests so far, or those up to a sequence."""
        self._send("DELETE", "/requests" if until is None else f"/requests?until={until}")

    def _find_requests(self, **query: Any) -> list[LoggedRequest]:
        query = {name: value for name, value in query.items() if value is not None}
        timeout = query.get("wait_seconds", 0) + 30
        response = self._client.get("/requests", params=query, timeout=timeout)
        return [LoggedRequest.model_validate(entry) for entry in self._check(response).json()]

    def _send(self, method: str, path: str, body: Any = None) -> Any:
        response = self._check(self._client.request(method, path, json=body))
        return response.json() if response.content else None

    @staticmethod
    def _check(response: httpx.Response) -> httpx.Response:
        if response.is_error:
            message = f"the simulator refused {response.request.method} {response.url}: {response.text}"
            raise ValueError(message)
        return response


@contextmanager
def run_simulator(
    *arguments: str, groups: Sequence[str] = (), topics: Sequence[str] = (), tls: tuple[Path, Path] | None = None
) -> Iterator[Simulator]:
    """Run a simulator on a free port of the loopback interface, for as long as the block lasts.

    `arguments` are those of the command line; `tls` is a certificate and its key, served and trusted. A Ctrl-C at the
    terminal does not reach it: it ends with the block, or with this process.
    """
    command = [sys.executable, "-m", __package__ or "tests.support.simulator", *arguments]
    command += [f"--group={group}" for group in groups] + [f"--topic={topic}" for topic in topics]
    if tls is not None:
        command += [f"--tls-cert={tls[0]}", f"--tls-key={tls[1]}"]
    receiving, sending = os.pipe()
    try:
        process = subprocess.Popen(
            [*command, f"--ready-fd={sending}"],
            cwd=REPOSITORY,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            pass_fds=[sending],
            start_new_session=True,
        )
    finally:
        os.close(sending)
    try:
        with os.fdopen(receiving) as pipe:
            ready = _read_ready(pipe.fileno())
        verify = ssl.create_default_context(cafile=tls[0]) if tls else True
        with Simulator(**ready, verify=verify) as simulator:
            simulator.pid = process.pid
            yield simulator
    finally:
        _stop(process)


def _read_ready(descriptor: int) -> dict[str, Any]:
    """Read what the simulator says when it listens; the end of the pipe with nothing said means that it gave up."""
    said = b""
    while select.select([descriptor], [], [], START_SECONDS)[0]:
        part = os.read(descriptor, 65536)
        said += part
        if not part:
            break
    else:
        raise TimeoutError("the simulator did not begin to listen")
    if not said:
        raise RuntimeError("the simulator did not start; it says why on standard error")
    ready: dict[str, Any] = json.loads(said)
    return ready


def _stop(process: subprocess.Popen[bytes]) -> None:
    with process:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
