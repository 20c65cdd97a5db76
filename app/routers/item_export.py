"""The export of all items, below /items."""

from functools import partial
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Security
from starlette.responses import Response

from app.auth.scopes import access_token
from app.crud import item_export
from app.dependencies import DatabaseDependency
from app.errors import InvalidFieldError
from app.http import cursors
from app.http.ndjson import NdjsonResponse
from app.rate_limits import limiter
from app.schemas.item import EXPORTED, ActiveFilter, Search

router = APIRouter()

_OF_LISTS = ("page", "per_page", "count", "sort", "updated_after", "ids")
"""The parameters of a list that would select or order other items, and that an export does not have."""

_STREAMED: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "One item a line, as in a list. If the last line has no newline, the response is incomplete.",
        "content": {NdjsonResponse.media_type: {"example": EXPORTED}},
    }
}


@router.get(
    "/export",
    dependencies=[Security(access_token, scopes=["items:read"])],
    status_code=HTTPStatus.OK,  # FastAPI finds none in this class
    response_class=NdjsonResponse,
    responses=_STREAMED,
)
@limiter.limit(limiter.setting("export"))
async def export_items(
    request: Request,
    database: DatabaseDependency,
    cursor: Annotated[
        str | None,
        Query(description="The `id` of the last item that was received, or `next_cursor` of a list.", max_length=64),
    ] = None,
    is_active: ActiveFilter = None,
    q: Annotated[Search | None, Query(description="Text that the name contains. Case does not matter.")] = None,
) -> Response:
    """Stream all items in the order of their ids, one a line.

    The last line ends with a newline if the export is complete. If it does not, repeat the request with the `id` of the
    last complete line as `cursor`.
    """
    for name in _OF_LISTS:
        if name in request.query_params:
            raise InvalidFieldError(name, "An export has no such parameter")
    read_after = partial(item_export.chunk_after, database, is_active=is_active, q=q or None)
    return NdjsonResponse(read_after, position=cursors.START if cursor is None else cursors.decode_or_id(cursor))
