"""A list of ids in a query string."""

import re

from app.errors import InvalidFieldError
from app.http.cursors import GREATEST_ID

MAX_IDS = 100
"""How many ids a list can have."""

PATTERN = rf"^[1-9][0-9]{{0,18}}(,[1-9][0-9]{{0,18}}){{0,{MAX_IDS - 1}}}$"
"""The form of a list, for the OpenAPI document."""

_LIST = re.compile(PATTERN.strip("^$"))


def parse_ids(field: str, text: str) -> list[int]:
    """Return the ids in ascending order, each of them once.

    Raises:
        InvalidFieldError: The text is not a list of 1 to `MAX_IDS` ids. The error names the field.
    """
    ids = sorted({int(digits) for digits in text.split(",")}) if _LIST.fullmatch(text) else []
    if not ids or ids[-1] > GREATEST_ID:
        raise InvalidFieldError(field, f"Send 1 to {MAX_IDS} ids, from 1 to {GREATEST_ID}, with commas between them")
    return ids
