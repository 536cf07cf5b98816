"""The instances that hooks suspend, as AS lists them (as_06_0905)."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Annotated, Any, Self

import httpx
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from lifecyclehook_operator.cloud.errors import LIST_SUSPENSIONS, read_json, sanitize, undocumented

#: A body with one of these is an error.
_NO_LIST = frozenset({"error", "error_code"})

_Text = Annotated[str, Field(min_length=1, max_length=256)]
_ShownText = Annotated[_Text, AfterValidator(sanitize)]


def _in_utc(moment: datetime) -> datetime:
    try:
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except OverflowError as error:
        raise ValueError("it is out of range") from error


class Suspension(BaseModel):
    """An instance that a hook suspends, or has suspended. Unknown fields and unknown values are tolerated."""

    model_config = ConfigDict(frozen=True)

    instance_id: _ShownText
    lifecycle_hook_name: _ShownText
    #: Who knows it can end the suspension: it is shown to nobody who may not.
    lifecycle_action_key: _Text = Field(repr=False)
    default_result: str = Field(max_length=64)
    #: When AS acts by `default_result`.
    timeout: Annotated[datetime, AfterValidator(_in_utc)]
    #: HANGING, or CONTINUE or ABANDON, as which it has ended.
    lifecycle_hook_status: str = Field(max_length=64)

    @property
    def is_hanging(self) -> bool:
        """Whether the instance is suspended at this moment."""
        return self.lifecycle_hook_status == "HANGING"

    @property
    def has_ended(self) -> bool:
        """Whether a callback or the timeout has ended the suspension. An unknown status does not say so."""
        return self.lifecycle_hook_status in ("CONTINUE", "ABANDON")


@dataclass(frozen=True)
class Suspensions:
    """The suspensions of a group, each as AS listed it."""

    entries: list[Any]
    response: httpx.Response

    @classmethod
    def from_response(cls, response: httpx.Response) -> Self:
        """Read the response to the list call. Raises TransientError if it is malformed."""
        body = read_json(LIST_SUSPENSIONS, response)
        entries = body.get("instance_hanging_info") if isinstance(body, dict) else None
        if entries is None and isinstance(body, dict) and _NO_LIST.isdisjoint(body):
            entries = []  # an empty list may be omitted
        if not isinstance(entries, list):
            raise undocumented(LIST_SUSPENSIONS, response, "the body has no list of suspended instances")
        return cls(entries, response)

    def of_hook(self, hook_name: str) -> list[Suspension]:
        """Return the suspensions of a hook, ended ones included.

        Raises TransientError if one that is of this hook, or may be, can't be read.
        """
        found = []
        for entry in self.entries:
            name = entry.get("lifecycle_hook_name") if isinstance(entry, Mapping) else None
            if name == hook_name or not isinstance(name, str):
                try:
                    found.append(Suspension.model_validate(entry))
                except ValidationError as error:
                    problem = error.errors(include_url=False, include_input=False)[0]
                    where = ".".join(["instance_hanging_info", *map(str, problem["loc"])])
                    raise undocumented(LIST_SUSPENSIONS, self.response, f"{where}: {problem['msg']}") from error
        return found

    @property
    def listed_at(self) -> datetime:
        """When AS made the list, by its own clock if it tells."""
        try:
            return _in_utc(parsedate_to_datetime(self.response.headers["Date"]))
        except (KeyError, ValueError, OverflowError):
            return datetime.now(UTC)

    def hanging(self) -> Iterator[Suspension]:
        """Yield the suspensions of every hook that have not ended, as far as they can be read."""
        for entry in self.entries:
            try:
                suspension = Suspension.model_validate(entry)
            except ValidationError:
                continue
            if suspension.is_hanging:
                yield suspension
