"""Entity tags: what version of an item an answer shows, and what version a client expects."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Protocol

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_TAG = re.compile(r'(W/)?"([\x21\x23-\x7e\x80-\xff]*)"')
_LIST = re.compile(rf"[ \t,]*(?:{_TAG.pattern}[ \t]*(?:,[ \t,]*|$))*")
_OURS = re.compile(r"([1-9][0-9]{0,18})-([1-9][0-9]{0,16})")


class Versioned(Protocol):
    """What has an entity tag, such as an item."""

    id: int
    updated_at: datetime


def etag(item: Versioned) -> str:
    """The item's strong entity tag: `updated_at` is another one after every write."""
    return f'"{item.id}-{(item.updated_at - _EPOCH) // _MICROSECOND}"'


def expected_versions(if_match: Sequence[str] | None, item_id: int) -> list[datetime] | None:
    """The versions (`updated_at`) of the item that `If-Match` allows; None where any will do.

    Comparison is strong: a weak tag matches nothing, and neither does one that is not ours.
    """
    if if_match is None or [line.strip() for line in if_match] == ["*"]:
        return None
    versions = []
    for weak, opaque in _tags(if_match):
        ours = _OURS.fullmatch(opaque)
        if ours and not weak and ours[1] == str(item_id):
            versions.append(_EPOCH + int(ours[2]) * _MICROSECOND)
    return versions


def is_known(if_none_match: Sequence[str] | None, item: Versioned) -> bool:
    """Whether `If-None-Match` says that the client has this version already. Comparison is weak."""
    if if_none_match is None:
        return False
    if [line.strip() for line in if_none_match] == ["*"]:
        return True
    return etag(item) in [f'"{opaque}"' for _, opaque in _tags(if_none_match)]


def _tags(lines: Sequence[str]) -> list[tuple[str, str]]:
    """The tags of a list, each as its mark of weakness and its text; none where the list is malformed."""
    value = ",".join(lines)
    return _TAG.findall(value) if _LIST.fullmatch(value) else []
