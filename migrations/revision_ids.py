"""The ids of revisions: a prefix and a number, such as `items_0008`."""

import re


def next_id(newest: str) -> str:
    """The id after the newest one: the same prefix, and the next number with as many digits.

    Raises:
        ValueError: The newest id does not end with a number.
    """
    numbered = re.fullmatch(r"(\w*?)(\d+)", newest)
    if not numbered:
        raise ValueError(f"The id of the newest revision, {newest}, does not end with a number")
    return f"{numbered[1]}{int(numbered[2]) + 1:0{len(numbered[2])}}"
