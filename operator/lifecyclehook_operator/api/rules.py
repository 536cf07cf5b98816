"""Rules on text that pydantic and the API server check alike, and state in the same words."""

import re
from dataclasses import dataclass
from typing import Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, PydanticCustomError, core_schema


@dataclass(frozen=True)
class Rule:
    """What a text must match, as an annotation of a field.

    In the CRD, it is a CEL rule: an OpenAPI pattern would show users the regular expression, and a maxLength that is
    exceeded keeps the API server from checking the other rules.
    """

    #: Valid in Python and in RE2, anchored, without double quotes.
    pattern: str
    #: What the text must be or may not be: the end of a sentence that begins with the field.
    message: str

    def as_cel(self, subject: str = "self") -> str:
        """Return the rule as a CEL expression on a subject."""
        return f'{subject}.matches(r"{self.pattern}")'

    def _check(self, value: str) -> str:
        if not re.fullmatch(self.pattern, value):
            raise PydanticCustomError("rule", "{message}", {"message": self.message})
        return value

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        content = handler(schema)
        rules = content.get("x-kubernetes-validations", [])
        return {**content, "x-kubernetes-validations": [*rules, {"rule": self.as_cel(), "message": self.message}]}


HOOK_NAME = Rule(r"^[A-Za-z0-9_-]{1,32}$", "must be 1 to 32 letters, digits, _ or -")
ID = Rule(r"^[A-Za-z0-9_-]{1,64}$", "must be 1 to 64 letters, digits, _ or -")
OBJECT_NAME = Rule(
    r"^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$",
    "must be 1 to 253 lowercase letters, digits, - or ., the first and the last of them a letter or a digit",
)
TOPIC_URN = Rule(
    r"^urn:smn:[A-Za-z0-9_-]+:[A-Za-z0-9]+:[A-Za-z0-9_-]{1,255}$", "must be urn:smn:<region>:<project ID>:<topic>"
)
NO_MARKUP = Rule(r"^[^<>&'()]*$", "may not contain < > & ' ( )")


def at_most(characters: int, *, at_least: int = 0) -> Rule:
    """Return the rule for the length of a text, in Unicode characters: 1000 at most, as RE2 counts no further."""
    message = f"may not have more than {characters} characters"
    return Rule(
        f"(?s)^.{{{at_least},{characters}}}$",
        f"must have {at_least} to {characters} characters" if at_least else message,
    )
