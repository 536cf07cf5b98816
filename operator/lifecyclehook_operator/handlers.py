"""kopf's side: it watches, and each thing it tells of is noted where it matters. The only module that imports kopf."""

import asyncio
import logging
import os
import signal
from collections.abc import Coroutine, Mapping
from contextlib import AsyncExitStack
from typing import Any, cast

import kopf

from lifecyclehook_operator import kubeclient, metrics
from lifecyclehook_operator.access import Access, Rules
from lifecyclehook_operator.autoscaling import Projects
from lifecyclehook_operator.credentials import Secret, read_environment
from lifecyclehook_operator.errors import CredentialsError, KubernetesError
from lifecyclehook_operator.health import Health
from lifecyclehook_operator.inventory import Inventory
from lifecyclehook_operator.leadership import Leadership
from lifecyclehook_operator.reconcile import Reconciler, Timing
from lifecyclehook_operator.resource import GROUP, IN_USE_LABEL, PLURAL, VERSION, LifecycleHook
from lifecyclehook_operator.settings import Settings

logger = logging.getLogger(__name__)

#: These log each request, watch event and probe, and say nothing that our own lines don't.
_CHATTY_LOGGERS = ("httpx", "httpcore", "aiohttp.access", "kopf.objects", "kopf.activities.probe", "kubernetes")
_START_RETRY_SECONDS = 3
_SECRETS = ("", "v1", "secrets")


class _NoDiffBase(kopf.DiffBaseStorage):
    """Keeps kopf from copying each object to find out what has changed: nothing here asks for that."""

    def build(self, *, body: kopf.Body, extra_fields: Any = None) -> kopf.BodyEssence:  # noqa: ANN401
        return kopf.BodyEssence({})

    def fetch(self, *, body: kopf.Body) -> kopf.BodyEssence | None:
        return None

    def store(self, *, body: kopf.Body, patch: kopf.Patch, essence: kopf.BodyEssence) -> None:
        """Store nothing."""


def _only_watch(settings: kopf.OperatorSettings) -> None:
    settings.posting.enabled = False
    settings.persistence.diffbase_storage = _NoDiffBase()
    settings.scanning.disabled = True  # what it would look for is waited for here, with fewer rights
    settings.networking.request_timeout = 30
    settings.networking.connect_timeout = 10
    settings.watching.connect_timeout = 10
    settings.watching.server_timeout = 240  # ends a watch that has gone silent unnoticed
    settings.watching.label_selectors[_SECRETS] = IN_USE_LABEL


@kopf.on.startup()
async def start(memo: kopf.Memo, settings: kopf.OperatorSettings, **_: Any) -> None:  # noqa: ANN401
    """Set kopf up to do nothing but watch, connect to both sides, and begin to make passes."""
    _only_watch(settings)
    options: Settings = memo.get("options") or Settings()
    try:
        own_credentials = read_environment()
    except CredentialsError as error:
        raise kopf.PermanentError(str(error)) from error
    async with AsyncExitStack() as stack:
        try:
            kubernetes = await stack.enter_async_context(kubeclient.connect())
            if leadership := memo.get("leadership"):  # kept until the calls at work have ended
                keeping = asyncio.create_task(_end_without(leadership.keep(kubernetes.api)))
                stack.callback(keeping.cancel)
            if not await kubernetes.is_crd_installed():
                raise kopf.TemporaryError(f"the CRD {PLURAL}.{GROUP} is not installed yet", delay=_START_RETRY_SECONDS)
            projects = Projects(timeout_seconds=options.cloud_timeout_seconds, concurrency=options.concurrency)
            stack.push_async_callback(projects.aclose)
            inventory = Inventory(
                kubernetes,
                options.namespace,
                tidy_seconds=options.slow_retry_min_seconds,
                check_seconds=options.resync_interval_seconds,
            )
            rules = Rules(options.default_credentials_namespaces, options.allowed_endpoints)
            access = Access(inventory.secrets, projects, own_credentials, rules)
            await inventory.begin(Reconciler(kubernetes, access, _timing(options), inventory.find_rivals).reconcile)
            stack.push_async_callback(inventory.close, options.shutdown_grace_seconds)
        except KubernetesError as error:
            raise kopf.TemporaryError(str(error), delay=_START_RETRY_SECONDS) from error
        schedule = inventory.schedule
        try:
            if options.health_port and "options" in memo:  # else kopf run was told where to answer probes
                health = Health(schedule.__len__, schedule.unseen_write_seconds, kubernetes.is_reachable)
                stack.push_async_callback(await health.serve(options.health_port))
            if options.metrics_port:
                stack.callback(metrics.serve(options.metrics_port, schedule.resources))
        except OSError as error:
            raise kopf.PermanentError(f"cannot listen: {error}") from error
        metrics.LEADING.set(1)
        memo.inventory = inventory
        memo.stack = stack.pop_all()


def _timing(options: Settings) -> Timing:
    return Timing(
        resync=options.resync_interval_seconds,
        backoff_min=options.backoff_min_seconds,
        backoff_max=options.backoff_max_seconds,
        slow_min=options.slow_retry_min_seconds,
        slow_max=options.slow_retry_max_seconds,
    )


async def _end_without(leadership: Coroutine[Any, Any, None]) -> None:
    """End the process as soon as it does not lead any more: another may lead already, and a crash does no harm."""
    try:
        await leadership
    except Exception:
        logger.exception("The lease can't be renewed")
    logging.shutdown()
    os._exit(1)


async def _stand_by(leadership: Leadership, options: Settings) -> None:
    """Answer the probes and wait until this process leads; SIGTERM and SIGINT cancel that."""
    loop, task = asyncio.get_running_loop(), cast("asyncio.Task[None]", asyncio.current_task())
    for signal_number in (signal.SIGTERM, signal.SIGINT):  # which the first process of a container would not get
        loop.add_signal_handler(signal_number, task.cancel)
    async with AsyncExitStack() as stack:
        kubernetes = await stack.enter_async_context(kubeclient.connect())
        if options.health_port:
            health = Health(lambda: 0, lambda: 0.0, kubernetes.is_reachable)
            stack.push_async_callback(await health.serve(options.health_port))
        if options.metrics_port:
            stack.callback(metrics.serve(options.metrics_port, list))
        await leadership.gain(kubernetes.api)


@kopf.on.event(GROUP, VERSION, PLURAL)
async def notice_hook(event: kopf.RawEvent, memo: kopf.Memo, **_: Any) -> None:  # noqa: ANN401
    """Pass on what the API server tells of a resource."""
    await memo.inventory.notice_hook(LifecycleHook(event["object"]), event["type"])


@kopf.on.event(*_SECRETS, labels={IN_USE_LABEL: kopf.PRESENT})
async def notice_secret(event: kopf.RawEvent, memo: kopf.Memo, **_: Any) -> None:  # noqa: ANN401
    """Pass on what the API server tells of a Secret with our label."""
    body: Mapping[str, Any] = event["object"]
    key = (body["metadata"]["namespace"], body["metadata"]["name"])
    secret = None if event["type"] == "DELETED" else Secret.from_object(body)
    await memo.inventory.notice_secret(key, secret, event["type"])


@kopf.on.probe(id="resources")
async def count_resources(memo: kopf.Memo, **_: Any) -> int:  # noqa: ANN401
    """Tell how many resources are looked after, to who asks kopf (kopf run --liveness)."""
    return len(memo.inventory.schedule)


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
    if options.leader_elect:
        try:
            memo.leadership = Leadership(options.lease_namespace)
            asyncio.run(_stand_by(memo.leadership, options))
        except asyncio.CancelledError:
            return 0
        except (KubernetesError, OSError) as error:
            logger.error("cannot stand by: %s", error)  # noqa: TRY400  (it says all there is to say)
            return 1
    try:
        kopf.run(
            # Only peering needs one, but kopf asks for the user's name where none is given, and a pod's user has none.
            identity=GROUP,  # type: ignore[arg-type]  # a str, of a type that kopf does not export
            standalone=True,
            clusterwide=not options.namespace,
            namespaces=options.namespace,
            memo=memo,
        )
    except Exception:
        if "stack" in memo:
            raise
        return 1  # kopf has logged why the start failed; its traceback says no more
    return 0
