"""Simulated lives, played here on a real API server and the simulated cloud, stand the same after each step.

That keeps the stand-ins honest, in which thousands of such lives are played (tests/lives).
"""

import os
from collections.abc import Iterator, Mapping
from itertools import count, islice
from typing import Any

import pytest

from tests.lives.scenario import Step, make_life
from tests.lives.verdict import summarize
from tests.lives.world import GROUPS, play_calmly
from tests.support.controlplane import ControlPlane
from tests.support.harness import OperatorProcess, eventually
from tests.support.simulator import Simulator
from tests.support.workspace import Workspace

LIVES = int(os.environ.get("REAL_LIVES", "3"))
MOST_RESOURCES = 3


@pytest.fixture
def operator(cluster: ControlPlane, cloud: Simulator, fast: dict[str, float]) -> Iterator[OperatorProcess]:
    """An operator to be killed."""
    options = {**fast, "slow_retry_min_seconds": 0.5, "slow_retry_max_seconds": 2, "resync_interval_seconds": 2}
    with OperatorProcess(cluster, cloud.credentials_env(), **options) as process:
        yield process


def certain_seeds() -> Iterator[int]:
    """Return the seeds of lives in which no race decides who gets a hook, or the last place in a group."""
    for seed in count():
        created = [step.details for step in make_life(seed, in_memory=False) if step.kind == "create"]
        names = {details["name"] for details in created}
        hooks = {details["spec"].get("lifecycleHookName", details["name"]) for details in created}
        if len(names) == len(hooks) <= MOST_RESOURCES:
            yield seed


class Stage:
    """Does on the real thing what the steps of a life say."""

    def __init__(self, workspace: Workspace, operator: OperatorProcess) -> None:
        self.workspace = workspace
        self.cloud = workspace.cloud
        self.operator = operator
        self.groups = [workspace.group_id, self.cloud.add_group()]

    def play(self, step: Step) -> None:
        getattr(self, step.kind)(**step.details)

    def summarize(self) -> dict[str, Any]:
        number = dict(zip(self.groups, GROUPS, strict=True))
        hooks = {
            (number[group_id], hook["lifecycle_hook_name"]): hook
            for group_id in self.groups
            for hook in self.cloud.hooks(group_id)
        }
        return summarize(self.workspace.all(), hooks)

    def create(self, name: str, group: int, spec: Mapping[str, Any]) -> None:
        if self.workspace.get(name) is None:
            self.workspace.create(name, scalingGroupId=self.groups[group], **spec)

    def edit(self, name: str, spec: Mapping[str, Any]) -> None:
        if self.workspace.get(name) is not None:
            self.workspace.patch(name, {"spec": spec})

    def replace(self, name: str, spec: Mapping[str, Any]) -> None:
        if (body := self.workspace.get(name)) is not None:
            lost = {} if "deletionTimestamp" in body["metadata"] else {"finalizers": None, "annotations": None}
            self.workspace.patch(name, {"metadata": lost, "spec": spec})

    def delete(self, name: str) -> None:
        self.workspace.delete_as_seen(name)

    def wipe_status(self, name: str) -> None:
        if "status" in (self.workspace.get(name) or {}):
            self.workspace.wipe_status(name)

    def look(self, name: str) -> None:
        if body := self.workspace.get(name):
            version = body["metadata"]["resourceVersion"]
            self.workspace.patch(
                name, {"metadata": {"annotations": {"as.otc.t-systems.com/reconcile-at": f"at {version}"}}}
            )

    def put_hook(self, group: int, hook: str, timeout: int) -> None:
        if hook not in self._names(group):
            self.cloud.put_hook(
                self.groups[group],
                hook,
                lifecycle_hook_type="INSTANCE_LAUNCHING",
                notification_topic_urn=self.workspace.topic_urn,
                default_timeout=timeout,
            )

    def change_hook(self, group: int, hook: str, timeout: int) -> None:
        if hook in self._names(group):
            self.cloud.update_hook(self.groups[group], hook, default_timeout=timeout)

    def delete_hook(self, group: int, hook: str, timeout: int) -> None:
        if hook in self._names(group):
            self.cloud.delete_hook(self.groups[group], hook)

    def cloud_fault(self, operation: str, group: int, effect: dict[str, Any], count: int) -> None:
        self.cloud.fault(operation, group_id=self.groups[group], count=count, **effect)

    def scale(self, group: int, is_busy: bool) -> None:
        self.cloud.set_busy(self.groups[group], is_busy)

    def crash(self, down_seconds: float) -> None:
        self.operator.kill()
        self.operator.start()

    def _names(self, group: int) -> set[str]:
        return {hook["lifecycle_hook_name"] for hook in self.cloud.hooks(self.groups[group])}


@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", [*islice(certain_seeds(), LIVES)])
def test_a_life_stands_after_each_step_as_it_does_in_memory(
    workspace: Workspace, operator: OperatorProcess, seed: int
) -> None:
    steps = make_life(seed, in_memory=False)
    stage = Stage(workspace, operator)
    try:
        for step, expected in zip(steps, play_calmly(steps, seed), strict=True):
            stage.play(step)
            try:
                eventually(f"after {step}", lambda: stage.summarize() == expected)  # noqa: B023  (called at once)
            except TimeoutError as error:
                error.add_note(f"in memory: {expected}\nhere:      {stage.summarize()}")
                raise
    finally:
        workspace.cloud.clear_faults()
