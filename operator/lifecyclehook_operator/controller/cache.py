"""The newest version of each object by UID, and indexes by hook, AS group and Secret."""

from collections import defaultdict
from collections.abc import Iterable

from lifecyclehook_operator.api.v1alpha1 import LifecycleHook
from lifecyclehook_operator.controller.timing import now

#: The type of what no watch has shown, but a regular check has found, in place of that of a watch event.
FOUND = "FOUND"
#: For so long at most a watch may be behind a list, in seconds.
WATCH_DELAY_SECONDS = 3


class WatchLag:
    """Which versions a write or a list has returned and the watch has not shown, and since when."""

    def __init__(self) -> None:
        self._unseen: dict[str, tuple[int, float]] = {}

    def on_known(self, uid: str, version: int) -> None:
        """Take note that a new version of an object is known, though the watch has not shown it."""
        _, since = self._unseen.get(uid, (0, now()))
        self._unseen[uid] = version, since

    def on_shown(self, uid: str, version: int) -> None:
        """Take note that the watch has shown a version of an object."""
        if version >= self._unseen.get(uid, (0, 0.0))[0]:
            self.drop(uid)

    def drop(self, uid: str) -> None:
        """Forget an object."""
        self._unseen.pop(uid, None)

    def seconds(self) -> float:
        """Return for how many seconds the watch has not shown a version that is known here; 0 if it has shown all."""
        return max((now() - since for _, since in self._unseen.values()), default=0.0)


class Cache:
    """The newest known versions: the watch may lag behind the responses to our own writes."""

    def __init__(self) -> None:
        self._objects: dict[str, LifecycleHook] = {}
        self._users: defaultdict[tuple[str, ...], dict[str, None]] = defaultdict(dict)
        self.lag = WatchLag()

    def __len__(self) -> int:
        return len(self._objects)

    def get(self, uid: str) -> LifecycleHook | None:
        """Return the newest version of an object, or None if it is not there."""
        return self._objects.get(uid)

    def objects(self) -> list[LifecycleHook]:
        """Return the newest version of every object."""
        return list(self._objects.values())

    def update(self, obj: LifecycleHook, *, is_shown: bool = True) -> LifecycleHook:
        """Keep a version of an object unless a newer one is known, and return the newest.

        Say whether the watch has shown it, or else a write of ours has returned it, or a list.
        """
        uid, version = obj.uid, obj.resource_version
        known = self._objects.get(uid)
        if known is not None and version <= known.resource_version:
            obj = known
        else:
            if known is None or _keys(known) != _keys(obj):
                self.drop(uid)
                for key in _keys(obj):
                    self._users[key][uid] = None
            self._objects[uid] = obj
        if is_shown:
            self.lag.on_shown(uid, version)
        elif obj is not known:
            self.lag.on_known(uid, version)
        return obj

    def drop(self, uid: str) -> list[str]:
        """Forget an object, and return the UIDs of the others of its AS group."""
        self.lag.drop(uid)
        others: list[str] = []
        if (obj := self._objects.pop(uid, None)) is None:
            return others
        for key in _keys(obj):
            del self._users[key][uid]
            if key[0] == "group":
                others = list(self._users[key])
            if not self._users[key]:
                del self._users[key]
        return others

    def find_claimants(self, obj: LifecycleHook) -> list[LifecycleHook]:
        """Return the other objects that claim the same hook, as they are now."""
        uids = self._users.get(("hook", *obj.hook_key), ())
        claimants = (self._objects[uid] for uid in uids if uid != obj.uid)
        return [claimant for claimant in claimants if not claimant.is_finalized]

    def find(self, namespace: str, name: str) -> LifecycleHook | None:
        """Return the newest version of the newest object of that name, or None if there is none."""
        found = (self._objects[uid] for uid in self._users.get(("name", namespace, name), ()))
        return max(found, key=lambda obj: obj.resource_version, default=None)

    def in_group(self, group_id: str) -> list[LifecycleHook]:
        """Return the objects whose hooks are in an AS group."""
        return [self._objects[uid] for uid in self._users.get(("group", group_id), ())]

    def users_of_secret(self, namespace: str, name: str) -> Iterable[str]:
        """Return the UIDs of the objects that refer to a Secret."""
        return list(self._users.get(("secret", namespace, name), ()))


def _keys(obj: LifecycleHook) -> list[tuple[str, ...]]:
    group_id, hook_name = obj.hook_key
    keys: list[tuple[str, ...]] = [
        ("hook", group_id, hook_name),
        ("group", group_id),
        ("name", obj.namespace, obj.name),
    ]
    return [*keys, ("secret", *obj.secret)] if obj.secret is not None else keys
