"""What there is in Kubernetes, as far as we have been told, and who gets a pass when that changes."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

from lifecyclehook_operator.access import Key, SecretStore
from lifecyclehook_operator.claims import Claims
from lifecyclehook_operator.credentials import Secret
from lifecyclehook_operator.errors import KubernetesError
from lifecyclehook_operator.kubeclient import KubeClient
from lifecyclehook_operator.resource import LifecycleHook
from lifecyclehook_operator.schedule import Reconcile, Schedule

logger = logging.getLogger(__name__)

_PAUSE_SECONDS = 3


class Inventory:
    """The resources, what they refer to, and the Secrets that they need."""

    def __init__(
        self, kubernetes: KubeClient, namespaces: Sequence[str], *, tidy_seconds: float, check_seconds: float
    ) -> None:
        """
        Args:
            kubernetes: whom to ask for what nobody tells.
            namespaces: which ones are served; none: all.
            tidy_seconds: how often to make good what failed, or was perhaps not told.
            check_seconds: how often to do so where nothing hints at it.
        """
        self.secrets = SecretStore(kubernetes)
        self._kubernetes = kubernetes
        self._namespaces = namespaces or ("",)
        self._tidy_seconds = tidy_seconds
        self._check_seconds = check_seconds
        self._checked_at = time.monotonic()
        self._claims = Claims()
        self._is_relisted = False
        self._tasks: list[asyncio.Task[None]] = []

    async def begin(self, reconcile: Reconcile) -> None:
        """Find out who claims what, which has to be known before the first pass, then make passes as we are told.

        Raises KubernetesError.
        """
        for namespace in self._namespaces:
            async for resource in self._kubernetes.list_hooks(namespace):
                if not resource.is_released:
                    self._claims.note(resource)
        self.schedule = Schedule(reconcile)
        rounds: list[Callable[[], Awaitable[None]]] = [self._tidy]
        rounds += [partial(self._watch_for_missing_secrets, namespace) for namespace in self._namespaces]
        self._tasks = [asyncio.create_task(self._repeat(round_)) for round_ in rounds]

    async def close(self, grace_seconds: float) -> None:
        """Begin no further pass, and give those at work so long to end."""
        for task in self._tasks:
            task.cancel()
        await self.schedule.close(grace_seconds)

    async def find_rivals(self, resource: LifecycleHook) -> list[LifecycleHook]:
        """Return the other resources that claim the same hook, as they are now. Raises KubernetesError."""
        rivals = []
        for uid, (namespace, name) in self._claims.of_hook(*resource.claimed_hook).items():
            rival = self.schedule.newest(uid)
            if rival is None:  # not told of yet, right after the start; or gone before it could be
                found = [found async for found in self._kubernetes.list_hooks(namespace, name) if found.uid == uid]
                rival = found[0] if found else None
            if rival is None:
                self._claims.drop(uid)
            elif uid != resource.uid and not rival.is_released:
                rivals.append(rival)
        return rivals

    async def notice_hook(self, resource: LifecycleHook, event_type: str | None) -> None:
        """Take note of what a watch tells of a resource; what comes from a list has no type."""
        self._is_relisted |= event_type is None
        if event_type == "DELETED" or resource.is_released:
            self._forget(resource.uid)
        else:
            self._claims.note(resource)
            self.schedule.notice(resource)
        await self._release_unused_secrets(resource.namespace)

    async def notice_secret(self, key: Key, secret: Secret | None, event_type: str | None) -> None:
        """Take note of what a watch tells of a Secret with our label, None if it is gone or has lost the label.

        A change is taken up at once, one that is not held any more though it is needed is held again, and one that
        nothing needs any more is let go. Raises KubernetesError.
        """
        self._is_relisted |= event_type is None
        was_being_deleted = self.secrets.is_being_deleted(key)
        if self.secrets.notice(key, secret):
            self._retry_users(key)
        if key not in self.secrets.held() and self._claims.of_secret(*key):
            await self.secrets.get(key, hold=True)
        if self.secrets.is_being_deleted(key) != was_being_deleted:
            self.schedule.wake(self._claims.of_secret(*key))
        await self._release_unused_secrets(key[0])

    def _forget(self, uid: str) -> None:
        self.schedule.forget(uid)
        self.schedule.retry(self._claims.drop(uid))  # a place, or a name, is free

    def _retry_users(self, key: Key) -> None:
        self.schedule.retry(self._claims.of_secret(*key))

    async def _release_unused_secrets(self, namespace: str | None = None) -> None:
        for key in self.secrets.held():
            if key[0] == (namespace or key[0]) and not self._claims.of_secret(*key):
                try:
                    await self.secrets.release(key)
                except KubernetesError as error:
                    logger.warning("Secret %s/%s is held although nothing needs it: %s", *key, error)

    async def _repeat(self, round_: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                await round_()
            except KubernetesError as error:
                logger.warning("%s", error)
            except Exception:  # a fault of ours: the next round may go well
                logger.exception("What goes on in the background has failed")
            await asyncio.sleep(_PAUSE_SECONDS)

    async def _tidy(self) -> None:
        """Make good what failed when it was due, and what a watch that was broken off has not told."""
        await asyncio.sleep(self._tidy_seconds)
        await self._release_unused_secrets()
        if self._is_relisted or time.monotonic() - self._checked_at > self._check_seconds:
            await self._forget_what_is_gone()

    async def _forget_what_is_gone(self) -> None:
        """Look whether all that is known is there: after a gap kopf lists anew, and does not tell what is missing."""
        self._is_relisted, self._checked_at = False, time.monotonic()
        known = self._claims.uids()
        try:
            there = {uid for namespace in self._namespaces async for uid in self._kubernetes.list_uids(namespace)}
            for uid in known - there:
                self._forget(uid)
            for key in self.secrets.held():
                await self.notice_secret(key, await self._kubernetes.read_secret(*key), "CHECKED")
        except KubernetesError:
            self._is_relisted = True
            raise

    async def _watch_for_missing_secrets(self, namespace: str) -> None:
        """Retry at once what waits for a Secret that appears; watch only while one is missing."""
        await self.secrets.is_any_missing.wait()
        missing = [key for key in self.secrets.missing() if namespace in ("", key[0])]
        for key in missing:
            if not self._claims.of_secret(*key):
                self.secrets.forget_missing(key)
        if not missing:
            return
        since = await self._kubernetes.find_secrets_version(namespace)
        for key in missing:
            self._retry_users(key)  # it may have appeared before that
        async for key in self._kubernetes.watch_secret_names(namespace, since):
            if key in self.secrets.missing():
                self._retry_users(key)
