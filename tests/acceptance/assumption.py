"""What an assumption is, and the words in which its check says what it has seen.

A check is a function that returns if the cloud does what its docstring says; it raises Different or NotTriedError if
not. `source` says where the statement comes from: a page of the API reference, or "our reading", where that is silent.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx

from lifecyclehook_operator.cloud.errors import error_from_response, sanitize

if TYPE_CHECKING:
    from .run import Run

Check = Callable[["Run"], None]

OUR_READING = "our reading"
BUSY_CODE = "AS.2020"
#: Of a text in an answer; the report cuts it, when what must not be shown is masked, which a part of it would not be.
_READ_CHARACTERS = 2000


class DifferentError(Exception):
    """The cloud did something else; the message says what."""


class NotTriedError(Exception):
    """This run can't tell; the message says why."""


@dataclass(frozen=True)
class Assumption:
    name: str
    statement: str
    source: str
    check: Check


class Assumptions(list[Assumption]):
    """The assumptions of a module, in the order in which they are tried."""

    def add(self, source: str) -> Callable[[Check], Check]:
        """Return a decorator for a check; its docstring is the statement."""

        def register(check: Check) -> Check:
            self.append(Assumption(check.__name__, " ".join((check.__doc__ or "").split()), source, check))
            return check

        return register

    def add_untried(self, source: str, reason: str, **statements: str) -> None:
        """Add statements, by their names, that no run of ours can bring about."""

        def refuse(_: "Run") -> None:
            raise NotTriedError(reason)

        self.extend(Assumption(name, statement, source, refuse) for name, statement in statements.items())


def expect(fact: object, instead: str) -> None:
    """Raise DifferentError unless the fact holds."""
    if not fact:
        raise DifferentError(instead)


def expect_equal(actual: object, expected: object, what: str) -> None:
    """Raise DifferentError unless both are equal, and of the same type."""
    expect((type(actual), actual) == (type(expected), expected), f"{what}: {_show(actual)}, expected {_show(expected)}")


def expect_answer(response: httpx.Response, status: int = 200) -> dict[str, Any]:
    """Return the JSON object of an answer with this status; raise DifferentError if it is another."""
    expect_idle(response)
    expect(response.status_code == status, describe(response))
    try:
        content = response.json()
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise DifferentError(f"no JSON object: {describe(response)}")
    return content


def expect_refusal(response: httpx.Response, status: int, code: str, what: str = "") -> None:
    """Raise DifferentError unless AS refuses with this status and code, in the shape that it documents."""
    if code != BUSY_CODE:
        expect_idle(response)
    prefix = f"{what}: " if what else ""
    expect((response.status_code, code_of(response)) == (status, code), prefix + describe(response))
    content = response.json()
    error = content.get("error")
    is_documented = content.keys() == {"error"} and isinstance(error, dict) and {"code", "message"} <= error.keys()
    expect(is_documented, f"{prefix}{status} {code} in another shape: {_show(content)}")


def expect_idle(response: httpx.Response) -> None:
    """Raise NotTriedError if the group is busy: what else AS would answer can't be told then."""
    if code_of(response) == BUSY_CODE:
        raise NotTriedError("the group performed a scaling action (AS.2020)")


def code_of(response: httpx.Response) -> str:
    """Return the code of an error, of AS or of a gateway; empty if it has none."""
    return "" if response.is_success else error_from_response(response, "acceptance").code


def describe(response: httpx.Response) -> str:
    """Return status, code and message of an answer, or status and the beginning of its body."""
    if response.is_success:
        return f"{response.status_code} {_show(response.text)}".rstrip()
    return " ".join(filter(None, (str(response.status_code), code_of(response), _show(_message_of(response)))))


def _message_of(response: httpx.Response) -> str:
    try:
        content = response.json()
    except ValueError:
        return response.text
    if not isinstance(content, dict):
        return response.text
    error = content.get("error")
    message = error.get("message") if isinstance(error, dict) else content.get("error_msg")
    return message if isinstance(message, str) else response.text


def _show(value: object) -> str:
    return sanitize(value if isinstance(value, str) else repr(value), _READ_CHARACTERS)
