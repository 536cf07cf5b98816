"""The operator's process: start, standby, reconciling, shutdown, all in one event loop."""

import asyncio
import logging
import os
import signal
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from typing import TYPE_CHECKING, Any, NoReturn, Self, TypeVar, cast

import aiohttp
import kopf

from lifecyclehook_operator import metrics
from lifecyclehook_operator.api.callback import LifecycleCallback
from lifecyclehook_operator.api.v1alpha1 import GROUP, LifecycleHook
from lifecyclehook_operator.cloud.clouds_yaml import read_environment
from lifecyclehook_operator.cloud.credentials import Credentials
from lifecyclehook_operator.cloud.errors import CredentialsError
from lifecyclehook_operator.controller.callbacks import Callbacks
from lifecyclehook_operator.controller.clients import ClientCache, ClientResolver, CredentialsPolicy
from lifecyclehook_operator.controller.controller import Controller
from lifecyclehook_operator.controller.reconciler import Reconciler
from lifecyclehook_operator.controller.suspensions import SuspensionWatch
from lifecyclehook_operator.controller.timing import Timing
from lifecyclehook_operator.health import Health, Probe
from lifecyclehook_operator.kube.client import PROBLEMS, KubeClient, connect
from lifecyclehook_operator.kube.errors import KubernetesError
from lifecyclehook_operator.kube.events import EventRecorder
from lifecyclehook_operator.logs import configure_logging
from lifecyclehook_operator.settings import Settings
from lifecyclehook_operator.versions import describe_versions

if TYPE_CHECKING:
    from lifecyclehook_operator.kube.leaderelection import LeaderElector

logger = logging.getLogger(__name__)

_START_RETRY_SECONDS = 3
#: How often to make good what failed, and to look for what no watch has shown, at the longest.
_CLEANUP_SECONDS = 30
_CHECK_SECONDS = 60
#: For how long Events that wait are published after the last reconcile.
_EVENTS_GRACE_SECONDS = 3
#: How long kopf may take to return after the shutdown.
_END_SECONDS = 10

T = TypeVar("T")


class Manager:
    """Owns what lives as long as the process: connections, probes, metrics, leadership, and the controller."""

    def __init__(self, options: Settings) -> None:
        self._options = options
        self._stack = AsyncExitStack()
        self._kubernetes: KubeClient | None = None
        self._controller: Controller | None = None
        self._is_standby = False
        self._problem = ""
        self._kopf_tasks: set[asyncio.Task[Any]] = set()
        self._probe = Probe(self._probe_api_server)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def run(self) -> None:
        """Run the operator until SIGTERM or SIGINT, the latter by cancellation while kopf doesn't run yet.

        Raises KubernetesError, OSError if a port is taken, and whatever ends kopf.
        """
        loop, task = asyncio.get_running_loop(), cast("asyncio.Task[None]", asyncio.current_task())
        for signal_number in (signal.SIGTERM, signal.SIGINT):  # PID 1 gets no signal that it has no handler for
            loop.add_signal_handler(signal_number, task.cancel)
        loop.set_exception_handler(log_loop_error)
        async with self:
            await self._listen()
            if self._options.leader_elect:
                await self._lead()
            await kopf.operator(
                # Only peering needs one, but kopf asks for the user's name where none is given, and a pod's has none.
                identity=GROUP,  # type: ignore[arg-type]  # a str, of a type that kopf does not export
                standalone=True,
                clusterwide=not self._options.namespace,
                namespaces=self._options.namespace,
                memo=kopf.Memo(manager=self),
            )

    async def start(self) -> Controller:
        """Begin to reconcile as soon as the API server serves our resource, and return what watch events are for."""
        self._kopf_tasks = asyncio.all_tasks()
        options, own_credentials = self._options, _read_own_credentials()
        kubernetes = await self._connect()
        clients = ClientCache(timeout_seconds=options.cloud_timeout_seconds, concurrency=options.concurrency)
        self._stack.push_async_callback(clients.aclose)
        controller = Controller(
            kubernetes,
            options.namespace,
            cleanup_seconds=min(_CLEANUP_SECONDS, options.slow_retry_min_seconds),
            check_seconds=min(_CHECK_SECONDS, options.resync_interval_seconds),
        )
        timing = _timing(options)
        policy = CredentialsPolicy(options.default_credentials_namespaces, options.allowed_endpoints)
        resolver = ClientResolver(controller.secrets, clients, own_credentials, policy)
        events = EventRecorder(kubernetes)
        reconciler = Reconciler(kubernetes, resolver, timing, controller.find_claims, events)
        self.callbacks = callbacks = Callbacks(kubernetes, resolver, timing, controller.cache.find, events)
        watch = SuspensionWatch(
            kubernetes,
            resolver,
            controller.cache,
            timing,
            events,
            interval_seconds=options.suspension_interval_seconds,
            was_released=callbacks.was_released,
            on_idle=controller.retry_group,
        )
        controller.observers.append(watch)
        controller.checks.append(callbacks.check)
        callbacks.listeners += [watch.look_at, lambda hook: controller.retry_group(hook.hook_key[0])]
        controller.starts += [callbacks.start, watch.start]
        await self._retry(lambda: _check_cluster(kubernetes, options.namespace))
        controller.begin(reconciler)
        events.start()
        self._stack.push_async_callback(events.close, _EVENTS_GRACE_SECONDS)
        self._stack.push_async_callback(_close, options.shutdown_grace_seconds, controller, callbacks, watch)
        self._controller = controller
        metrics.LEADER.set(1)
        return controller

    async def stop(self) -> None:
        """Wait for in-flight calls, release the Lease and close all connections; calling it twice does no harm."""
        self._kubernetes, self._problem = None, "stopping"
        await self._stack.aclose()

    def end_soon(self) -> None:
        """Exit if kopf does not return within 10 seconds after the shutdown: after a 401, one of its tasks may hang."""
        asyncio.get_running_loop().call_later(_END_SECONDS, self._end)

    def _end(self) -> None:
        failed = (task.exception() for task in self._kopf_tasks if task.done() and not task.cancelled())
        error = next(filter(None, failed), None)
        if error is None:
            _exit(f"kopf did not return within {_END_SECONDS} s after the shutdown.")
        _exit(f"The operator cannot run: {_describe(error)}")

    async def _connect(self) -> KubeClient:
        if self._kubernetes is None:
            self._kubernetes = await self._retry(lambda: self._stack.enter_async_context(connect()))
        return self._kubernetes

    async def _lead(self) -> None:
        """Wait until this process leads, and end it as soon as it does not any more."""
        # Takes a tenth of the start, and most processes need none.
        from lifecyclehook_operator.kube.leaderelection import LeaderElector  # noqa: PLC0415

        elector = LeaderElector((await self._connect()).server.client, self._options.lease_namespace)
        self._is_standby = True
        self._stack.push_async_callback(elector.release)  # after the in-flight calls, and only if we lead by then
        await elector.acquire()
        self._is_standby = False
        renewal = asyncio.create_task(_exit_after(elector))

        async def stop_renewal() -> None:
            renewal.cancel()
            await asyncio.wait([renewal])

        self._stack.push_async_callback(stop_renewal)

    async def _listen(self) -> None:
        if port := self._options.health_port:
            health = Health(self._count_resources, self._watch_lag_seconds, self._find_readiness)
            with _listening_on(port):
                self._stack.push_async_callback(await health.serve(port))
        if port := self._options.metrics_port:
            with _listening_on(port):
                self._stack.callback(metrics.serve(port, self._resources, self._find_callbacks))

    async def _retry(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """Try until the API server is there and has what is needed; say once what is missing."""
        while True:
            try:
                return await attempt()
            except KubernetesError as error:
                if str(error) != self._problem:
                    self._problem = str(error)
                    logger.warning("%s. Trying again every %s s.", error, _START_RETRY_SECONDS)
            await asyncio.sleep(_START_RETRY_SECONDS)

    def _resources(self) -> list[LifecycleHook]:
        return self._controller.cache.objects() if self._controller is not None else []

    def _find_callbacks(self) -> list[LifecycleCallback]:
        return self.callbacks.objects() if self._controller is not None else []

    def _count_resources(self) -> int:
        return len(self._controller) if self._controller is not None else 0

    def _watch_lag_seconds(self) -> float:
        if self._controller is None:
            return 0
        return max(self._controller.cache.lag.seconds(), self.callbacks.lag.seconds())

    async def _find_readiness(self) -> tuple[bool, str]:
        if problem := await self._probe.find_problem():
            return False, problem
        if self._is_standby:
            return True, "waiting for the lease"
        return (True, "ready") if self._controller is not None else (False, "starting")

    async def _probe_api_server(self) -> str:
        if self._kubernetes is None:
            return self._problem or "starting"
        return await self._kubernetes.find_problem(self._options.namespace)


@contextmanager
def _listening_on(port: int) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OSError(f"cannot listen on port {port}: {os.strerror(error.errno or 0)}") from error


def _read_own_credentials() -> Credentials | CredentialsError | None:
    """Return the operator's own credentials, or why they can't be used, which is no reason to fail those in Secrets."""
    try:
        return read_environment()
    except CredentialsError as error:
        logger.error("The operator's own credentials can't be used: %s", error)  # noqa: TRY400  (it says all there is to say)
        return error


async def _check_cluster(kubernetes: KubeClient, namespaces: Sequence[str]) -> None:
    """Raise KubernetesError if there is nothing to watch yet."""
    if not await kubernetes.is_crd_installed():
        raise KubernetesError(f"the CRDs of {GROUP} are not installed yet")
    await kubernetes.check_access(namespaces)


async def _close(grace_seconds: float, *workers: Controller | Callbacks | SuspensionWatch) -> None:
    """Let what all of them have in progress end within the same time."""
    await asyncio.gather(*(worker.close(grace_seconds) for worker in workers))


async def _exit_after(elector: "LeaderElector") -> None:
    """End the process as soon as it does not lead any more: another may lead already, and a crash does no harm."""
    try:
        await elector.renew()
    except Exception:
        logger.exception("Leader election failed")
    _exit(f"Lost lease {elector.lease}. This process ends, for another one may lead.")


def _exit(why: str) -> NoReturn:
    _log_last(logging.CRITICAL, why)
    logging.shutdown()
    os._exit(1)


def _log_last(level: int, message: str) -> None:
    """Log the last line, which a pod shows: nothing may follow, such as asyncio's about tasks that nobody awaited."""
    logger.log(level, "%s", message)
    logging.disable()


def _describe(error: BaseException) -> str:
    """Return in one line why kopf failed."""
    cause = error.__cause__  # kopf's own error may only say that a handler failed
    if cause is None or isinstance(cause, aiohttp.ClientError):
        cause = error
    text = cause.args[0] if cause.args else ""  # the other arguments are the body of the response
    line = f"{type(cause).__name__}: {' '.join(str(text).split())}"
    problem = PROBLEMS.get(getattr(cause, "status", 0))
    return f"{problem} ({line})" if problem else line


def _timing(options: Settings) -> Timing:
    return Timing(
        resync=options.resync_interval_seconds,
        backoff_min=options.backoff_min_seconds,
        backoff_max=options.backoff_max_seconds,
        slow_min=options.slow_retry_min_seconds,
        slow_max=options.slow_retry_max_seconds,
        settling=2 * options.cloud_timeout_seconds,
    )


def log_loop_error(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log an error that asyncio reports.

    In the end kopf leaves the generators of its watches behind, one within another, and asyncio closes all at once.
    """
    if "asyncgen" in context:
        logger.debug("%s: %s", context["message"], context["exception"])
    else:
        loop.default_exception_handler(context)


def _new_event_loop() -> asyncio.AbstractEventLoop:
    """Return the fastest event loop that is installed."""
    try:
        import uvloop  # noqa: PLC0415
    except ImportError:  # there is none for PyPy, and none for Windows
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


def run(options: Settings) -> int:
    """Run the operator until SIGTERM or SIGINT, and return its exit status; the log's last line says what ended it."""
    configure_logging(options.log_level, options.log_format)
    settings = " ".join(f"{name}={value}" for name, value in options.model_dump(mode="json").items())
    logger.info("Starting %s: %s", describe_versions(), settings)
    try:
        with asyncio.Runner(loop_factory=_new_event_loop) as runner:
            runner.run(Manager(options).run())
    except asyncio.CancelledError:
        pass
    except (KubernetesError, OSError) as error:
        _log_last(logging.CRITICAL, f"The operator cannot run: {error}")
        return 1
    except Exception as error:
        logger.exception("The operator failed")
        _log_last(logging.CRITICAL, f"The operator cannot run: {_describe(error)}")
        return 1
    _log_last(logging.INFO, "Stopped by a signal")
    return 0
