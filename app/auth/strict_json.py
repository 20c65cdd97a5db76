"""Reads the JSON of tokens and keys by rules that leave no choice: two programs must never read two meanings."""

import json
from math import isfinite
from typing import Any, NoReturn


def parse_object(document: bytes) -> dict[str, Any]:
    """Return the members of the JSON object in this text.

    Raises:
        ValueError: It is not one JSON object in UTF-8, an object in it has two members of one name, or a number in it
            is not finite. The message has nothing of the text.
    """
    try:
        parsed = json.loads(
            document.decode(),
            object_pairs_hook=_unique_members,
            parse_constant=_refuse_constant,
            parse_float=_finite,
        )
    except _StrictError as error:
        raise ValueError(str(error)) from None
    except (ValueError, RecursionError):
        raise ValueError("it is not JSON in UTF-8") from None
    if not isinstance(parsed, dict):
        raise ValueError("it is not a JSON object")  # noqa: TRY004  # the text is wrong, not the program
    return parsed


class _StrictError(Exception):
    """The text is JSON, and breaks a rule of this module."""


def _unique_members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise _StrictError("it has two members of one name")
    return members


def _refuse_constant(_: str) -> NoReturn:
    raise _StrictError("it has a number that is not finite")


def _finite(digits: str) -> float:
    number = float(digits)
    if not isfinite(number):
        raise _StrictError("it has a number that is not finite")
    return number
