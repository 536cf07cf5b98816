"""Three actors do what the schedule says, each in its turn, until chaos has lasted long enough."""

import os
import secrets
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any

from kubernetes import client
from urllib3.exceptions import HTTPError

from tests.bench.usage import Usage
from tests.lives.scenario import Step
from tests.support.controlplane import ControlPlane
from tests.support.harness import OperatorProcess
from tests.support.relay import Relay
from tests.support.simulator import Simulator
from tests.support.workspace import Workspace

from . import schedule

FAULT_SHARE = 0.3
TOKEN_SECONDS = 4
#: No field of a resource has it: nobody can take this hook for one of a resource's.
FOREIGN_TIMEOUT = 999
RIGHTS = ["as:lifecycleHooks:list"]
#: The ID of every instance that a hook suspends.
INSTANCE = "i-1"
TALLY_SECONDS = 5


@dataclass
class Tally:
    """What was counted on the way."""

    steps: Counter[str] = field(default_factory=Counter)
    #: Of chaos; those afterwards meet no faults.
    requests: Counter[str] = field(default_factory=Counter)
    faults: int = 0
    usages: list[Usage] = field(default_factory=list)


class World:
    """What there is, and what the actors share."""

    def __init__(
        self,
        cluster: ControlPlane,
        cloud: Simulator,
        operator: OperatorProcess,
        relay: Relay,
        workspaces: Sequence[Workspace],
    ) -> None:
        self.cluster, self.cloud, self.operator, self.relay = cluster, cloud, operator, relay
        self.workspaces = workspaces
        self.groups = [cloud.add_group() for _ in schedule.GROUPS]
        self.topics = [cloud.add_topic(f"topic-{number}") for number in schedule.TOPICS]
        self.wrongs: list[str] = []
        self.tally = Tally()
        self.is_over = threading.Event()
        self._log = cluster.work_dir / "chaos.log"
        self._log_lock = threading.Lock()
        self.foreign = cloud.put_hook(
            self.groups[-1],
            schedule.FOREIGN,
            lifecycle_hook_type="INSTANCE_LAUNCHING",
            notification_topic_urn=self.topics[0],
            default_timeout=FOREIGN_TIMEOUT,
        )

    def log(self, line: str) -> None:
        """Add a line to the log of what happened, with the time as the operator's log has it."""
        now = time.time()
        stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(now)) + f",{now % 1 * 1000:03.0f}"
        with self._log_lock, self._log.open("a") as log:
            log.write(f"{stamp} {line}\n")

    def pause(self, seconds: float) -> None:
        """Wait, unless all is over."""
        self.is_over.wait(seconds)

    def count_requests(self) -> None:
        """Count the requests to the cloud so far, and forget them."""
        if requests := self.cloud.requests():
            self.cloud.clear_requests(until=requests[-1].sequence)
            self.tally.requests.update(str(each.operation) for each in requests)
            self.tally.faults += sum(each.fault is not None for each in requests)


def unleash(world: World, seed: int, seconds: float, say: Callable[[str], None]) -> None:
    """Let all three actors act for so long, and until each kind of outage has been; then put the world in order."""
    world.cloud.set_token_lifetime(TOKEN_SECONDS)
    for fault in schedule.faults(seed, FAULT_SHARE):
        world.cloud.fault(**fault)
    users, cloud, machines = _Users(world), _Cloud(world), _Machines(world, say)
    deadline = time.monotonic() + seconds
    with ThreadPoolExecutor(2, "actor") as threads:
        acting = [
            threads.submit(_act, world, users, schedule.users(seed)),
            threads.submit(_act, world, cloud, schedule.cloud(seed)),
        ]
        outages = takewhile(
            lambda numbered: numbered[0] < len(schedule.OUTAGES) or time.monotonic() < deadline,
            enumerate(schedule.machines(seed)),
        )
        # In this very thread: a process ends with the thread that has started it.
        _act(world, machines, (step for _, step in outages))
        world.is_over.set()
        for each in acting:
            each.result()
    cloud.put_in_order()
    users.put_in_order()


def _act(world: World, actor: object, steps: Iterator[Step]) -> None:
    """Play steps until there are none left, chaos is over, or another actor has failed."""
    try:
        for step in steps:
            world.pause(step.after_seconds)
            if world.is_over.is_set():
                return
            world.log(f"{actor} {step}")
            world.tally.steps[str(actor)] += 1
            with _outages_tolerated():
                getattr(actor, step.kind)(**step.details)
    except BaseException:
        world.is_over.set()
        raise


@contextmanager
def _outages_tolerated() -> Iterator[None]:
    """Pass over what fails because the API server is away, or because what it is about has gone or changed."""
    try:
        yield
    except client.ApiException as error:
        if error.status and error.status < 500 and error.status not in (404, 409, 429):
            raise
    except HTTPError:
        pass
    except ValueError as error:
        if "no such" not in str(error):
            raise


class _Users:
    """Who has rights in a namespace."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._revoke: dict[str, Callable[[], None]] = {}
        self._count = 0
        #: Resources that have lost what the operator wrote there. If it is killed before it has put that right, nobody
        #: can know their hooks: none is deleted before it names its hook again, and none tampered with after that.
        self._tampered: set[str] = set()
        self.put_in_order()

    def __str__(self) -> str:
        return "users"

    def put_in_order(self) -> None:
        """See to it that each Secret is there and has credentials that are good."""
        for secret in schedule.SECRETS:
            self.recreate_secret(secret, is_revoked_first=False)

    def create(self, namespace: int, name: str, group: int, topic: int, spec: dict[str, Any]) -> None:
        world = self._world
        urls = {"scalingGroupId": world.groups[group], "notificationTopicUrn": world.topics[topic]}
        world.workspaces[namespace].create(name, **urls, **spec)

    create_rival = create

    def edit(self, namespace: int, name: str, topic: int | None, spec: dict[str, Any]) -> None:
        self._patch(namespace, name, {"spec": self._edited(topic, spec)})

    def delete(self, namespace: int, name: str) -> None:
        workspace = self._world.workspaces[namespace]
        if (body := workspace.get(name)) is None:
            return
        is_known = "finalizers" in body["metadata"] and "lifecycleHook" in body.get("status", {})
        if is_known or body["metadata"]["uid"] not in self._tampered:
            workspace.delete_as_seen(name)

    def wipe_status(self, namespace: int, name: str) -> None:
        if "status" in self._tamper(namespace, name):
            self._world.workspaces[namespace].wipe_status(name)

    def strip_finalizer(self, namespace: int, name: str) -> None:
        self._strip(namespace, name, {"finalizers": None})

    def replace(self, namespace: int, name: str, topic: int | None, spec: dict[str, Any]) -> None:
        self._strip(namespace, name, {"finalizers": None, "annotations": None}, spec=self._edited(topic, spec))

    def ask(self, namespace: int, name: str) -> None:
        self._count += 1
        annotations = {"as.otc.t-systems.com/reconcile-at": str(self._count)}
        self._patch(namespace, name, {"metadata": {"annotations": annotations}})

    def call_back(self, namespace: int, name: str, result: str, deadline_seconds: int) -> None:
        self._count += 1
        self._world.workspaces[namespace].call_back(
            result, INSTANCE, hook=name, name=f"callback-{self._count}", activeDeadlineSeconds=deadline_seconds
        )

    def rotate(self, secret: str, *, is_revoked_first: bool) -> None:
        workspace = self._world.workspaces[1]
        auth, revoke = self._make_credentials(secret)
        revoke_former = self._revoke.pop(secret, lambda: None)
        if is_revoked_first:
            revoke_former()
        workspace.put_secret(secret, workspace.clouds_yaml(**auth))
        if not is_revoked_first:
            revoke_former()
        self._revoke[secret] = revoke

    def break_secret(self, secret: str, content: str) -> None:
        self._world.workspaces[1].put_secret(secret, content)

    def recreate_secret(self, secret: str, *, is_revoked_first: bool) -> None:
        """Let a Secret go that hooks need, as docs/troubleshooting.md says, and create it again."""
        workspace = self._world.workspaces[1]
        if workspace.secret(secret) is not None:
            workspace.core.delete_namespaced_secret(secret, workspace.namespace)
            with _outages_tolerated():
                self.strip_secret(secret)
        self.rotate(secret, is_revoked_first=is_revoked_first)

    def strip_secret(self, secret: str) -> None:
        workspace = self._world.workspaces[1]
        nothing = {"metadata": {"finalizers": None, "labels": None}}
        workspace.core.patch_namespaced_secret(secret, workspace.namespace, nothing)

    def _edited(self, topic: int | None, spec: dict[str, Any]) -> dict[str, Any]:
        return spec if topic is None else {**spec, "notificationTopicUrn": self._world.topics[topic]}

    def _patch(self, namespace: int, name: str, patch: dict[str, Any]) -> None:
        self._world.workspaces[namespace].patch(name, patch)

    def _tamper(self, namespace: int, name: str) -> dict[str, Any]:
        """Return what may be tampered with, nothing if it is not there or being deleted."""
        body = self._world.workspaces[namespace].get(name)
        if body is None or "deletionTimestamp" in body["metadata"]:
            return {}
        self._tampered.add(body["metadata"]["uid"])
        return body

    def _strip(self, namespace: int, name: str, metadata: dict[str, Any], **rest: Any) -> None:
        if self._tamper(namespace, name):
            self._patch(namespace, name, {"metadata": metadata, **rest})

    def _make_credentials(self, secret: str) -> tuple[dict[str, str], Callable[[], None]]:
        """Return who a Secret is to be from now on, and what makes that worthless; no user comes twice."""
        cloud = self._world.cloud
        self._count += 1
        user, password = f"{secret}-{self._count}", secrets.token_urlsafe(16)
        cloud.add_user(user, password)
        if secret == "user":
            return {"username": user, "password": password}, lambda: _revoke_user(cloud, user)
        access, key, *token = cloud.add_access_key(user, security_token=self._count % 2 == 0)
        auth = {"ak": access, "sk": key, **({"security_token": token[0]} if token else {})}
        return auth, lambda: cloud.revoke_access_key(access)


def _revoke_user(cloud: Simulator, user: str) -> None:
    cloud.add_user(user, secrets.token_urlsafe(16))
    cloud.revoke_tokens()


class _Cloud:
    """Somebody else with rights in AS, and AS and IAM themselves."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._cloud = world.cloud
        self._tallied_at = time.monotonic()

    def __str__(self) -> str:
        return "the cloud"

    def put_in_order(self) -> None:
        """Heal all that is broken; every request that is held loses its connection."""
        self._cloud.clear_faults()
        self._cloud.set_latency(0)
        self._world.count_requests()

    def change_hook(self, group: int, hook: str, timeout: int) -> None:
        self._cloud.update_hook(self._world.groups[group], hook, default_timeout=timeout)

    def delete_hook(self, group: int, hook: str) -> None:
        self._cloud.delete_hook(self._world.groups[group], hook)

    def suspend(self, group: int, hook: str, seconds: float) -> None:
        group_id = self._world.groups[group]
        key = self._cloud.add_hanging_instance(group_id, hook, INSTANCE)
        self._world.pause(seconds)
        self._cloud.delete_hanging_instance(group_id, key)

    def scale(self, group: int, seconds: float) -> None:
        group_id = self._world.groups[group]
        self._cloud.set_busy(group_id)
        self._world.pause(seconds)
        self._cloud.set_busy(group_id, busy=False)

    def drop_group(self, group: int, seconds: float) -> None:
        group_id = self._world.groups[group]
        self._cloud.delete_group(group_id)
        self._world.pause(seconds)
        self._cloud.add_group(group_id)

    def drop_topic(self, topic: int, seconds: float) -> None:
        urn = self._world.topics[topic]
        self._cloud.delete_topic(urn)
        self._world.pause(seconds)
        self._cloud.add_topic(urn)

    def forbid(self, seconds: float) -> None:
        self._cloud.set_permissions(RIGHTS)
        self._world.pause(seconds)
        self._cloud.set_permissions(None)

    def revoke_tokens(self) -> None:
        self._cloud.revoke_tokens()

    def shift_clock(self, seconds: float) -> None:
        self._cloud.set_clock_skew(seconds)

    def slow_down(self, latency_seconds: float) -> None:
        self._cloud.set_latency(latency_seconds)
        if time.monotonic() - self._tallied_at > TALLY_SECONDS:
            self._tallied_at = time.monotonic()
            self._world.count_requests()


class _Machines:
    """What the operator runs on."""

    def __init__(self, world: World, say: Callable[[str], None]) -> None:
        self._world = world
        self._say = say

    def __str__(self) -> str:
        return "machines"

    def kill_operator(self, seconds: float) -> None:
        self._say(f"The operator is killed, and gone for {seconds:g} s")
        self._note_usage()
        self._world.operator.kill()
        self._world.pause(seconds)
        self._world.operator.start()

    def stop_operator(self, seconds: float) -> None:
        self._say(f"The operator is stopped, and gone for {seconds:g} s")
        self._note_usage()
        if status := self._world.operator.stop():
            self._world.wrongs.append(f"asked to stop, the operator ended with exit status {status}")
        self._world.pause(seconds)
        self._world.operator.start()

    def freeze_operator(self, seconds: float) -> None:
        self._say(f"The operator is frozen for {seconds:g} s")
        self._freeze(self._world.operator.pid, seconds)

    def restart_api_server(self, seconds: float) -> None:
        self._say(f"The API server is killed, and gone for {seconds:g} s")
        self._world.cluster.stop_api_server()
        self._world.pause(seconds)
        self._world.cluster.start_api_server()

    def freeze_api_server(self, seconds: float) -> None:
        self._say(f"The API server is frozen for {seconds:g} s")
        self._freeze(self._world.cluster.pids["kube-apiserver"], seconds)

    def stop_etcd(self, seconds: float) -> None:
        self._say(f"etcd is killed, and gone for {seconds:g} s")
        self._world.cluster.stop_etcd()
        self._world.pause(seconds)
        self._world.cluster.start_etcd()

    def silence_connections(self, seconds: float) -> None:
        self._say(f"The operator's connections to the API server are silent for {seconds:g} s, then cut")
        self._world.relay.silence()
        self._world.pause(seconds)
        self._world.relay.cut()

    cut_connections = silence_connections

    def _freeze(self, pid: int, seconds: float) -> None:
        os.kill(pid, signal.SIGSTOP)
        try:
            self._world.pause(seconds)
        finally:
            os.kill(pid, signal.SIGCONT)

    def _note_usage(self) -> None:
        if self._world.operator.is_running:
            self._world.tally.usages.append(Usage.read(self._world.operator.pid))
        else:
            self._world.wrongs.append("the operator ended by itself")
