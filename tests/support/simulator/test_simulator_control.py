"""The control API: changes behind a client's back, and the log of what clients did."""

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import pytest

from tests.support.simulator import Simulator
from tests.support.simulator.caller import Caller


def test_hooks_are_put_changed_and_deleted_out_of_band(caller: Caller) -> None:
    caller.simulator.set_busy(caller.group)
    put = caller.simulator.put_hook(
        caller.group, "aside", lifecycle_hook_type="INSTANCE_TERMINATING", notification_topic_urn="urn:smn:r:p:gone"
    )
    assert caller.get("aside").json() == put
    assert put["notification_topic_name"] == "gone"
    changed = caller.simulator.update_hook(caller.group, "aside", default_timeout=61, notification_metadata="x")
    assert changed == put | {"default_timeout": 61, "notification_metadata": "x"}
    assert caller.list().json() == {"lifecycle_hooks": [changed]}
    assert caller.simulator.hooks(caller.group) == [changed]
    caller.simulator.delete_hook(caller.group, "aside")
    assert caller.get("aside").status_code == 404


def test_what_does_not_exist_cannot_be_changed(caller: Caller) -> None:
    for change in (
        lambda: caller.simulator.set_busy("nowhere"),
        lambda: caller.simulator.hooks("nowhere"),
        lambda: caller.simulator.delete_hook(caller.group, "nothing"),
        lambda: caller.simulator.update_hook(caller.group, "nothing", default_timeout=60),
        lambda: caller.simulator.add_hanging_instance(caller.group, "nothing", "instance"),
        lambda: caller.simulator.delete_hanging_instance(caller.group, "no key"),
        lambda: caller.simulator.put_hook(caller.group, "bad", no_such_field=1),
        lambda: caller.simulator.release(99),
    ):
        with pytest.raises(ValueError, match="the simulator refused"):
            change()


def test_a_topic_is_given_by_its_name_or_by_its_urn(simulator: Simulator) -> None:
    assert simulator.add_topic("gsh") == f"urn:smn:eu-de:{simulator.project_id}:gsh"
    assert simulator.add_topic("urn:smn:eu-nl:p:gsh") == "urn:smn:eu-nl:p:gsh"


def test_the_log_can_be_cleared_up_to_a_request(caller: Caller) -> None:
    caller.simulator.clear_requests()
    for _ in range(3):
        caller.list()
    first, second, third = caller.simulator.requests()
    caller.simulator.clear_requests(until=second.sequence)
    assert caller.simulator.requests() == [third]
    caller.simulator.clear_requests(until=first.sequence)
    assert caller.simulator.requests() == [third]


def test_only_a_hook_that_is_there_suspends_an_instance(caller: Caller) -> None:
    with pytest.raises(ValueError, match="no such hook"):
        caller.simulator.add_hanging_instance(caller.group, "absent", "i-1")


def test_the_log_tells_what_came_and_what_became_of_it(caller: Caller) -> None:
    caller.simulator.clear_requests()
    caller.create(default_timeout=60)
    answer = caller.create(default_timeout=61)
    caller.list_hanging(instance_id="i-1")
    first, second, third = caller.simulator.requests()
    assert first.sequence < second.sequence < third.sequence
    assert first.received_at < (first.answered_at or 0) < second.received_at
    assert (first.method, first.path) == (
        "POST",
        f"/autoscaling-api/v1/{caller.simulator.project_id}/scaling_lifecycle_hook/{caller.group}",
    )
    assert first.body == caller.hook(default_timeout=60)
    assert (first.operation, first.group_id, first.hook_name) == ("create", caller.group, "test-hook1")
    assert (first.auth, first.status, first.code) == ("token", 200, None)
    assert (second.status, second.code) == (400, "AS.7041")
    assert second.request_id == answer.headers["X-Request-Id"]
    assert (third.operation, third.query, third.body) == ("list_hanging", {"instance_id": "i-1"}, None)


def test_the_log_is_searched_and_waited_for(caller: Caller) -> None:
    caller.create()
    caller.list()
    (seen,) = caller.simulator.wait_for_request("list", caller.group, timeout=0)
    assert caller.simulator.requests("create", caller.group, hook_name="test-hook1", state="answered")
    assert not caller.simulator.requests("create", "elsewhere")
    assert not caller.simulator.requests("list", after=seen.sequence)
    with pytest.raises(TimeoutError, match="1 of 2 requests"):
        caller.simulator.wait_for_request("list", count=2, timeout=0.05)
    with pytest.raises(ValueError, match="the simulator refused"):
        caller.simulator.requests("list", no_such_filter="x")


def test_no_secret_gets_into_the_log(caller: Caller) -> None:
    secrets = [caller.simulator.credentials_env()["OS_PASSWORD"], caller.http.headers["X-Auth-Token"]]
    caller.create()
    secrets.append(caller.simulator.add_hanging_instance(caller.group, "test-hook1", "instance-1"))
    caller.call_back(lifecycle_action_result="CONTINUE", lifecycle_action_key=secrets[-1])
    url = f"{caller.simulator.auth_url}/auth/tokens"
    by_token = {"auth": {"identity": {"methods": ["token"], "token": {"id": secrets[1]}}}}
    assert caller.http.post(url, json=by_token).status_code == 401
    assert caller.http.post(url, content=f'{{"password": "{secrets[0]}"').status_code == 400
    secrets.append("made-up-signature")
    headers = {"X-Auth-Token": "", "Authorization": f"SDK-HMAC-SHA256 Access=AK, Signature={secrets[-1]}"}
    assert caller.call("GET", f"scaling_lifecycle_hook/{caller.group}/list", headers=headers).status_code == 401
    requests = caller.simulator.requests()
    log = "".join(request.model_dump_json() for request in requests)
    assert [secret for secret in secrets if secret in log] == []
    assert log.count('"***"') == 3
    assert [request.auth for request in requests] == [None, "token", "token", "token", "token", "signature"]


def test_the_clock_of_the_cloud_can_be_wrong(caller: Caller) -> None:
    caller.simulator.set_clock_skew(-600)
    response = caller.create()
    for shown in (
        parsedate_to_datetime(response.headers["Date"]),
        datetime.fromisoformat(response.json()["create_time"]),
    ):
        assert 595 <= (datetime.now(UTC) - shown).total_seconds() <= 605


def test_reset_brings_back_the_cloud_that_was_started(caller: Caller) -> None:
    simulator = caller.simulator
    caller.create()
    simulator.add_project("eu-de_other")
    simulator.add_user("demo", "changed")
    simulator.set_latency(1)
    simulator.set_token_lifetime(1)
    simulator.set_clock_skew(1)
    simulator.fault("token", status=503, count=None)
    before = simulator.project_id
    simulator.reset()
    assert simulator.requests() == []
    assert simulator.faults() == []
    assert simulator.settings() == {
        "latency_seconds": 0,
        "token_lifetime_seconds": 86400,
        "clock_skew_seconds": 0,
    }
    assert caller.list().status_code == 401
    assert caller.log_in().json()["token"]["project"]["id"] == before
    assert caller.list().json()["error"]["code"] == "AS.2007"
