"""A server that answers as no server should: raw bytes, from a table of what can be wrong with a response."""

import asyncio
import gzip
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.contract.listening import listen

MIB = 1024 * 1024
HOOK = {
    "lifecycle_hook_name": "hook",
    "lifecycle_hook_type": "INSTANCE_LAUNCHING",
    "default_result": "ABANDON",
    "default_timeout": 3600,
    "notification_topic_urn": "urn:smn:eu-de:b53e5554fad0494d96206fb84296510b:gsh",
}
TIMES = {"issued_at": "2026-03-01T12:00:00.000000Z", "expires_at": "2026-03-02T12:00:00.000000Z"}

Answer = Callable[[asyncio.StreamWriter], Awaitable[None]]


@dataclass(frozen=True)
class Request:
    """A request as it came in."""

    method: str
    path: str
    headers: Mapping[str, str]


class HostileServer:
    """Answers each request to AS, and each login too if told to, as `answer` does; others as a good IAM does."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.catalog_url = ""
        self.project_name = "eu-de"
        self.answer: Answer = answers(b"")
        self.login_seconds = 0.0
        self.is_iam_hostile = False
        self.requests: list[Request] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            (method, path, _), *headers = (line.split(" ", 2) for line in head.splitlines() if line)
            request = Request(method, path, {name[:-1].lower(): " ".join(value) for name, *value in headers})
            await reader.readexactly(int(request.headers.get("content-length", "0")))
            self.requests.append(request)
            is_login = path.startswith("/v3/")
            await (self._log_in if is_login and not self.is_iam_hostile else self.answer)(writer)
            await writer.drain()
            writer.close()
            await writer.wait_closed()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client has had enough
        finally:
            writer.transport.abort()

    async def _log_in(self, writer: asyncio.StreamWriter) -> None:
        endpoint = {"interface": "public", "region": "eu-de", "url": self.catalog_url or self.url}
        await asyncio.sleep(self.login_seconds)
        catalog = [{"type": "asv1", "endpoints": [endpoint]}]
        token = {**TIMES, "project": {"id": "p-1", "name": self.project_name}, "catalog": catalog}
        writer.write(response({"token": token}, status="201 Created", headers={"X-Subject-Token": "made-up"}))


@asynccontextmanager
async def run_hostile_server() -> AsyncIterator[HostileServer]:
    """Serve on a port of the loopback interface for as long as the block lasts."""
    hostile = HostileServer("")
    async with listen(hostile.serve) as address:
        hostile.url = "http://{}:{}".format(*address)
        yield hostile


def memory(what: str) -> int:
    """Return the resident memory of this process in bytes, now (VmRSS) or at its peak (VmHWM)."""
    status = Path("/proc/self/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith(what))
    return int(line.split()[1]) * 1024


def response(
    body: Any, *, status: str = "200 OK", headers: Mapping[str, str] | None = None, length: int | None = None
) -> bytes:
    """Return a whole response; a body that is neither text nor bytes becomes JSON."""
    content = body if isinstance(body, bytes) else (body if isinstance(body, str) else json.dumps(body)).encode()
    lines = {"Content-Type": "application/json", "Content-Length": str(length or len(content)), **(headers or {})}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"HTTP/1.1 {status}\r\n{head}\r\n".encode() + content


def answers(content: bytes) -> Answer:
    """Return what sends these bytes."""

    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(content)

    return answer


def goes_on(begin: bytes, more: bytes, pause_seconds: float = 0) -> Answer:
    """Return what sends some bytes, and then the same again and again."""

    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(begin)
        while True:
            writer.write(more)
            await writer.drain()
            await asyncio.sleep(pause_seconds)

    return answer


def delayed(seconds: float, *contents: bytes) -> Answer:
    """Return what sends these, one after another, each after so many seconds."""
    left = [*contents]

    async def answer(writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(seconds)
        writer.write(left.pop(0))

    return answer


def with_hook(**changes: Any) -> Answer:
    """Return what sends a hook: as the answer to a create call, and in a list."""
    hook = {**HOOK, **changes}
    return answers(response({**hook, "lifecycle_hooks": [hook]}))


def with_text(field: str, value: str) -> Answer:
    """Return what sends a hook with some JSON for a field."""
    hook = ", ".join([*(f'"{name}": {json.dumps(each)}' for name, each in HOOK.items()), f'"{field}": {value}'])
    return answers(response(f'{{{hook}, "lifecycle_hooks": [{{{hook}}}]}}'))


def _head(*lines: str, status: str = "200 OK") -> bytes:
    return "\r\n".join((f"HTTP/1.1 {status}", *lines, "", "")).encode()


def _chunk(content: bytes) -> bytes:
    return f"{len(content):x}\r\n".encode() + content + b"\r\n"


_CHUNKED = _head("Transfer-Encoding: chunked")
_GZIP = {"Content-Encoding": "gzip"}
_BOMB = gzip.compress(bytes(200 * MIB), compresslevel=1)
_CLOUD = {"create": "CloudUnavailable", "list": "CloudUnavailable", "token": "CloudUnavailable"}
_ODD = {"create": "UnexpectedResponse", "list": "UnexpectedResponse", "token": "UnexpectedResponse"}
#: What is no token may yet be a hook, or a list of them.
_ODD_TOKEN = {"create": "", "list": "", "token": "UnexpectedResponse"}

#: What the server sends, and the reason of the error that each operation then ends in (empty: it goes well).
ANSWERS: Mapping[str, tuple[Answer, Mapping[str, str]]] = {
    "gzip bomb": (answers(response(_BOMB, headers=_GZIP)), _ODD),
    "gzip bomb with an error": (answers(response(_BOMB, status="503 Slow", headers=_GZIP)), _CLOUD),
    "nested compression": (answers(response(_BOMB, headers={"Content-Encoding": "gzip, deflate, br"})), _ODD),
    "endless chunks": (goes_on(_CHUNKED, _chunk(bytes(65536))), _ODD),
    "endless tiny chunks": (goes_on(_CHUNKED, _chunk(b" ") * 10_000), _ODD),
    "endless body": (goes_on(_head(), bytes(65536)), _ODD),
    "endless error": (goes_on(_head(status="503 Slow"), bytes(65536)), _CLOUD),
    "gigantic length": (goes_on(_head(f"Content-Length: {10**15}"), b"[" * 65536), _ODD),
    "endless header line": (goes_on(b"HTTP/1.1 200 OK\r\nX-Long: ", b"x" * 65536), _CLOUD),
    "endless headers": (goes_on(b"HTTP/1.1 200 OK\r\n", b"X-Many: x\r\n" * 5000), _CLOUD),
    "endless trailers": (goes_on(_CHUNKED + b"0\r\n", b"X-Many: x\r\n" * 5000), _CLOUD),
    "endless status line": (goes_on(b"HTTP/1.1 200 ", b"x" * 65536), _CLOUD),
    "1xx flood": (goes_on(b"", _head(status="102 Processing") * 1000), _CLOUD),
    "upgrade": (goes_on(_head("Upgrade: x", "Connection: upgrade", status="101 Switch"), b"x" * 1000), _CLOUD),
    "slow body": (goes_on(_head("Content-Length: 9999"), b"{", 0.05), _CLOUD),
    "slow head": (goes_on(b"HTTP/1.1 200 OK\r\nX-Slow: ", b"x", 0.05), _CLOUD),
    "silence": (goes_on(b"", b"", 1), _CLOUD),
    "no answer": (answers(b""), _CLOUD),
    "too short": (answers(response("{}", length=99)), _CLOUD),
    "two lengths": (answers(response("{}", headers={"content-length": "7"})), _CLOUD),
    "negative length": (answers(_head("Content-Length: -1")), _CLOUD),
    "chunked nonsense": (answers(_CHUNKED + b"zz\r\n{}\r\n"), _CLOUD),
    "gigantic chunk": (answers(_CHUNKED + b"f" * 30 + b"\r\n{}"), _CLOUD),
    "another protocol": (answers(b"SSH-2.0-OpenSSH_9.9\r\n"), _CLOUD),
    "null bytes in the head": (answers(_head("X-Null: a\0b")), _CLOUD),
    "null bytes": (answers(response(bytes(1000))), _ODD),
    "deep JSON": (answers(response(b"[" * 60_000)), _ODD),
    "deep JSON in an error": (
        answers(response(b'{"error": {"message": ' + b"[" * 900 + b"]" * 900 + b"}}", status="503 Slow")),
        _CLOUD,
    ),
    "many entries": (answers(response('{"lifecycle_hooks": [' + "{}," * 20_000 + "{}]}")), _ODD),
    "very many entries": (answers(response('{"lifecycle_hooks": [' + "{}," * 200_000 + "{}]}")), _ODD),
    "huge number": (with_text("more", "9" * 30_000), _ODD),
    "lone surrogate": (with_text("lifecycle_hook_type", r'"\ud83d"'), _ODD),
    "duplicate keys": (with_text("default_timeout", "60"), _ODD_TOKEN),
    "timeout beyond int64": (with_hook(default_timeout=2**63), _ODD),
    "negative timeout": (with_hook(default_timeout=-1), _ODD),
    "fractional timeout": (with_hook(default_timeout=60.5), _ODD),
    "floating timeout": (with_hook(default_timeout=60.0), _ODD),
    "infinite timeout": (with_text("default_timeout", "1e999"), _ODD),
    "true timeout": (with_hook(default_timeout=True), _ODD),
    "textual timeout": (with_hook(default_timeout="60"), _ODD),
    "deep JSON in a hook": (with_text("more", "[" * 500 + "]" * 500), _ODD_TOKEN),
    "HTML": (answers(response("<html>", headers={"Content-Type": "text/html"})), _ODD),
    "no body": (answers(response("")), _ODD),
    "wrong content type": (
        answers(response({**HOOK, "lifecycle_hooks": [HOOK]}, headers={"Content-Type": "image/png; charset=rot13"})),
        _ODD_TOKEN,
    ),
    "redirect": (answers(_head("Location: /v3/elsewhere", status="307 Elsewhere")), _ODD),
    "redirect to nowhere": (answers(_head("Location: https://xn--/", status="301 Elsewhere")), _ODD),
}
