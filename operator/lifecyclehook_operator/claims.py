"""Which resources refer to a hook, to an AS group and to a Secret."""

from collections import defaultdict
from collections.abc import Mapping
from typing import NamedTuple

from lifecyclehook_operator.resource import LifecycleHook


class Reference(NamedTuple):
    """Where a resource is."""

    namespace: str
    name: str


class Claims:
    """An index of resources by what they refer to; each is kept as its UID and where it is."""

    def __init__(self) -> None:
        self._keys: dict[str, set[tuple[str, ...]]] = {}
        self._claimants: defaultdict[tuple[str, ...], dict[str, Reference]] = defaultdict(dict)

    def note(self, resource: LifecycleHook) -> None:
        """Take note of what a resource refers to now."""
        group_id, hook_name = resource.claimed_hook
        keys = {("hook", group_id, hook_name), ("group", group_id)}
        if resource.secret is not None:
            keys.add(("secret", *resource.secret))
        if keys == self._keys.get(resource.uid):
            return
        self.drop(resource.uid)
        self._keys[resource.uid] = keys
        for key in keys:
            self._claimants[key][resource.uid] = Reference(resource.namespace, resource.name)

    def drop(self, uid: str) -> list[str]:
        """Take note that a resource is gone, and return who else claims a hook of its AS group."""
        others: list[str] = []
        for key in self._keys.pop(uid, ()):
            del self._claimants[key][uid]
            if key[0] == "group":
                others = list(self._claimants[key])
            if not self._claimants[key]:
                del self._claimants[key]
        return others

    def uids(self) -> set[str]:
        """Return the UIDs of all resources."""
        return set(self._keys)

    def of_hook(self, group_id: str, hook_name: str) -> Mapping[str, Reference]:
        """Return who claims a hook, by UID."""
        return dict(self._claimants.get(("hook", group_id, hook_name), {}))

    def of_secret(self, namespace: str, name: str) -> Mapping[str, Reference]:
        """Return who refers to a Secret, by UID."""
        return dict(self._claimants.get(("secret", namespace, name), {}))
