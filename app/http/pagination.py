"""What a list of items looks like: where it stands among the pages, and the links to the others."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import urlencode

from app.errors import InvalidFieldError
from app.http import cursors

MAX_OFFSET = 10_000
"""Rows that may be skipped by page number. The server reads all that it skips."""


class Listed(Protocol):
    """What can be listed, such as an item."""

    id: int

    def to_dict(self) -> dict[str, Any]:
        """The fields by name."""


class Found(Protocol):
    """What was found out beside, such as an `ItemPage`."""

    has_more: bool
    total: int | None
    total_is_exact: bool | None


@dataclass(slots=True, kw_only=True)
class Listing:
    """The question: which of the matching items, and how many."""

    resource: str
    """What is listed, such as `items`: so the path is called, and the list in the answer."""

    page: int | None
    per_page: int
    cursor: str | None
    filters: dict[str, str]
    """What is asked besides, as it stands in the query string."""

    @property
    def offset(self) -> int:
        """Rows before the page.

        Raises:
            InvalidFieldError: They are too many.
        """
        offset = ((self.page or 1) - 1) * self.per_page
        if offset > MAX_OFFSET:
            raise InvalidFieldError("page", f"Pages reach {MAX_OFFSET:,} items deep: go on with `cursor`")
        return offset

    def body(self, rows: Sequence[Listed], found: Found) -> dict[str, Any]:
        """The answer, in the shape of `ItemList`."""
        by_page = found.total is not None
        return {
            self.resource: [row.to_dict() for row in rows],
            "page": (self.page or 1) if by_page else None,
            "per_page": self.per_page,
            "total": found.total,
            "total_is_exact": found.total_is_exact,
            "pages": -(-found.total // self.per_page) if found.total is not None else None,
            "next_cursor": cursors.encode(rows[-1].id) if found.has_more else None,
        }

    def links(self, body: dict[str, Any]) -> str:
        """The other pages as a `Link` header (RFC 8288), relative to this server whatever it is called."""
        asked = urlencode({"per_page": self.per_page, **self.filters})
        targets = {"first": asked}
        if self.cursor is None:
            page, pages = body["page"], body["pages"]
            if page > 1:
                targets["prev"] = f"page={page - 1}&{asked}"
            if body["next_cursor"] is not None:
                deeper = page * self.per_page > MAX_OFFSET
                targets["next"] = f"cursor={body['next_cursor']}&{asked}" if deeper else f"page={page + 1}&{asked}"
            if body["total_is_exact"] and 0 < (pages - 1) * self.per_page <= MAX_OFFSET:
                targets["last"] = f"page={pages}&{asked}"
        elif body["next_cursor"] is not None:
            targets["next"] = f"cursor={body['next_cursor']}&{asked}"
        return ", ".join(f'</{self.resource}?{target}>; rel="{relation}"' for relation, target in targets.items())
