"""The newest version of each object, and who refers to what."""

import asyncio
from typing import Any

import pytest

from lifecyclehook_operator.api.v1alpha1 import LifecycleHook
from lifecyclehook_operator.controller.cache import Cache


def make(uid: str, name: str = "hook", version: int = 1, **spec: Any) -> LifecycleHook:
    metadata = {"uid": uid, "name": name, "namespace": "web", "generation": 1, "resourceVersion": str(version)}
    return LifecycleHook({"metadata": metadata, "spec": {"scalingGroupId": "g-1", **spec}})


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def cache() -> Cache:
    return Cache()


async def test_objects_are_found_by_hook_and_secret(cache: Cache) -> None:
    one = cache.update(make("a", credentialsRef={"secretName": "otc"}))
    other = cache.update(make("b", name="other", lifecycleHookName="hook"))
    cache.update(make("c", name="third"))
    assert cache.find_claimants(one) == [other]
    assert cache.users_of_secret("web", "otc") == ["a"]


async def test_who_is_being_deleted_and_does_not_wait_for_us_claims_nothing(cache: Cache) -> None:
    one, other = cache.update(make("a")), cache.update(make("b", name="other", lifecycleHookName="hook"))
    assert cache.find_claimants(one) == [other]
    metadata = {**other.metadata, "resourceVersion": "2", "deletionTimestamp": "2026-03-01T12:00:00Z"}
    cache.update(LifecycleHook({**other.body, "metadata": metadata}))
    assert cache.find_claimants(one) == []


async def test_what_an_object_no_longer_refers_to_is_forgotten(cache: Cache) -> None:
    cache.update(make("a", credentialsRef={"secretName": "otc"}))
    cache.update(make("a", version=2, credentialsRef={"secretName": "another"}))
    assert cache.users_of_secret("web", "otc") == []
    assert cache.users_of_secret("web", "another") == ["a"]
    cache.update(make("a", version=3))
    assert cache.users_of_secret("web", "another") == []


async def test_an_object_that_is_gone_is_forgotten(cache: Cache) -> None:
    cache.update(make("a"))
    cache.update(make("b", name="other"))
    cache.update(make("c", scalingGroupId="g-2"))
    assert cache.drop("a") == ["b"]
    assert cache.drop("never seen") == []
    assert cache.get("a") is None
    assert [obj.uid for obj in cache.objects()] == ["b", "c"]


async def test_an_older_version_never_replaces_a_newer_and_versions_are_numbers(cache: Cache) -> None:
    assert cache.update(make("a", version=9)).resource_version == 9
    assert cache.update(make("a", version=10)).resource_version == 10
    assert cache.update(make("a", version=9)).resource_version == 10


async def test_a_write_that_the_watch_does_not_show_is_known_for_how_long(
    cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    time = [1000.0]
    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: time[0])
    cache.update(make("a", version=1))
    cache.update(make("a", version=2), is_shown=False)
    time[0] += 60
    cache.update(make("a", version=3), is_shown=False)
    assert cache.lag.seconds() == 60
    cache.update(make("a", version=2))
    assert cache.lag.seconds() == 60
    cache.update(make("a", version=3))
    assert cache.lag.seconds() == 0


async def test_nothing_is_waited_for_where_nothing_was_written_or_the_object_is_gone(cache: Cache) -> None:
    cache.update(make("a", version=1))
    cache.update(make("a", version=1), is_shown=False)
    assert cache.lag._unseen == {}  # noqa: SLF001  (a lag of 0 seconds would look the same)
    cache.update(make("a", version=2), is_shown=False)
    cache.drop("a")
    assert cache.lag._unseen == {}  # noqa: SLF001
