"""Who owns a hook that several objects claim."""

import logging
from collections.abc import Iterable

from lifecyclehook_operator.access import Access
from lifecyclehook_operator.autoscaling import Project
from lifecyclehook_operator.errors import CallError
from lifecyclehook_operator.resource import InvalidResourceError, LifecycleHook

logger = logging.getLogger(__name__)


async def find_owner(
    obj: LifecycleHook, client: Project, claimants: Iterable[LifecycleHook], access: Access
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
                project_id = await (await access.find_project(claimant, claimant.spec())).get_id()
        except (CallError, InvalidResourceError) as error:
            logger.debug("%s: %s does not count as an owner: %s", obj, claimant, error)
            continue
        if project_id == await client.get_id():
            return claimant
    return None
