"""What the operator's own client makes of the answers."""

import asyncio
import math
import uuid
from collections.abc import Awaitable, Callable
from typing import TypeVar

from lifecyclehook_operator.cloud.client import AutoScalingClient
from lifecyclehook_operator.cloud.errors import ABSENT_CODES, CallError, Reason

from .assumption import Assumptions, DifferentError, expect, expect_equal
from .group import BorrowedGroup
from .project import TIMEOUT_SECONDS
from .run import Run

CLIENT = "the operator's client"
T = TypeVar("T")

ASSUMPTIONS = Assumptions()


def call(run: Run, use: Callable[[AutoScalingClient], Awaitable[T]]) -> T:
    """Use the operator's client, with the credentials of the run."""

    async def main() -> T:
        client = AutoScalingClient(run.project.credentials, timeout_seconds=TIMEOUT_SECONDS, concurrency=1)
        try:
            return await use(client)
        finally:
            await client.aclose()

    with run.project.interrupts.put_off():
        return asyncio.run(main())


def fields(group: BorrowedGroup) -> dict[str, object]:
    """Return what a resource gives to the client for a create, name aside."""
    body = group.body(notification_metadata="")
    del body["lifecycle_hook_name"]
    return body


def refusal(run: Run, use: Callable[[AutoScalingClient], Awaitable[object]]) -> CallError:
    try:
        call(run, use)
    except CallError as error:
        return error
    raise DifferentError("it succeeded")


@ASSUMPTIONS.add(CLIENT)
def the_client_lives_through_a_hook(run: Run) -> None:
    """The operator's client creates a hook, finds it in the list, modifies it, and deletes it."""
    group, name = run.group, run.group.name()
    group.expect_hook(name)

    async def live(client: AutoScalingClient) -> None:
        created = await client.create_hook(group.id, name, fields(group))
        expect_equal(created.hook_fields(), fields(group), "created")
        expect_equal((await client.list_hooks(group.id, not_before=math.inf)).find(name), created, "listed")
        modified = await client.modify_hook(group.id, name, {"default_timeout": 120})
        expect_equal(modified.default_timeout, 120, "modified default_timeout")
        await client.delete_hook(group.id, name)
        expect((await client.list_hooks(group.id, not_before=math.inf)).find(name) is None, "deleted, and still listed")
        expect_equal((await client.list_suspensions(group.id, not_before=math.inf)).of_hook(name), [], "suspensions")

    call(run, live)


@ASSUMPTIONS.add(CLIENT)
def the_client_tells_a_missing_group(run: Run) -> None:
    """The operator's client reads a missing group as GroupNotFound."""
    error = refusal(run, lambda client: client.list_hooks(str(uuid.uuid4()), not_before=math.inf))
    expect_reason(error, Reason.GROUP_NOT_FOUND)


@ASSUMPTIONS.add(CLIENT)
def the_client_tells_a_missing_hook(run: Run) -> None:
    """The operator's client reads a missing hook as gone, by AS.0007 or AS.2007."""
    error = refusal(run, lambda client: client.delete_hook(run.group.id, run.group.name("absent")))
    expect(error.code in ABSENT_CODES, f"{error.reason}: {error.http_status} {error.code}")


@ASSUMPTIONS.add(CLIENT)
def the_client_tells_a_missing_topic(run: Run) -> None:
    """The operator's client reads a missing topic as TopicNotFound."""
    group, name = run.group, run.group.name()
    group.expect_hook(name)
    body = {**fields(group), "notification_topic_urn": f"{group.topic_urn}-{group.prefix}none"}
    expect_reason(refusal(run, lambda client: client.create_hook(group.id, name, body)), Reason.TOPIC_NOT_FOUND)


@ASSUMPTIONS.add(CLIENT)
def the_client_tells_a_taken_name(run: Run) -> None:
    """The operator's client reads a taken name as AlreadyExists."""
    group = run.group
    group.create()
    error = refusal(run, lambda client: client.create_hook(group.id, group.name(), fields(group)))
    expect_reason(error, Reason.ALREADY_EXISTS)


def expect_reason(error: CallError, reason: Reason) -> None:
    expect(error.reason == reason, f"{error.reason}: {error.http_status} {error.code}")
