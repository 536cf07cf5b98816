"""Turns watch events into reconcile requests."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any, Protocol

from lifecyclehook_operator.api.v1alpha1 import LifecycleHook
from lifecyclehook_operator.controller.cache import FOUND, WATCH_DELAY_SECONDS, Cache
from lifecyclehook_operator.controller.claims import Claim
from lifecyclehook_operator.controller.reconciler import Reconciler
from lifecyclehook_operator.controller.state import ObjectState
from lifecyclehook_operator.controller.timing import NEVER, now
from lifecyclehook_operator.controller.workqueue import WorkQueue
from lifecyclehook_operator.fairness import FairLimit
from lifecyclehook_operator.kube.client import KubeClient, Listed
from lifecyclehook_operator.kube.errors import GoneError, KubernetesError, StaleError
from lifecyclehook_operator.kube.secrets import Key, Secret, SecretStore
from lifecyclehook_operator.metrics import RECONCILES


class Observer(Protocol):
    """Is notified of the newest version of every object."""

    def update(self, obj: LifecycleHook) -> None:
        """Take the newest version of an object."""

    def drop(self, uid: str) -> None:
        """Forget an object that is gone."""


logger = logging.getLogger(__name__)

_PAUSE_SECONDS = 3
#: How many objects are reconciled at a time: some are to be done before others are begun. A namespace has half of it.
_MAX_ACTIVE = 128
#: Up to so many times in a row a newer version of the object is just on its way.
_QUIET_RETRIES = 3


def asks_for_reconcile(before: LifecycleHook, after: LifecycleHook) -> bool:
    """Return whether a change of an object requires a reconcile, whoever made it.

    It does if the spec or one of the annotations for admins changed, if the object is being deleted, or if our
    finalizer or the status was removed.
    """
    has_lost_finalizer = not after.has_finalizer and (
        before.has_finalizer or (before.status.lifecycle_hook is None and after.status.lifecycle_hook is not None)
    )
    has_lost_status = before.status.observed_generation is not None and after.status.observed_generation is None
    return before.trigger != after.trigger or has_lost_finalizer or has_lost_status


class Controller:
    """The objects, the queue of those to reconcile, and the Secrets that they need."""

    def __init__(
        self, kubernetes: KubeClient, namespaces: Sequence[str], *, cleanup_seconds: float, check_seconds: float
    ) -> None:
        """
        Args:
            kubernetes: reads what no watch shows.
            namespaces: the namespaces to serve; none means all.
            cleanup_seconds: interval of retrying failed clean-ups, and of garbage collection after a gap in a watch.
            check_seconds: interval of comparing what is known with what there is, without a known gap.
        """
        self.cache = Cache()
        self.secrets = SecretStore(kubernetes)
        self._kubernetes = kubernetes
        self._namespaces = namespaces or ("",)
        self._cleanup_seconds = cleanup_seconds
        self._check_seconds = check_seconds
        self._checked_at = now()
        self._states: dict[str, ObjectState] = {}
        self._retried: set[str] = set()
        #: Objects that are gone, and whose hook is still to be deleted.
        self._gone: set[str] = set()
        #: Those that were gone since the last check began.
        self._forgotten: set[str] = set()
        self._limit = FairLimit(_MAX_ACTIVE)
        self._queue = WorkQueue(self._process, self._turn)
        self._is_relisted = True  # what `begin` lists may be gone before the watch begins
        self._tasks: list[asyncio.Task[None]] = []
        self.observers: list[Observer] = []
        #: What else compares what is known with what there is in these namespaces. Each may raise KubernetesError.
        self.checks: list[Callable[[Sequence[str]], Awaitable[None]]] = []
        #: What starts as soon as all objects are known.
        self.starts: list[Callable[[], None]] = [self._queue.start]

    def __len__(self) -> int:
        return len(self._states)

    @property
    def is_complete(self) -> bool:
        """Whether all objects are known: a watch does not tell when it has shown what there was at its start."""
        return self._queue.is_started

    def begin(self, reconciler: Reconciler) -> None:
        """Start the background tasks; the first lists all objects, and only then anything is reconciled."""
        self._reconciler = reconciler
        rounds: list[Callable[[], Awaitable[None]]] = [self._collect_garbage]
        rounds += [partial(self._watch_for_missing_secrets, namespace) for namespace in self._namespaces]
        self._tasks = [asyncio.create_task(self._repeat(self._list_all, lambda: self.is_complete))]
        self._tasks += [asyncio.create_task(self._repeat(round_)) for round_ in rounds]

    async def close(self, grace_seconds: float) -> None:
        """Start no further reconcile, and give those in progress this many seconds to finish."""
        for task in self._tasks:
            task.cancel()
        await self._queue.close(grace_seconds)

    def is_news(self, metadata: Mapping[str, Any], event_type: str | None) -> bool:
        """Take note that the watch has shown an object, and return whether `on_hook` has to handle that.

        Most is known already: a write of ours has returned it, or the list of the start. What a list shows has no event
        type, and tells of a gap in the watch.
        """
        self._is_relisted |= event_type is None
        uid, version = metadata["uid"], int(metadata["resourceVersion"])
        known = self.cache.get(uid)
        if event_type == "DELETED" or known is None or version > known.resource_version or uid not in self._states:
            return True
        self.cache.lag.on_shown(uid, version)
        return False

    async def on_hook(self, obj: LifecycleHook, event_type: str | None) -> None:
        """Handle an event of an object that `is_news`; an object from a list has no event type."""
        if event_type == "DELETED" or obj.is_finalized:
            self._on_gone(obj)
        else:
            before = self.cache.get(obj.uid)
            after = self._take(obj, is_shown=event_type != FOUND)
            if before is not None and before.secret not in (None, after.secret):
                self.secrets.doubt(before.secret)
            if obj.uid not in self._states:
                self._states[obj.uid], due_at = self._reconciler.begin(after)
                self._queue.add_at(obj.uid, due_at)
            if before is not None and asks_for_reconcile(before, after):
                self._request(obj.uid)
        await self._release_unused_secrets(obj.namespace)

    def _take(self, obj: LifecycleHook, *, is_shown: bool) -> LifecycleHook:
        """Keep a version of an object, tell the observers which is the newest, and return that."""
        newest = self.cache.update(obj, is_shown=is_shown)
        for observer in self.observers:
            observer.update(newest)
        return newest

    def retry_group(self, group_id: str) -> None:
        """Reconcile those of an AS group's hooks at once that wait after a failure: the group may be free."""
        self._retry(obj.uid for obj in self.cache.in_group(group_id))

    def _on_gone(self, obj: LifecycleHook) -> None:
        """Forget an object that is gone; if its finalizer did not hold the deletion back, after a clean-up."""
        before = self.cache.get(obj.uid)
        if before is None or (obj.is_deleting and before.is_deleting and before.has_finalizer):
            self._forget(obj.uid)
        else:
            self._add_clean_up(obj, self._states.get(obj.uid) or self._reconciler.begin(obj)[0])

    def _add_clean_up(self, obj: LifecycleHook, state: ObjectState) -> None:
        if obj.uid not in self._gone:
            self._gone.add(obj.uid)
            for observer in self.observers:
                observer.drop(obj.uid)
            self._states[obj.uid] = state
            self.cache.update(obj)
            self._queue.add(obj.uid)

    async def on_secret(self, key: Key, secret: Secret | None, event_type: str | None) -> None:
        """Handle a watch event of a Secret with our label; None if it is gone or has lost the label.

        A change is taken up at once, one that is not protected any more though it is needed is protected again, and one
        that nothing needs any more is released. Raises KubernetesError.
        """
        self._is_relisted |= event_type is None
        users = self.cache.users_of_secret(*key)
        was_being_deleted = self.secrets.is_being_deleted(key)
        if self.secrets.update(key, secret):
            self._retry(users)
        if key not in self.secrets.protected() and users:
            try:
                await self.secrets.get(key, protect=True)
            except KubernetesError as error:  # a reconcile protects it, too, and is tried again
                logger.warning("Failed to protect Secret %s/%s: %s", *key, error)
                for uid in users:
                    self._queue.add(uid)
        if self.secrets.is_being_deleted(key) != was_being_deleted:
            for uid in users:
                self._queue.add(uid)
        await self._release_unused_secrets(key[0])

    async def _process(self, uid: str, due_at: float) -> None:
        """Reconcile an object: the work queue's worker."""
        obj, state = self.cache.get(uid), self._states.get(uid)
        if obj is None or state is None:
            return
        self._retried.discard(uid)
        try:
            if uid in self._gone:
                await self._clean_up(obj, state)
                return
            result, requeue_at = await self._reconciler.reconcile(obj, state, due_at)
        except GoneError:  # what it was doing may have taken effect
            self._add_clean_up(obj, state)
        except KubernetesError as error:
            RECONCILES.labels("kubernetes_error").inc()
            level = self._requeue(uid)
            logger.log(level if isinstance(error, StaleError) else logging.WARNING, "%s: %s", obj.label, error)
        except Exception:  # a fault of ours: one object's must not stop the others
            RECONCILES.labels("internal_error").inc()
            self._requeue(uid)
            logger.exception("%s: Reconcile failed", obj.label)
        else:
            self._queue.done(uid)
            if uid not in self._states:  # gone meanwhile
                return
            self._queue.add_at(uid, requeue_at)
            if asks_for_reconcile(obj, self._take(result, is_shown=False)):
                self._request(uid)
            elif uid in self._retried and state.failures:
                self._queue.add(uid)

    def _turn(self, uid: str) -> AbstractAsyncContextManager[None]:
        obj = self.cache.get(uid)
        return self._limit.turn(obj.namespace if obj is not None else "")

    def find_claims(self, obj: LifecycleHook) -> list[Claim]:
        """Return the claims of other objects on the hook that an object is for."""
        others = self.cache.find_claimants(obj)
        return [Claim(other, self._states.get(other.uid)) for other in others if other.uid not in self._gone]

    async def _clean_up(self, obj: LifecycleHook, state: ObjectState) -> None:
        async for found in self._kubernetes.list_hooks(obj.namespace, obj.name):
            if found.uid == obj.uid and not found.is_finalized:  # a 404 may be the CRD's
                self._gone.discard(obj.uid)
                self._queue.add(obj.uid)
                return
            if found.uid != obj.uid:
                self.cache.update(found, is_shown=False)  # a successor, which claims the hook
        requeue_at = await self._reconciler.clean_up(obj, state)
        self._queue.done(obj.uid)
        if requeue_at == NEVER:
            self._forget(obj.uid)
        else:
            self._queue.add_at(obj.uid, requeue_at)

    def _requeue(self, uid: str) -> int:
        """Reconcile an object again after a failure, and return how much it is worth a line in the log."""
        is_there = uid in self._states
        retries = self._queue.add_rate_limited(uid) if is_there else 0
        return logging.DEBUG if retries <= _QUIET_RETRIES else logging.WARNING

    def _request(self, uid: str) -> None:
        self._states[uid].failures = 0
        self._queue.add(uid)

    def _retry(self, uids: Iterable[str]) -> None:
        """Reconcile those of these objects at once that wait after a failure: what they need may be there."""
        for uid in uids:
            if self._queue.is_active(uid):
                self._retried.add(uid)  # it may be failing just now
            elif (state := self._states.get(uid)) is not None and state.failures:
                state.report = None
                self._queue.add(uid)

    def _forget(self, uid: str) -> None:
        if (obj := self.cache.get(uid)) is not None and obj.secret is not None:
            self.secrets.doubt(obj.secret)
        self._queue.cancel(uid)
        self._states.pop(uid, None)
        self._retried.discard(uid)
        self._gone.discard(uid)
        self._forgotten.add(uid)
        for observer in self.observers:
            observer.drop(uid)
        self._retry(self.cache.drop(uid))  # a place, or a name, is free

    async def _release_unused_secrets(self, namespace: str | None = None) -> None:
        if not self.is_complete:
            return  # what uses a Secret may not be known yet
        for key in self.secrets.perhaps_protected():
            if key[0] == (namespace or key[0]) and not self.cache.users_of_secret(*key):
                try:
                    await self.secrets.unprotect(key)
                except KubernetesError as error:
                    logger.warning("Failed to remove the finalizer from unused Secret %s/%s: %s", *key, error)

    async def _repeat(self, round_: Callable[[], Awaitable[None]], is_over: Callable[[], bool] = lambda: False) -> None:
        while not is_over():
            try:
                await round_()
            except KubernetesError as error:
                logger.warning("%s", error)
            except Exception:  # a fault of ours: the next round may go well
                logger.exception("Background task failed")
            await asyncio.sleep(_PAUSE_SECONDS)

    async def _list_all(self) -> None:
        """List all objects while the watch begins: their claims have to be known before the first reconcile."""
        for namespace in self._namespaces:
            await self._take_listed(namespace)
        for start in self.starts:
            start()
        await self._release_unused_secrets()

    async def _collect_garbage(self) -> None:
        """Retry failed clean-ups, and find what a gap in a watch has hidden."""
        await asyncio.sleep(self._cleanup_seconds)
        await self._release_unused_secrets()
        if self.is_complete and (self._is_relisted or now() - self._checked_at > self._check_seconds):
            await self._check()

    async def _check(self) -> None:
        """Compare what is known with what there is: a watch does not tell what went in a gap, and may be silent."""
        self._is_relisted, self._checked_at = False, now()
        self._forgotten.clear()
        known = self.cache.objects()
        try:
            there = [each for namespace in self._namespaces async for each in self._kubernetes.list_versions(namespace)]
            uids = {each.uid for each in there}
            for obj in known:
                if obj.uid not in uids:
                    self._on_gone(obj)
            await asyncio.sleep(WATCH_DELAY_SECONDS)
            await self._take_unseen([each for each in there if self._is_unseen(each)])
            await self._check_secrets()
            for check in self.checks:
                await check(self._namespaces)
        except KubernetesError:
            self._is_relisted = True
            raise

    def _is_unseen(self, listed: Listed) -> bool:
        known = self.cache.get(listed.uid)
        if known is None or listed.uid not in self._states:
            return not listed.is_finalized and listed.uid not in self._forgotten
        return known.resource_version < listed.resource_version

    async def _take_unseen(self, unseen: Sequence[Listed]) -> None:
        """Take what the watch has not shown of objects as if it had."""
        if unseen:
            example = f"{unseen[0].namespace}/{unseen[0].name}"
            logger.warning("The watch has not shown what has become of %s objects, such as %s", len(unseen), example)
        for listed in unseen:
            await self._take_listed(listed.namespace, listed.name)

    async def _take_listed(self, namespace: str, name: str = "") -> None:
        async for obj in self._kubernetes.list_hooks(namespace, name):
            if obj.uid not in self._forgotten:
                await self.on_hook(obj, FOUND)

    async def _check_secrets(self) -> None:
        versions: dict[Key, int | None] = dict.fromkeys(self.secrets.protected())
        for namespace in self._namespaces:
            async for listed in self._kubernetes.list_secret_versions(namespace):
                versions[listed.namespace, listed.name] = listed.resource_version
        for key, version in versions.items():
            if version != self.secrets.version(key):
                await self.on_secret(key, await self._kubernetes.read_secret(*key), FOUND)

    async def _watch_for_missing_secrets(self, namespace: str) -> None:
        """Retry at once what waits for a Secret that appears; watch only while one is missing."""
        await self.secrets.is_any_missing.wait()
        missing = [key for key in self.secrets.missing() if namespace in ("", key[0])]
        for key in missing:
            if not self.cache.users_of_secret(*key):
                self.secrets.forget_missing(key)
        if not missing:
            return
        since = await self._kubernetes.find_secrets_version(namespace)
        for key in missing:
            self._retry(self.cache.users_of_secret(*key))  # it may have appeared before that
        async for key in self._kubernetes.watch_secret_names(namespace, since):
            if key in self.secrets.missing():
                self._retry(self.cache.users_of_secret(*key))
