"""Somebody else's client (huaweicloudsdkas), which signs its requests, can work with suspended instances."""

from datetime import UTC, datetime, timedelta

import pytest
from huaweicloudsdkas.v1 import (
    AsClient,
    AttachCallbackInstanceLifeCycleHookRequest,
    CallbackLifeCycleHookOption,
    DeleteLifecycleHookRequest,
    ListHookInstancesRequest,
)
from huaweicloudsdkcore.auth.credentials import BasicCredentials
from huaweicloudsdkcore.exceptions.exceptions import ClientRequestException

from tests.support.simulator import Simulator

GROUP, HOOK, INSTANCE = "group-of-sdk", "drain", "b25c1589-c96c-465b-9fef-d06540d1945c"


class Client:
    """The client, with an access key of the default user's."""

    def __init__(self, simulator: Simulator) -> None:
        access, secret = simulator.add_access_key()
        credentials = BasicCredentials(access, secret, simulator.project_id)
        self._as = AsClient.new_builder().with_credentials(credentials).with_endpoint(simulator.url).build()

    def list(self, instance_id: str | None = None) -> list[dict[str, str]]:
        request = ListHookInstancesRequest(scaling_group_id=GROUP, instance_id=instance_id)
        return [info.to_dict() for info in self._as.list_hook_instances(request).instance_hanging_info]

    def call_back(self, result: str, **whom: str) -> int:
        option = CallbackLifeCycleHookOption(lifecycle_action_result=result, **whom)
        request = AttachCallbackInstanceLifeCycleHookRequest(scaling_group_id=GROUP, body=option)
        return int(self._as.attach_callback_instance_life_cycle_hook(request).status_code)

    def delete_hook(self) -> int:
        request = DeleteLifecycleHookRequest(scaling_group_id=GROUP, lifecycle_hook_name=HOOK)
        return int(self._as.delete_lifecycle_hook(request).status_code)


@pytest.fixture
def client(simulator: Simulator) -> Client:
    simulator.add_group(GROUP)
    simulator.put_hook(GROUP, HOOK, lifecycle_hook_type="INSTANCE_TERMINATING", notification_topic_urn="urn:smn:r:p:t")
    return Client(simulator)


@pytest.fixture
def key(simulator: Simulator, client: Client) -> str:
    return simulator.add_hanging_instance(GROUP, HOOK, INSTANCE)


def parse(moment: str) -> datetime:
    return datetime.strptime(moment, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)


def test_it_lists_what_hangs(client: Client, key: str, simulator: Simulator) -> None:
    simulator.add_hanging_instance(GROUP, HOOK, "another")
    assert len(client.list()) == 2
    (info,) = client.list(INSTANCE)
    left = parse(info.pop("timeout")) - datetime.now(UTC)
    assert timedelta(minutes=59) < left <= timedelta(hours=1)
    assert info == {
        "lifecycle_hook_name": HOOK,
        "lifecycle_action_key": key,
        "instance_id": INSTANCE,
        "scaling_group_id": GROUP,
        "lifecycle_hook_status": "HANGING",
        "default_result": "ABANDON",
    }


@pytest.mark.parametrize("result", ["CONTINUE", "ABANDON"])
def test_it_lets_an_instance_go_by_its_key_or_by_its_hook(client: Client, key: str, result: str) -> None:
    whom = {"lifecycle_action_key": key} if result == "CONTINUE" else {"instance_id": INSTANCE}
    assert client.call_back(result, lifecycle_hook_name=HOOK, **whom) == 204
    assert [info["lifecycle_hook_status"] for info in client.list()] == [result]


def test_it_extends_by_an_hour(client: Client, key: str) -> None:
    (before,) = client.list()
    assert client.call_back("EXTEND", lifecycle_action_key=key) == 204
    (after,) = client.list()
    assert parse(after["timeout"]) - parse(before["timeout"]) == timedelta(hours=1)
    assert after["lifecycle_hook_status"] == "HANGING"


def test_it_is_told_that_nothing_hangs_any_more(client: Client, key: str) -> None:
    client.call_back("CONTINUE", lifecycle_action_key=key)
    with pytest.raises(ClientRequestException) as refused:
        client.call_back("CONTINUE", lifecycle_action_key=key)
    assert (refused.value.status_code, refused.value.error_code) == (400, "AS.7042")


def test_it_is_told_that_a_group_with_a_suspended_instance_is_busy(client: Client, key: str) -> None:
    with pytest.raises(ClientRequestException) as refused:
        client.delete_hook()
    assert (refused.value.status_code, refused.value.error_code) == (400, "AS.2020")
    client.call_back("CONTINUE", lifecycle_action_key=key)
    assert client.delete_hook() == 204
