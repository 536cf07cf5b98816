"""The HTTP server: finds the operation, logs the request, lets faults have their way, answers."""

import asyncio
import contextlib
import json
import time
import uuid
from email.utils import format_datetime
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote

from aiohttp import web
from multidict import CIMultiDict

from . import autoscaling, iam, signing
from .cloud import Answer, Call, Cloud, Operation
from .control import control_routes
from .faults import ArmedFault, Fault, Faults
from .requestlog import SHOWN_HEADERS, LoggedRequest, RequestLog, parse_body

OPERATIONS = (*iam.OPERATIONS, *autoscaling.OPERATIONS)


class ConnectionDroppedError(Exception):
    """A fault said to leave the client without an answer."""


class Server:
    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud
        self.log = RequestLog()
        self.faults = Faults()

    def build_app(self) -> web.Application:
        app = web.Application()
        app.add_subapp("/_sim/", control_routes(self.cloud, self.log, self.faults))
        app.router.add_route("*", "/{path:.*}", self._serve)
        return app

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        try:
            body = await request.read()
        except ConnectionResetError:  # the client has gone before it has said all
            return web.Response()
        operation, args = _find_operation(request)
        entry = self._log(request, body, operation, args)
        raw_path, _, raw_query = request.raw_path.partition("?")
        call = Call(
            method=request.method,
            origin=str(request.url.origin()),
            raw_path=raw_path,
            raw_query=raw_query,
            query=request.query,
            headers=request.headers,
            body=body,
            args=args,
        )
        try:
            response = await self._answer(request, operation, call, entry)
        except ConnectionDroppedError:
            response = None
        if response is None or request.transport is None:
            entry.state = "lost"
            if request.transport is not None:
                request.transport.abort()
        else:
            entry.state, entry.status, entry.answered_at = "answered", response.status, time.monotonic()
        self.log.notify()
        return response or web.Response()

    async def _answer(
        self, request: web.Request, operation: Operation | None, call: Call, entry: LoggedRequest
    ) -> web.Response:
        armed = self.faults.take(entry)
        if armed is not None:
            entry.fault = armed.id
        response = await self._suffer(armed, "before", entry)
        if response is None:
            if operation in autoscaling.OPERATIONS:
                await asyncio.sleep(self.cloud.settings.latency_seconds)
            answer = self._process(request, operation, call)
            entry.processed = operation is not None
            response = await self._suffer(armed, "after", entry)
            # What the service has refused is never said to have succeeded: no client could tell.
            if response is None or (response.status < HTTPStatus.BAD_REQUEST <= answer.status):
                response = _to_response(answer)
        entry.code = _find_code(response)
        response.headers.setdefault("X-Request-Id", entry.request_id)
        response.headers["Date"] = format_datetime(self.cloud.now(), usegmt=True)
        return response

    async def _suffer(self, armed: ArmedFault | None, stage: str, entry: LoggedRequest) -> web.Response | None:
        if armed is None or armed.fault.stage != stage:
            return None
        fault = armed.fault
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(armed.released.wait(), fault.delay_seconds)
        if fault.hold:
            entry.state = "held"
            self.log.notify()
            await armed.released.wait()
            entry.state = "received"
        if fault.drop or armed.drop_released:
            raise ConnectionDroppedError
        return _fault_response(fault) if fault.answers else None

    def _process(self, request: web.Request, operation: Operation | None, call: Call) -> Answer:
        if operation is None:
            return _gateway_answer(request)
        try:
            return operation.carry_out(self.cloud, call)
        except (iam.IamError, autoscaling.AsError, signing.SignatureError) as error:
            return error.answer

    def _log(
        self, request: web.Request, body: bytes, operation: Operation | None, args: dict[str, str]
    ) -> LoggedRequest:
        parsed = parse_body(body)
        in_body = parsed.get("lifecycle_hook_name") if isinstance(parsed, dict) else None
        entry = LoggedRequest(
            sequence=self.log.next_sequence(),
            time=self.cloud.now(),
            received_at=time.monotonic(),
            client="{}:{}".format(*request.get_extra_info("peername", ("", 0))[:2]),
            method=request.method,
            path=request.path,
            query=dict(request.query),
            headers={name: request.headers[name] for name in SHOWN_HEADERS if name in request.headers},
            body=parsed,
            auth=iam.auth_kind(request.headers),
            operation=operation.name if operation else None,
            project_id=args.get("project_id"),
            group_id=args.get("group_id"),
            hook_name=args.get("hook_name") or (in_body if isinstance(in_body, str) else None),
            request_id=uuid.uuid4().hex,
        )
        self.log.add(entry)
        return entry


def _find_operation(request: web.Request) -> tuple[Operation | None, dict[str, str]]:
    for operation in OPERATIONS:
        found = operation.path.fullmatch(request.rel_url.raw_path)
        if found and operation.method == request.method:
            return operation, {name: unquote(value) for name, value in found.groupdict().items()}
    return None, {}


def _gateway_answer(request: web.Request) -> Answer:
    """Answer for what no service offers, in the shape that a gateway in front of them has."""
    methods = {each.method for each in OPERATIONS if each.path.fullmatch(request.rel_url.raw_path)}
    if methods:
        body = {"error_code": "APIGW.0106", "error_msg": "This method is not offered here."}
        return Answer(405, body, {"Allow": ", ".join(sorted(methods))})
    return Answer(404, {"error_code": "APIGW.0101", "error_msg": "Nothing is offered here."})


def _to_response(answer: Answer) -> web.Response:
    if answer.json is None:
        return web.Response(status=answer.status, headers=answer.headers)
    return web.json_response(answer.json, status=answer.status, headers=answer.headers)


def _fault_response(fault: Fault) -> web.Response:
    body = fault.json_body
    if body is None and fault.code is not None:
        known = fault.code in autoscaling.ERRORS
        answer = autoscaling.error_answer(fault.code) if known else None
        body = answer.json if answer else {"error": {"code": fault.code, "message": "Made up on request."}}
        status = fault.status or (answer.status if answer else 400)
    else:
        status = fault.status or 200
    headers = CIMultiDict(fault.headers)
    if body is None:
        headers.setdefault("Content-Type", "text/plain; charset=utf-8")
        return web.Response(status=status, headers=headers, body=(fault.text or "").encode())
    headers.setdefault("Content-Type", "application/json; charset=utf-8")
    return web.Response(status=status, headers=headers, body=json.dumps(body).encode())


def _find_code(response: web.Response) -> str | None:
    parsed: Any = parse_body(response.body) if isinstance(response.body, bytes) and response.status >= 400 else None
    error = parsed.get("error") if isinstance(parsed, dict) else None
    code = error.get("code") if isinstance(error, dict) else None
    return code if isinstance(code, str) else None
