"""The control API under `/_sim/`: how tests, and a user who plays, change the cloud behind a client's back."""

import copy
from collections.abc import Awaitable, Callable
from dataclasses import asdict, fields, replace
from datetime import datetime, timedelta
from typing import Any

from aiohttp import web
from pydantic import ValidationError

from .autoscaling import hanging_json
from .cloud import DEFAULT_DOMAIN, TIME_FORMAT, Cloud, Group, HangingInstance, Hook, User
from .faults import Fault, Faults
from .requestlog import RequestFilter, RequestLog

MAX_WAIT_SECONDS = 60.0


def control_routes(cloud: Cloud, log: RequestLog, faults: Faults) -> web.Application:
    app = web.Application(middlewares=[_explain_mistakes])
    control = _Control(cloud, log, faults)
    app.add_routes(
        [
            web.post("/reset", control.reset),
            web.get("/settings", control.show_settings),
            web.patch("/settings", control.change_settings),
            web.get("/projects", control.list_projects),
            web.post("/projects", control.add_project),
            web.post("/users", control.add_user),
            web.put("/permissions", control.set_permissions),
            web.post("/access_keys", control.add_access_key),
            web.delete("/access_keys/{access}", control.revoke_access_key),
            web.delete("/tokens", control.revoke_tokens),
            web.post("/secrets/find", control.find_secrets),
            web.get("/topics", control.list_topics),
            web.post("/topics", control.add_topic),
            web.delete("/topics/{urn}", control.delete_topic),
            web.get("/groups", control.list_groups),
            web.post("/groups", control.add_group),
            web.patch("/groups/{group_id}", control.change_group),
            web.delete("/groups/{group_id}", control.delete_group),
            web.get("/groups/{group_id}/hooks", control.list_hooks),
            web.put("/groups/{group_id}/hooks/{name}", control.put_hook),
            web.patch("/groups/{group_id}/hooks/{name}", control.change_hook),
            web.delete("/groups/{group_id}/hooks/{name}", control.delete_hook),
            web.get("/groups/{group_id}/hanging", control.list_hanging),
            web.post("/groups/{group_id}/hanging", control.add_hanging),
            web.patch("/groups/{group_id}/hanging/{key}", control.change_hanging),
            web.delete("/groups/{group_id}/hanging/{key}", control.delete_hanging),
            web.get("/requests", control.find_requests),
            web.delete("/requests", control.clear_requests),
            web.get("/faults", control.list_faults),
            web.post("/faults", control.add_fault),
            web.delete("/faults", control.clear_faults),
            web.post("/faults/{fault_id}/release", control.release_fault),
        ]
    )
    return app


@web.middleware
async def _explain_mistakes(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    try:
        return await handler(request)
    except (KeyError, TypeError, ValueError, ValidationError) as mistake:
        raise web.HTTPBadRequest(text=f"{type(mistake).__name__}: {mistake}") from mistake


class _Control:
    def __init__(self, cloud: Cloud, log: RequestLog, faults: Faults) -> None:
        self._cloud = cloud
        self._log = log
        self._faults = faults
        self._first = copy.deepcopy(cloud)

    async def reset(self, _: web.Request) -> web.Response:
        first = copy.deepcopy(self._first)
        for member in fields(Cloud):
            setattr(self._cloud, member.name, getattr(first, member.name))
        self._faults.clear()
        self._log.clear()
        return web.Response(status=204)

    async def show_settings(self, _: web.Request) -> web.Response:
        return web.json_response(asdict(self._cloud.settings))

    async def change_settings(self, request: web.Request) -> web.Response:
        changes = {name: float(value) for name, value in (await request.json()).items()}
        self._cloud.settings = replace(self._cloud.settings, **changes)
        return web.json_response(asdict(self._cloud.settings))

    async def list_projects(self, _: web.Request) -> web.Response:
        return web.json_response([asdict(project) for project in self._cloud.projects.values()])

    async def add_project(self, request: web.Request) -> web.Response:
        project = self._cloud.add_project(**{"domain": DEFAULT_DOMAIN} | await request.json())
        return web.json_response(asdict(project), status=201)

    async def add_user(self, request: web.Request) -> web.Response:
        user = self._cloud.add_user(**await request.json())
        return web.json_response({"id": user.id, "name": user.name, "domain": user.domain}, status=201)

    async def set_permissions(self, request: web.Request) -> web.Response:
        wanted = {"user": None, "domain": DEFAULT_DOMAIN} | await request.json()
        users = list(self._cloud.users.values())
        if wanted["user"] is not None:
            users = [self._user(wanted["user"], wanted["domain"])]
        for user in users:
            user.allow(wanted["permissions"])
        return web.Response(status=204)

    async def add_access_key(self, request: web.Request) -> web.Response:
        wanted = {"domain": DEFAULT_DOMAIN} | await request.json()
        user = self._user(wanted.pop("user"), wanted.pop("domain"))
        key = self._cloud.add_access_key(user, **wanted)
        shown = {"access": key.access, "secret": key.secret, "security_token": key.security_token}
        return web.json_response(shown, status=201)

    async def revoke_access_key(self, request: web.Request) -> web.Response:
        if self._cloud.access_keys.pop(request.match_info["access"], None) is None:
            raise web.HTTPNotFound(text="no such access key")
        return web.Response(status=204)

    async def find_secrets(self, request: web.Request) -> web.Response:
        """Answer which kinds of secrets a text holds, not which secrets."""
        text = await request.text()
        return web.json_response(sorted(kind for secret, kind in self._cloud.secrets.items() if secret in text))

    async def revoke_tokens(self, _: web.Request) -> web.Response:
        self._cloud.tokens.clear()
        return web.Response(status=204)

    async def list_topics(self, _: web.Request) -> web.Response:
        return web.json_response(sorted(self._cloud.topics))

    async def add_topic(self, request: web.Request) -> web.Response:
        urn = (await request.json())["urn"]
        self._cloud.topics.add(urn)
        return web.json_response({"urn": urn}, status=201)

    async def delete_topic(self, request: web.Request) -> web.Response:
        self._cloud.topics.discard(request.match_info["urn"])
        return web.Response(status=204)

    async def list_groups(self, _: web.Request) -> web.Response:
        return web.json_response([_group_json(group) for group in self._cloud.groups.values()])

    async def add_group(self, request: web.Request) -> web.Response:
        return web.json_response(_group_json(self._cloud.add_group(**await request.json())), status=201)

    async def change_group(self, request: web.Request) -> web.Response:
        group = self._group(request)
        group.busy = bool((await request.json())["busy"])
        return web.json_response(_group_json(group))

    async def delete_group(self, request: web.Request) -> web.Response:
        del self._cloud.groups[self._group(request).id]
        return web.Response(status=204)

    async def list_hooks(self, request: web.Request) -> web.Response:
        return web.json_response([hook.to_json() for hook in self._group(request).hooks.values()])

    async def put_hook(self, request: web.Request) -> web.Response:
        group, name = self._group(request), request.match_info["name"]
        defaults = {"lifecycle_hook_name": name, "create_time": self._cloud.now().strftime(TIME_FORMAT)}
        group.hooks[name] = Hook(**defaults | await request.json())
        return web.json_response(group.hooks[name].to_json())

    async def change_hook(self, request: web.Request) -> web.Response:
        group, hook = self._hook(request)
        changed = group.hooks[hook.lifecycle_hook_name] = replace(hook, **await request.json())
        return web.json_response(changed.to_json())

    async def delete_hook(self, request: web.Request) -> web.Response:
        group, hook = self._hook(request)
        del group.hooks[hook.lifecycle_hook_name]
        return web.Response(status=204)

    async def list_hanging(self, request: web.Request) -> web.Response:
        group = self._group(request)
        return web.json_response([hanging_json(self._cloud, group, hanging) for hanging in group.hanging])

    async def add_hanging(self, request: web.Request) -> web.Response:
        group, wanted = self._group(request), await request.json()
        hook = self._hook_of(group, wanted["lifecycle_hook_name"])
        hanging = HangingInstance(
            instance_id=wanted["instance_id"],
            lifecycle_hook_name=hook.lifecycle_hook_name,
            default_result=hook.default_result,
            timeout=self._in_seconds(wanted.get("timeout_seconds", hook.default_timeout)),
        )
        group.hanging.append(hanging)
        self._cloud.secrets[hanging.lifecycle_action_key] = "lifecycle action key"
        return web.json_response({"lifecycle_action_key": hanging.lifecycle_action_key}, status=201)

    async def change_hanging(self, request: web.Request) -> web.Response:
        group, hanging = self._hanging(request)
        wanted = await request.json()
        if "timeout_seconds" in wanted:
            hanging.timeout = self._in_seconds(wanted["timeout_seconds"])
        hanging.lifecycle_hook_status = wanted.get("lifecycle_hook_status", hanging.lifecycle_hook_status)
        return web.json_response(hanging_json(self._cloud, group, hanging))

    async def delete_hanging(self, request: web.Request) -> web.Response:
        group, hanging = self._hanging(request)
        group.hanging.remove(hanging)
        return web.Response(status=204)

    async def find_requests(self, request: web.Request) -> web.Response:
        query = dict(request.query)
        wait_seconds = min(float(query.pop("wait_seconds", 0)), MAX_WAIT_SECONDS)
        count = int(query.pop("count", 1))
        found = await self._log.wait_for(RequestFilter.model_validate(query), count, wait_seconds)
        return web.json_response([entry.model_dump(mode="json") for entry in found])

    async def clear_requests(self, request: web.Request) -> web.Response:
        self._log.clear(int(request.query["until"]) if "until" in request.query else None)
        return web.Response(status=204)

    async def list_faults(self, _: web.Request) -> web.Response:
        return web.json_response([armed.to_json() for armed in self._faults.list()])

    async def add_fault(self, request: web.Request) -> web.Response:
        armed = self._faults.add(Fault.model_validate(await request.json()))
        return web.json_response(armed.to_json(), status=201)

    async def clear_faults(self, _: web.Request) -> web.Response:
        self._faults.clear()
        return web.Response(status=204)

    async def release_fault(self, request: web.Request) -> web.Response:
        armed = self._faults.find(int(request.match_info["fault_id"]))
        if armed is None:
            raise web.HTTPNotFound(text="no such fault")
        armed.release(drop=request.query.get("drop") == "true")
        return web.Response(status=204)

    def _user(self, name: str, domain: str) -> User:
        user = self._cloud.find_user(name, domain)
        if user is None:
            raise web.HTTPNotFound(text="no such user")
        return user

    def _group(self, request: web.Request) -> Group:
        group = self._cloud.groups.get(request.match_info["group_id"])
        if group is None:
            raise web.HTTPNotFound(text="no such group")
        return group

    def _in_seconds(self, seconds: float) -> datetime:
        return self._cloud.now() + timedelta(seconds=seconds)

    def _hanging(self, request: web.Request) -> tuple[Group, HangingInstance]:
        group = self._group(request)
        for hanging in group.hanging:
            if hanging.lifecycle_action_key == request.match_info["key"]:
                return group, hanging
        raise web.HTTPNotFound(text="no such lifecycle action")

    def _hook(self, request: web.Request) -> tuple[Group, Hook]:
        group = self._group(request)
        return group, self._hook_of(group, request.match_info["name"])

    @staticmethod
    def _hook_of(group: Group, name: str) -> Hook:
        if (hook := group.hooks.get(name)) is None:
            raise web.HTTPNotFound(text="no such hook")
        return hook


def _group_json(group: Group) -> dict[str, Any]:
    return {"id": group.id, "project_id": group.project_id, "busy": group.busy, "hooks": list(group.hooks)}
