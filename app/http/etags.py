"""Entity tags: the version of a resource in a response, and the versions that a client's conditions name."""

import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
_TAG = re.compile(r'(?:W/)?"([\x21\x23-\x7e\x80-\xff]*)"')
_LIST = re.compile(rf"[ \t,]*(?:{_TAG.pattern}[ \t]*(?:,[ \t,]*|$))*")
_OWN_TAG = re.compile(r"([1-9][0-9]{0,18})-([1-9][0-9]{0,16})")


class Versioned(Protocol):
    """A stored resource with an entity tag."""

    id: int
    updated_at: datetime

    def to_dict(self) -> dict[str, Any]:
        """The fields by name. Each call returns a new dict."""


def etag(resource: Versioned) -> str:
    """Return the resource's strong entity tag. It changes with every write, because `updated_at` does."""
    return f'"{resource.id}-{microseconds(resource.updated_at)}"'


def microseconds(time: datetime) -> int:
    """Return the microseconds since 1970."""
    # Not `// MICROSECOND`, which takes longer.
    age = time - EPOCH
    return (age.days * 86_400 + age.seconds) * 1_000_000 + age.microseconds


def with_etags(resources: Iterable[Versioned]) -> list[dict[str, Any]]:
    """Return the fields of each resource by name, and `etag`: what a list contains."""
    rows = []
    for resource in resources:
        fields = resource.to_dict()
        # As `etag`, without its calls: a list has up to a hundred tags.
        age = resource.updated_at - EPOCH
        fields["etag"] = f'"{resource.id}-{(age.days * 86_400 + age.seconds) * 1_000_000 + age.microseconds}"'
        rows.append(fields)
    return rows


def expected_versions(if_match: Sequence[str] | None, resource_id: int) -> list[datetime] | None:
    """Return the versions (`updated_at`) of the resource that `If-Match` allows, or None if it allows any.

    A weak tag names the version that its text names: a proxy that compresses the response has made the tag weak
    (decision 8). A tag that this service did not make matches nothing.
    """
    if if_match is None or [line.strip() for line in if_match] == ["*"]:
        return None
    versions = []
    for opaque in _tags(if_match):
        own_tag = _OWN_TAG.fullmatch(opaque)
        if own_tag and own_tag[1] == str(resource_id):
            versions.append(EPOCH + int(own_tag[2]) * MICROSECOND)
    return versions


def newest_named(if_none_match: Sequence[str]) -> dict[int, datetime]:
    """Return the newest version that `If-None-Match` names of each resource, by the resource's id."""
    versions: dict[int, datetime] = {}
    for opaque in _tags(if_none_match):
        if own_tag := _OWN_TAG.fullmatch(opaque):
            resource_id, version = int(own_tag[1]), EPOCH + int(own_tag[2]) * MICROSECOND
            versions[resource_id] = max(version, versions.get(resource_id, EPOCH))
    return versions


def is_not_modified(if_none_match: Sequence[str] | None, resource: Versioned) -> bool:
    """Return whether `If-None-Match` names the resource's current version. The comparison is weak."""
    if if_none_match is None:
        return False
    if [line.strip() for line in if_none_match] == ["*"]:
        return True
    return etag(resource) in [f'"{opaque}"' for opaque in _tags(if_none_match)]


def _tags(lines: Sequence[str]) -> list[str]:
    """Return the texts of the tags in the header's lines, weak or strong; none if the list is malformed."""
    value = ",".join(lines)
    return _TAG.findall(value) if _LIST.fullmatch(value) else []
