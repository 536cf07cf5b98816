"""Leader election by a Lease (coordination.k8s.io/v1): one of several replicas reconciles, the others stand by."""

import asyncio
import logging
import os
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp
from kubernetes.aio.client import ApiClient, CoordinationV1Api, V1Lease, V1LeaseSpec, V1ObjectMeta
from kubernetes.aio.client.exceptions import ApiException
from kubernetes.aio.leaderelection.electionconfig import Config
from kubernetes.aio.leaderelection.leaderelection import LeaderElection
from kubernetes.aio.leaderelection.resourcelock.leaselock import LeaseLock

from lifecyclehook_operator.kube.errors import KubernetesError

logger = logging.getLogger(__name__)

LEASE = "lifecyclehook-operator"
#: Time after which a leader that does not renew its Lease is replaced, in seconds.
LEASE_SECONDS = 15
#: Time without a renewal after which a leader stops; shorter than the above, so that there are never two leaders.
_RENEWAL_LIMIT_SECONDS = 10
_RENEWAL_SECONDS = 2
#: Interval at which a standby tries to acquire the Lease, in seconds.
_ACQUIRE_SECONDS = 1
_CALL_SECONDS = 4
_NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


class _Lock(LeaseLock):
    """A Lease whose calls have a timeout, and for which an unreachable API server is an ordinary failure."""

    async def get(self, name: str, namespace: str) -> Any:  # noqa: ANN401
        try:
            async with asyncio.timeout(_CALL_SECONDS):
                return await super().get(name, namespace)
        except (aiohttp.ClientError, TimeoutError) as error:
            return False, ApiException(reason=str(error) or type(error).__name__)

    async def create(self, name: str, namespace: str, election_record: Any) -> bool:  # noqa: ANN401
        # The library's method passes an argument that its client rejects.
        lease = V1Lease(metadata=V1ObjectMeta(name=name), spec=self.update_lease(election_record))
        try:
            async with asyncio.timeout(_CALL_SECONDS):
                await self.api_instance.create_namespaced_lease(namespace, lease)
        except (ApiException, aiohttp.ClientError, TimeoutError):
            return False
        return True

    async def update(self, name: str, namespace: str, updated_record: Any) -> bool:  # noqa: ANN401
        try:
            async with asyncio.timeout(_CALL_SECONDS):
                return await super().update(name, namespace, updated_record)
        except (aiohttp.ClientError, TimeoutError):
            return False


class LeaderElector:
    """Acquires, renews and releases the Lease for this process."""

    def __init__(self, api: ApiClient, namespace: str) -> None:
        """Take the namespace of the Lease (empty: the pod's). Raises KubernetesError if there is neither."""
        try:
            self._namespace = namespace or _NAMESPACE_FILE.read_text(encoding="utf-8").strip()
        except OSError as error:
            raise KubernetesError("--leader-elect requires --lease-namespace outside a pod") from error
        self._api = api
        self._identity = f"{os.environ.get('HOSTNAME', LEASE)}_{uuid.uuid4()}"
        self.lease = f"{self._namespace}/{LEASE}"

    async def acquire(self) -> None:
        """Return as soon as this process is the leader."""
        logger.info("Waiting to acquire lease %s", self.lease)
        await self._election(_ACQUIRE_SECONDS).acquire()
        logger.info("Acquired lease %s as %s", self.lease, self._identity)

    async def renew(self) -> None:
        """Renew the Lease, and return when it is lost. Until then, no other process is the leader."""
        election, clock = self._election(_RENEWAL_SECONDS), asyncio.get_running_loop()
        deadline = clock.time() + _RENEWAL_LIMIT_SECONDS
        with suppress(TimeoutError):
            while True:
                began_at = clock.time()
                async with asyncio.timeout_at(deadline):
                    is_renewed = await election.try_acquire_or_renew()
                if is_renewed:
                    deadline = began_at + _RENEWAL_LIMIT_SECONDS
                elif self._is_led_by_another(election):
                    break
                await asyncio.sleep(min(_RENEWAL_SECONDS, deadline - clock.time()))

    async def release(self) -> None:
        """Release the Lease, so that a standby need not wait for its expiry; a failure does no harm."""
        leases = CoordinationV1Api(self._api)
        try:
            async with asyncio.timeout(_CALL_SECONDS):
                lease = await leases.read_namespaced_lease(LEASE, self._namespace)
                if lease.spec is None or lease.spec.holder_identity != self._identity:
                    return
                # As client-go does: no holder, and the shortest duration. The resourceVersion keeps this from
                # overwriting another process's Lease.
                lease.spec = V1LeaseSpec(
                    holder_identity="", lease_duration_seconds=1, lease_transitions=lease.spec.lease_transitions
                )
                await leases.replace_namespaced_lease(LEASE, self._namespace, lease)
        except (ApiException, aiohttp.ClientError, TimeoutError) as error:
            logger.warning("Failed to release lease %s, which will expire: %s", self.lease, error)
        else:
            logger.info("Released lease %s", self.lease)

    def _is_led_by_another(self, election: LeaderElection) -> bool:
        record = election.observed_record
        return record is not None and record.holder_identity != self._identity

    def _election(self, retry_seconds: float) -> LeaderElection:
        async def unused() -> None:
            """Replaces the callbacks by which the library would start and stop the work."""

        lock = _Lock(LEASE, self._namespace, self._identity, self._api)
        return LeaderElection(Config(lock, LEASE_SECONDS, _RENEWAL_LIMIT_SECONDS, retry_seconds, unused, unused))
