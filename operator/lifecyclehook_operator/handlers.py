"""kopf handlers: configure kopf to do nothing but watch, and forward watch events to the controller."""

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import kopf

from lifecyclehook_operator.api.callback import PLURAL as CALLBACK_PLURAL
from lifecyclehook_operator.api.callback import LifecycleCallback
from lifecyclehook_operator.api.v1alpha1 import GROUP, IN_USE_LABEL, PLURAL, VERSION, LifecycleHook
from lifecyclehook_operator.kube.client import PAGE_SIZE
from lifecyclehook_operator.kube.secrets import Secret
from lifecyclehook_operator.manager import Manager
from lifecyclehook_operator.settings import Settings

_SECRETS = ("", "v1", "secrets")


class _NoDiffBase(kopf.DiffBaseStorage):
    """Keeps kopf from copying each object to find out what has changed: nothing here asks for that."""

    def build(self, *, body: kopf.Body, extra_fields: Any = None) -> kopf.BodyEssence:  # noqa: ANN401
        return kopf.BodyEssence({})

    def fetch(self, *, body: kopf.Body) -> kopf.BodyEssence | None:
        return None

    def store(self, *, body: kopf.Body, patch: kopf.Patch, essence: kopf.BodyEssence) -> None:
        """Store nothing."""


class _NoProgress(kopf.StatusProgressStorage):
    """Keeps kopf from copying what it compares: handlers of events have no progress that it would have to leave out."""

    def clear(self, *, essence: kopf.BodyEssence) -> kopf.BodyEssence:
        return essence


class _EndlessBackoff:
    """Waits between the tries of a request, in seconds: a watch outlives an outage of any length."""

    def __iter__(self) -> Iterator[float]:
        return itertools.chain((1, 2, 3, 5, 8), itertools.repeat(10))


@kopf.on.startup(errors=kopf.ErrorsMode.PERMANENT)
async def start(memo: kopf.Memo, settings: kopf.OperatorSettings, **_: Any) -> None:  # noqa: ANN401
    """Set kopf up, and begin to reconcile."""
    settings.posting.enabled = False
    settings.persistence.diffbase_storage = _NoDiffBase()
    settings.persistence.progress_storage = _NoProgress()
    settings.scanning.disabled = True  # what it would look for is waited for here, with fewer rights
    settings.networking.request_timeout = 30
    settings.networking.connect_timeout = 10
    settings.networking.error_backoffs = _EndlessBackoff()
    settings.watching.connect_timeout = 10
    settings.watching.server_timeout = 240  # ends a watch that has gone silent unnoticed
    settings.watching.chunk_size = PAGE_SIZE  # else all objects are in memory at once, as long as the first list takes
    settings.queueing.idle_timeout = 0.2  # a worker takes as much memory as its object
    settings.watching.label_selectors[_SECRETS] = IN_USE_LABEL
    if "manager" not in memo:  # under kopf run
        memo.manager = Manager(Settings())
    memo.controller = await memo.manager.start()


def is_news(event: kopf.RawEvent, memo: kopf.Memo, **_: Any) -> bool:  # noqa: ANN401
    """Return whether a watch event of a LifecycleHook shows more than is known; most do not, which spares kopf work."""
    return bool(memo.controller.is_news(event["object"]["metadata"], event["type"]))


@kopf.on.event(GROUP, VERSION, PLURAL, when=is_news)
async def on_hook(event: kopf.RawEvent, memo: kopf.Memo, **_: Any) -> None:  # noqa: ANN401
    """Forward a watch event of a LifecycleHook."""
    await memo.controller.on_hook(LifecycleHook(event["object"]), event["type"])


@kopf.on.event(GROUP, VERSION, CALLBACK_PLURAL)
async def on_callback(event: kopf.RawEvent, memo: kopf.Memo, **_: Any) -> None:  # noqa: ANN401
    """Forward a watch event of a LifecycleCallback."""
    memo.manager.callbacks.on_callback(LifecycleCallback(event["object"]), event["type"])


@kopf.on.event(*_SECRETS, labels={IN_USE_LABEL: kopf.PRESENT})
async def on_secret(event: kopf.RawEvent, memo: kopf.Memo, **_: Any) -> None:  # noqa: ANN401
    """Forward a watch event of a Secret with our label."""
    body: Mapping[str, Any] = event["object"]
    key = (body["metadata"]["namespace"], body["metadata"]["name"])
    secret = None if event["type"] == "DELETED" else Secret.from_object(body)
    await memo.controller.on_secret(key, secret, event["type"])


@kopf.on.probe(id="resources")
async def count_resources(memo: kopf.Memo, **_: Any) -> int:  # noqa: ANN401
    """Return the number of managed resources, for kopf's own probe (kopf run --liveness)."""
    return len(memo.controller)


@kopf.on.cleanup()
async def stop(memo: kopf.Memo, **_: Any) -> None:  # noqa: ANN401
    """Wait for in-flight calls, then close all connections."""
    await memo.manager.stop()
    memo.manager.end_soon()
