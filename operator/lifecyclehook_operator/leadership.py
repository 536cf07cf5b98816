"""One operator at work at a time: whoever holds a Lease (coordination.k8s.io/v1); the others stand by."""

import asyncio
import logging
import os
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp
from kubernetes.aio.client import ApiClient, V1Lease, V1ObjectMeta
from kubernetes.aio.client.exceptions import ApiException
from kubernetes.aio.leaderelection.electionconfig import Config
from kubernetes.aio.leaderelection.leaderelection import LeaderElection
from kubernetes.aio.leaderelection.resourcelock.leaselock import LeaseLock

from lifecyclehook_operator.errors import KubernetesError

logger = logging.getLogger(__name__)

LEASE = "lifecyclehook-operator"
#: After how long a leader that does not renew its lease is given up by the others, in seconds.
LEASE_SECONDS = 15
#: After how long without a renewal a leader gives itself up; less, so that two never lead.
_RENEWAL_LIMIT_SECONDS = 10
_RENEWAL_SECONDS = 2
_CALL_SECONDS = 4
_NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


class _Lock(LeaseLock):
    """A lease whose calls end soon, and where an API server that can't be reached is a failure like any other."""

    async def get(self, name: str, namespace: str) -> Any:  # noqa: ANN401
        try:
            async with asyncio.timeout(_CALL_SECONDS):
                return await super().get(name, namespace)
        except (aiohttp.ClientError, TimeoutError) as error:
            return False, ApiException(reason=str(error) or type(error).__name__)

    async def create(self, name: str, namespace: str, election_record: Any) -> bool:  # noqa: ANN401
        # The library's own passes an argument that its client refuses.
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


class Leadership:
    """The share of this process in who leads."""

    def __init__(self, namespace: str) -> None:
        """Take the namespace of the lease; empty: that of the pod. Raises KubernetesError outside one."""
        try:
            self._namespace = namespace or _NAMESPACE_FILE.read_text(encoding="utf-8").strip()
        except OSError as error:
            raise KubernetesError("outside a pod --leader-elect needs --lease-namespace") from error
        self._identity = f"{os.environ.get('HOSTNAME', LEASE)}_{uuid.uuid4()}"

    async def gain(self, api: ApiClient) -> None:
        """Wait until this process leads."""
        logger.info("Waiting for the lease %s/%s", self._namespace, LEASE)
        await self._election(api).acquire()
        logger.info("Leading, as %s", self._identity)

    async def keep(self, api: ApiClient) -> None:
        """Renew the lease for as long as that goes well, and return when it is lost."""
        election, clock = self._election(api), asyncio.get_running_loop()
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
        logger.critical("The lease %s/%s is lost", self._namespace, LEASE)

    def _is_led_by_another(self, election: LeaderElection) -> bool:
        record = election.observed_record
        return record is not None and record.holder_identity != self._identity

    def _election(self, api: ApiClient) -> LeaderElection:
        async def unused() -> None:
            """Stands where the library would begin and end the work itself."""

        lock = _Lock(LEASE, self._namespace, self._identity, api)
        return LeaderElection(Config(lock, LEASE_SECONDS, _RENEWAL_LIMIT_SECONDS, _RENEWAL_SECONDS, unused, unused))
