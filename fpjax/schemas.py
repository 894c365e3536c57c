"""Plain data against a JSON schema (draft 2020-12): the first fault as a place and one line.

In this room: the validator that model cards, study files and reports share. Not in this room: the schemas, and the sentences.
"""

from typing import Any, NamedTuple

import jsonschema.exceptions
import jsonschema.validators

_DRAFT = jsonschema.validators.Draft202012Validator
# JSON Schema calls 8.0 an integer; as a size or a count it is none, and would name the same cell twice.
_TYPES = _DRAFT.TYPE_CHECKER.redefine("integer", lambda _, value: type(value) is int)
_STRICT = jsonschema.validators.extend(_DRAFT, type_checker=_TYPES)


class Fault(NamedTuple):
    """Where plain data breaks its schema ("process[0].steps", or "the top"), and what is wrong there, on one line."""

    where: str
    what: str


def fault(schema: dict[str, Any], data: Any) -> Fault | None:
    """What is most wrong with ``data``; None if it follows the schema."""
    error = jsonschema.exceptions.best_match(_STRICT(schema).iter_errors(data))
    if error is None:
        return None
    what = " ".join(error.message.split())
    return Fault(
        error.json_path.removeprefix("$").lstrip(".") or "the top", what if len(what) < 200 else what[:200] + "…"
    )
