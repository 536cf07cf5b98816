"""Who owns a hook that several objects claim."""

import logging
from collections.abc import Iterable

from lifecyclehook_operator.api.v1alpha1 import InvalidResourceError, LifecycleHook
from lifecyclehook_operator.cloud.client import AutoScalingClient
from lifecyclehook_operator.cloud.errors import CallError
from lifecyclehook_operator.controller.clients import ClientResolver

logger = logging.getLogger(__name__)


async def find_owner(
    obj: LifecycleHook, client: AutoScalingClient, claimants: Iterable[LifecycleHook], resolver: ClientResolver
) -> LifecycleHook | None:
    """Return the claimant that comes before an object as the owner of their hook, or None.

    Only who can reach the same project counts: nobody can bar others from a hook by naming it. Raises KubernetesError.
    """
    for claimant in sorted(claimants, key=lambda claimant: claimant.claim_order):
        if claimant.claim_order > obj.claim_order:
            return None
        try:
            project_id = claimant.status.project_id
            if not project_id:
                project_id = await (await resolver.resolve(claimant, claimant.spec())).get_project_id()
        except (CallError, InvalidResourceError) as error:
            logger.debug("%s: %s does not count as an owner: %s", obj, claimant, error)
            continue
        if project_id == await client.get_project_id():
            return claimant
    return None
