"""kopf's side: it watches, and each thing it tells of is noted in the schedule. The only module that imports kopf."""

import logging
from contextlib import AsyncExitStack
from typing import Any

import kopf

from lifecyclehook_operator import kubeclient
from lifecyclehook_operator.autoscaling import Projects
from lifecyclehook_operator.credentials import read_environment
from lifecyclehook_operator.errors import CredentialsError, KubernetesError
from lifecyclehook_operator.reconcile import Reconciler, Timing
from lifecyclehook_operator.resource import GROUP, PLURAL, VERSION, LifecycleHook
from lifecyclehook_operator.schedule import Schedule
from lifecyclehook_operator.settings import Settings

#: These log each request, watch event and probe, and say nothing that our own lines don't.
_CHATTY_LOGGERS = ("httpx", "httpcore", "aiohttp.access", "kopf.objects", "kopf.activities.probe", "kubernetes")


_START_RETRY_SECONDS = 3


@kopf.on.startup()
async def start(memo: kopf.Memo, settings: kopf.OperatorSettings, **_: Any) -> None:  # noqa: ANN401
    """Set kopf up to do nothing but watch, connect to both sides, and begin the schedule."""
    settings.posting.enabled = False
    settings.scanning.disabled = True  # what it would look for is waited for here, with fewer rights
    settings.networking.request_timeout = 30
    settings.networking.connect_timeout = 10
    settings.watching.connect_timeout = 10
    settings.watching.server_timeout = 240  # ends a watch that has gone silent unnoticed
    options: Settings = memo.get("options") or Settings()
    try:
        own_credentials = read_environment()
    except CredentialsError as error:
        raise kopf.PermanentError(str(error)) from error
    memo.stack = stack = AsyncExitStack()
    try:
        kubernetes = await stack.enter_async_context(kubeclient.connect())
        is_installed = await kubernetes.is_crd_installed()
    except KubernetesError as error:
        await stack.aclose()
        raise kopf.TemporaryError(str(error), delay=_START_RETRY_SECONDS) from error
    if not is_installed:
        await stack.aclose()
        raise kopf.TemporaryError(f"the CRD {PLURAL}.{GROUP} is not installed yet", delay=_START_RETRY_SECONDS)
    projects = Projects(timeout_seconds=options.cloud_timeout_seconds, concurrency=options.concurrency)
    stack.push_async_callback(projects.aclose)
    timing = Timing(
        resync=options.resync_interval_seconds,
        backoff_min=options.backoff_min_seconds,
        backoff_max=options.backoff_max_seconds,
        slow_min=options.slow_retry_min_seconds,
        slow_max=options.slow_retry_max_seconds,
    )
    memo.schedule = Schedule(Reconciler(kubernetes, projects, own_credentials, timing).reconcile)
    stack.push_async_callback(memo.schedule.close, options.shutdown_grace_seconds)


@kopf.on.event(GROUP, VERSION, PLURAL)
async def notice(event: kopf.RawEvent, memo: kopf.Memo, **_: Any) -> None:  # noqa: ANN401
    """Pass on what the API server tells of a resource, be it from the list at the start or from the watch."""
    resource = LifecycleHook(event["object"])
    if event["type"] == "DELETED":
        memo.schedule.forget(resource.uid)
    else:
        memo.schedule.notice(resource)


@kopf.on.probe(id="resources")
async def count_resources(memo: kopf.Memo, **_: Any) -> int:  # noqa: ANN401
    """Tell how many resources are looked after; /healthz answers with it."""
    return len(memo.schedule)


@kopf.on.cleanup()
async def stop(memo: kopf.Memo, **_: Any) -> None:  # noqa: ANN401
    """Let the calls at work end, then close all connections."""
    if "stack" in memo:
        await memo.stack.aclose()


def run(options: Settings) -> int:
    """Run the operator until SIGTERM or SIGINT, and return its exit status."""
    kopf.configure(
        debug=options.log_level == "debug",
        quiet=options.log_level in ("warning", "error"),
        log_format=kopf.LogFormat.JSON if options.log_format == "json" else kopf.LogFormat.FULL,
    )
    logging.getLogger().setLevel(options.log_level.upper())
    for name in _CHATTY_LOGGERS:
        logging.getLogger(name).setLevel(logging.WARNING)
    memo = kopf.Memo(options=options)
    try:
        kopf.run(
            standalone=True,
            clusterwide=not options.namespace,
            namespaces=options.namespace,
            liveness_endpoint=f"http://0.0.0.0:{options.health_port}/healthz" if options.health_port else None,
            memo=memo,
        )
    except Exception:
        if "schedule" in memo:
            raise
        return 1  # kopf has logged why the start failed; its traceback says no more
    return 0
