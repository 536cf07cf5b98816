"""Random lives of hooks: whatever happens to resources, hooks, cloud and operator, everything ends up as specified.

A Hypothesis state machine applies, edits and deletes resources, changes and deletes hooks behind the operator's back,
lets the cloud fail and kills the operator. Then the faults are cleared, and the final state is checked: each
resource's hook is there as wanted unless its group is full, nothing is orphaned, no error is left.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from tests.support.controlplane import ControlPlane
from tests.support.harness import OperatorProcess, eventually, log_tail
from tests.support.simulator import Simulator
from tests.support.workspace import Workspace, is_ready, ready

NAMES = ["alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta"]
HOOKS_PER_GROUP = 5
SETTLE_SECONDS = 60
LIVES = int(os.environ.get("LIVES_OF_HOOKS", "12"))

names = st.sampled_from(NAMES)
groups = st.integers(0, 1)
timeouts = st.sampled_from([60, 120, 3600, 86400])
fields = st.fixed_dictionaries(
    {
        "defaultTimeout": timeouts,
        "defaultResult": st.sampled_from(["ABANDON", "CONTINUE"]),
        "lifecycleHookType": st.sampled_from(["INSTANCE_LAUNCHING", "INSTANCE_TERMINATING"]),
        "notificationMetadata": st.sampled_from([None, "", "text", "drain; then call back"]),
    }
)
effects = st.sampled_from(
    [
        {"status": 503},
        {"status": 500, "stage": "after"},
        {"drop": True},
        {"drop": True, "stage": "after"},
        {"status": 429, "headers": {"Retry-After": "1"}, "json": {}},
        {"status": 200, "text": "{", "stage": "after"},
        {"code": "AS.0001"},
        {"code": "AS.2020"},
        {"code": "AS.0006"},
    ]
)
operations = st.sampled_from(["create", "modify", "delete", "list"])


class LivesOfHooks(RuleBasedStateMachine):
    """What happens, and what is to be true in the end."""

    def __init__(self, cluster: ControlPlane, cloud: Simulator, operator: OperatorProcess) -> None:
        super().__init__()
        self.cluster = cluster
        self.cloud = cloud
        self.operator = operator

    @initialize()
    def begin(self) -> None:
        if not self.operator.is_running:
            self.operator.start()
        self.workspace = Workspace(self.cluster, self.cloud).__enter__()
        self.groups = [self.workspace.group_id, self.cloud.add_group()]

    @rule(name=names, group=groups, wanted=fields)
    def apply(self, name: str, group: int, wanted: dict[str, Any]) -> None:
        body = self.workspace.get(name)
        if body is None:
            self.workspace.create(name, scalingGroupId=self.groups[group], adoptionPolicy="Always", **wanted)
        elif "deletionTimestamp" not in body["metadata"]:
            self.workspace.patch(name, {"spec": wanted})

    @rule(name=names)
    def delete(self, name: str) -> None:
        self.workspace.delete_as_seen(name)

    @rule(group=groups, name=names, timeout=timeouts)
    def change_behind_the_back(self, group: int, name: str, timeout: int) -> None:
        with unless_it_is_gone():
            self.cloud.update_hook(self.groups[group], name, default_timeout=timeout)

    @rule(group=groups, name=names)
    def delete_behind_the_back(self, group: int, name: str) -> None:
        with unless_it_is_gone():
            self.cloud.delete_hook(self.groups[group], name)

    @rule(group=groups, operation=operations, effect=effects, count=st.integers(1, 3))
    def let_the_cloud_fail(self, group: int, operation: str, effect: dict[str, Any], count: int) -> None:
        self.cloud.fault(operation, group_id=self.groups[group], count=count, **effect)

    @rule(group=groups, is_busy=st.booleans())
    def scale(self, group: int, is_busy: bool) -> None:
        self.cloud.set_busy(self.groups[group], is_busy)

    @rule()
    @precondition(lambda self: self.operator.is_running)
    def kill(self) -> None:
        self.operator.kill()

    @rule()
    @precondition(lambda self: not self.operator.is_running)
    def start(self) -> None:
        self.operator.start()

    def teardown(self) -> None:
        if not hasattr(self, "workspace"):
            return
        try:
            self.put_the_world_in_order()
            eventually("everything matches the specs", lambda: not self.find_wrongs(), SETTLE_SECONDS)
        except TimeoutError as error:
            error.add_note("\n".join(self.find_wrongs()))
            error.add_note(log_tail(self.operator.log))
            raise
        finally:
            self.workspace.__exit__()
            for group_id in self.groups:
                self.cloud.delete_group(group_id)

    def put_the_world_in_order(self) -> None:
        self.cloud.clear_faults()
        for group_id in self.groups:
            self.cloud.set_busy(group_id, busy=False)
        if not self.operator.is_running:
            self.operator.start()

    def find_wrongs(self) -> list[str]:
        """Return what is not as it is to be."""
        wrongs = []
        resources = {body["metadata"]["name"]: body for body in self.workspace.all()}
        owners = {name: body for name, body in resources.items() if is_ready(body)}
        hooks = {
            (group_id, hook["lifecycle_hook_name"]): hook
            for group_id in self.groups
            for hook in self.cloud.hooks(group_id)
        }
        for name, body in resources.items():
            group_id = body["spec"]["scalingGroupId"]
            is_full = sum(group == group_id for group, _ in hooks) == HOOKS_PER_GROUP
            if "deletionTimestamp" in body["metadata"]:
                wrongs.append(f"{name} is still there")
            elif name not in owners and not (is_full and ready(body).get("reason") == "QuotaExceeded"):
                wrongs.append(f"{name} is not Ready: {body.get('status')}")
            elif name in owners and "error" in body["status"]:
                wrongs.append(f"{name} is Ready and has an error")
            elif name in owners and not is_as_wanted(hooks.get((group_id, name)), body["spec"]):
                wrongs.append(f"the hook of {name} is {hooks.get((group_id, name))} instead of {body['spec']}")
        owned = {(body["spec"]["scalingGroupId"], name) for name, body in owners.items()}
        wrongs += [f"{key} is orphaned" for key in hooks if key not in owned]
        return wrongs


@contextmanager
def unless_it_is_gone() -> Iterator[None]:
    """Pass over that there is no such hook, be it that the operator has deleted it meanwhile."""
    try:
        yield
    except ValueError as error:
        if "no such hook" not in str(error):
            raise


def is_as_wanted(hook: dict[str, Any] | None, spec: dict[str, Any]) -> bool:
    """Whether a hook has the fields that a spec asks for."""
    return hook is not None and (
        hook["default_timeout"] == spec["defaultTimeout"]
        and hook["default_result"] == spec["defaultResult"]
        and hook["lifecycle_hook_type"] == spec["lifecycleHookType"]
        and (hook["notification_metadata"] or "") == spec.get("notificationMetadata", "")
    )


@pytest.mark.timeout(600 + 20 * LIVES)
def test_whatever_happens_all_is_as_wanted_in_the_end(
    cluster: ControlPlane, cloud: Simulator, fast: dict[str, float]
) -> None:
    options = {**fast, "slow_retry_min_seconds": 0.5, "slow_retry_max_seconds": 2, "resync_interval_seconds": 1}
    with OperatorProcess(cluster, cloud.credentials_env(), **options) as operator:
        run_state_machine_as_test(
            lambda: LivesOfHooks(cluster, cloud, operator),
            settings=settings(
                max_examples=LIVES,
                stateful_step_count=20,
                derandomize=os.environ.get("CI") == "true",
                suppress_health_check=list(HealthCheck),
            ),
        )
