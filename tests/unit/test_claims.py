"""Who refers to what."""

from typing import Any

from lifecyclehook_operator.claims import Claims
from lifecyclehook_operator.resource import LifecycleHook


def make(uid: str, name: str = "hook", **spec: Any) -> LifecycleHook:
    metadata = {"uid": uid, "name": name, "namespace": "web", "generation": 1, "resourceVersion": "1"}
    return LifecycleHook({"metadata": metadata, "spec": {"scalingGroupId": "g-1", **spec}})


def test_resources_are_found_by_hook_and_secret() -> None:
    claims = Claims()
    claims.note(make("a", credentialsRef={"secretName": "otc"}))
    claims.note(make("b", name="other", lifecycleHookName="hook"))
    claims.note(make("c", name="third"))
    assert set(claims.of_hook("g-1", "hook")) == {"a", "b"}
    assert claims.of_secret("web", "otc") == {"a": ("web", "hook")}


def test_what_a_resource_no_longer_refers_to_is_forgotten() -> None:
    claims = Claims()
    claims.note(make("a", credentialsRef={"secretName": "otc"}))
    claims.note(make("a", credentialsRef={"secretName": "another"}))
    assert claims.of_secret("web", "otc") == {}
    assert set(claims.of_secret("web", "another")) == {"a"}
    claims.note(make("a"))
    assert claims.of_secret("web", "another") == {}
    assert set(claims.of_hook("g-1", "hook")) == {"a"}


def test_a_resource_that_is_gone_is_forgotten() -> None:
    claims = Claims()
    claims.note(make("a"))
    claims.note(make("b", name="other"))
    claims.note(make("c", scalingGroupId="g-2"))
    assert claims.drop("a") == ["b"]
    assert claims.drop("never seen") == []
    assert claims.of_hook("g-1", "hook") == {}
    assert claims.uids() == {"b", "c"}


def test_what_is_found_may_be_gone_through_while_things_change() -> None:
    claims = Claims()
    for uid in "abc":
        claims.note(make(uid))
    for uid in claims.of_hook("g-1", "hook"):
        claims.drop(uid)
    assert claims.of_hook("g-1", "hook") == {}
