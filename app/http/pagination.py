"""Pagination of lists: the body of a page, and the links to the other pages."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import urlencode

from starlette.responses import Response

from app.errors import InvalidFieldError, PageTooLargeError
from app.http import cursors
from app.http.etags import Versioned, with_etags
from app.http.responses import render, rendered_response

MAX_OFFSET = 10_000
"""Rows that a page number can skip. PostgreSQL reads every row that it skips."""

MAX_PAGE_BYTES = 2 * 1024 * 1024
"""How large the body of a page can be. Twenty rows, the default, fit if none has more than 100 kB of JSON."""


class PageInfo(Protocol):
    """The facts about a page besides its rows, such as whether another one follows."""

    has_more: bool
    total: int | None
    total_is_exact: bool | None


@dataclass(slots=True, kw_only=True)
class Pagination:
    """The page that a request selects."""

    resource: str
    """The plural name of the resource: the key of the list in the body."""

    path: str
    """The path of the list, with ROOT_PATH."""

    page: int | None
    per_page: int
    cursor: str | None
    filters: dict[str, str]
    """The other parameters of the request, as they are written in the query string."""

    sort: cursors.Order = "id"
    """What the list is sorted by."""

    has_other_pages: bool = True
    """Whether the list has pages, with numbers or cursors, and `Link` leads to them."""

    @property
    def offset(self) -> int:
        """The number of rows before the page.

        Raises:
            InvalidFieldError: The number is greater than `MAX_OFFSET`.
        """
        offset = ((self.page or 1) - 1) * self.per_page
        if offset > MAX_OFFSET:
            raise InvalidFieldError(
                "page", f"Page numbers reach the first {MAX_OFFSET:,} entries; beyond, use `cursor`"
            )
        return offset

    def response(self, rows: Sequence[Versioned], info: PageInfo) -> Response:
        """Return the response.

        If the rows are too large for one body, a page without a total ends early, and its `next_cursor` continues.

        Raises:
            PageTooLargeError: The rows of a page with a total are too large for one body.
        """
        content = self.body(rows, info, has_more=info.has_more)
        body = render(content)
        if len(body) > MAX_PAGE_BYTES:
            if info.total is not None:
                raise PageTooLargeError(MAX_PAGE_BYTES)
            first = self._first_that_fit(rows, len(body) + cursors.LENGTH)
            content = self.body(first, info, has_more=info.has_more or len(first) < len(rows))
            body = render(content)
        return rendered_response(body, headers={"Link": self.links(content)} if self.has_other_pages else None)

    def body(self, rows: Sequence[Versioned], info: PageInfo, *, has_more: bool) -> dict[str, Any]:
        """Return the response body, with the members that every list has."""
        has_page_number = info.total is not None and self.has_other_pages
        return {
            self.resource: with_etags(rows),
            "page": (self.page or 1) if has_page_number else None,
            "per_page": self.per_page,
            "total": info.total,
            "total_is_exact": info.total_is_exact,
            "pages": -(-(info.total or 0) // self.per_page) if has_page_number else None,
            "next_cursor": cursors.after(rows[-1], self.sort) if has_more else None,
        }

    def _first_that_fit(self, rows: Sequence[Versioned], body_bytes: int) -> Sequence[Versioned]:
        """The first of the rows, at least one, as many as fit into a body. All together need `body_bytes`."""
        kept = len(rows)
        while kept > 1 and body_bytes > MAX_PAGE_BYTES:
            kept -= 1
            body_bytes -= len(render(*with_etags(rows[kept : kept + 1]))) + len(",")
        return rows[:kept]

    def links(self, body: dict[str, Any]) -> str:
        """Return the `Link` header (RFC 8288). Its targets are relative, because a client chooses the Host header."""
        query = f"per_page={self.per_page}"
        if self.filters:
            query += f"&{urlencode(self.filters)}"
        targets = {"first": query}
        if body["page"] is not None:
            page, pages = body["page"], body["pages"]
            if page > 1:
                targets["prev"] = f"page={page - 1}&{query}"
            if body["next_cursor"] is not None:
                needs_cursor = page * self.per_page > MAX_OFFSET
                targets["next"] = (
                    f"cursor={body['next_cursor']}&{query}" if needs_cursor else f"page={page + 1}&{query}"
                )
            if body["total_is_exact"] and 0 < (pages - 1) * self.per_page <= MAX_OFFSET:
                targets["last"] = f"page={pages}&{query}"
        elif body["next_cursor"] is not None:
            targets["next"] = f"cursor={body['next_cursor']}&{query}"
        return ", ".join([f'<{self.path}?{target}>; rel="{relation}"' for relation, target in targets.items()])
