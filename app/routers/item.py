"""The routes below /items."""

import hashlib
from http import HTTPStatus
from typing import Annotated, Any, Literal

import orjson
import structlog
from fastapi import APIRouter, Header, Query
from pydantic import Field
from starlette.responses import Response

from app.crud import item as items
from app.crud import item_idempotency, item_page
from app.dataclasses.item import ItemData
from app.dependencies import DatabaseDependency
from app.errors import InvalidFieldError, ItemNotFoundError
from app.http import cursors
from app.http.etags import etag, expected_versions, is_known
from app.http.openapi import ETAG, failed, header
from app.http.pagination import Listing
from app.http.responses import json_response
from app.http.route import Route
from app.schemas.item import (
    ActiveFilter,
    Flag,
    ItemCreate,
    ItemId,
    ItemList,
    ItemRead,
    ItemReplace,
    ItemUpdate,
    PageNumber,
    PerPage,
    Search,
)

log = structlog.get_logger(__name__)

router = APIRouter(prefix="/items", tags=["items"], route_class=Route)

_CREATED: dict[int | str, dict[str, Any]] = {
    201: {
        "headers": ETAG
        | {
            "Location": header("Where the item is."),
            "Idempotency-Replayed": header("`true` where this is the first answer once more."),
        }
    }
}
_LISTED: dict[int | str, dict[str, Any]] = {200: {"headers": {"Link": header("The pages around, as in RFC 8288.")}}}
_NOT_FOUND = failed(ItemNotFoundError(1))
_SHOWN = {200: {"headers": ETAG}} | _NOT_FOUND
_CONDITIONAL = _SHOWN | {304: {"description": "The client has this version already.", "headers": ETAG}}

IfMatch = Annotated[list[str] | None, Header(description="Only if the item's ETag is one of these.")]
IfNoneMatch = Annotated[list[str] | None, Header(description="304 if the item's ETag is one of these.")]
IdempotencyKey = Annotated[
    list[Annotated[str, Field(min_length=1, max_length=255, pattern=r"^[\x21-\x7e]+$")]] | None,
    Header(max_length=1, description="Sent again with a retry: one item is made, and the first answer given again."),
]


@router.post("", status_code=HTTPStatus.CREATED, response_model=ItemRead, responses=_CREATED)
async def create_item(
    body: ItemCreate, database: DatabaseDependency, idempotency_key: IdempotencyKey = None
) -> Response:
    """Store a new item."""
    data = body.to_data()
    if idempotency_key is None:
        item, is_replay = await items.create(database, data.to_dict()), False
    else:
        item, is_replay = await item_idempotency.create_once(
            database, data.to_dict(), key=idempotency_key[0], fingerprint=_fingerprint(data)
        )
    log.debug("item_created", item_id=item.id, is_replay=is_replay)
    headers = {"Location": f"/items/{item.id}", "ETag": etag(item)}
    if is_replay:
        headers["Idempotency-Replayed"] = "true"
    return json_response(item, headers=headers, status=HTTPStatus.CREATED)


@router.get("", response_model=ItemList, responses=_LISTED)
async def list_items(
    database: DatabaseDependency,
    page: Annotated[PageNumber | None, Query()] = None,
    per_page: PerPage = 20,
    cursor: Annotated[str | None, Query(description="`next_cursor` of the page before.", max_length=64)] = None,
    is_active: ActiveFilter = None,
    q: Annotated[Search | None, Query(description="A part of the name, whatever its case.")] = None,
    count: Annotated[
        Literal["exact"] | None, Query(description="Count all matches instead of estimating many.")
    ] = None,
) -> Response:
    """Items in the order of their ids, by the page or from a cursor on."""
    q = q or None
    if cursor is not None and page is not None:
        raise InvalidFieldError("page", "Ask for a `page` or with a `cursor`, not both")
    asked = {"is_active": None if is_active is None else str(is_active).lower(), "q": q, "count": count}
    listing = Listing(
        resource="items",
        page=page,
        per_page=per_page,
        cursor=cursor,
        filters={name: value for name, value in asked.items() if value is not None},
    )
    if cursor is None:
        found = await item_page.page(
            database,
            limit=per_page,
            offset=listing.offset,
            is_active=is_active,
            q=q,
            count_exactly=count == "exact",
        )
    else:
        found = await item_page.page_after(database, cursors.decode(cursor), limit=per_page, is_active=is_active, q=q)
    answer = listing.body(found.items, found)
    return json_response(answer, headers={"Link": listing.links(answer)})


@router.get("/{item_id}", response_model=ItemRead, responses=_CONDITIONAL)
async def read_item(item_id: ItemId, database: DatabaseDependency, if_none_match: IfNoneMatch = None) -> Response:
    """One item."""
    item = await items.get(database, item_id)
    if is_known(if_none_match, item):
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers={"ETag": etag(item)})
    return json_response(item, headers={"ETag": etag(item)})


@router.put("/{item_id}", response_model=ItemRead, responses=_SHOWN)
async def replace_item(
    item_id: ItemId, body: ItemReplace, database: DatabaseDependency, if_match: IfMatch = None
) -> Response:
    """Replace all that a client may say of an item."""
    versions = expected_versions(if_match, item_id)
    item = await items.change(database, item_id, body.to_data().to_dict(), versions=versions)
    log.debug("item_replaced", item_id=item_id)
    return json_response(item, headers={"ETag": etag(item)})


@router.patch("/{item_id}", response_model=ItemRead, responses=_SHOWN)
async def change_item(
    item_id: ItemId, body: ItemUpdate, database: DatabaseDependency, if_match: IfMatch = None
) -> Response:
    """Change the fields that are sent."""
    changes = body.to_changes()
    if not changes:
        raise InvalidFieldError("body", "Send at least one field to change")
    item = await items.change(database, item_id, changes, versions=expected_versions(if_match, item_id))
    log.debug("item_changed", item_id=item_id)
    return json_response(item, headers={"ETag": etag(item)})


@router.delete("/{item_id}", status_code=HTTPStatus.NO_CONTENT, responses=_NOT_FOUND)
async def delete_item(
    item_id: ItemId,
    database: DatabaseDependency,
    permanent: Annotated[Flag, Query(description="Remove it for good.")] = False,
    if_match: IfMatch = None,
) -> Response:
    """Deactivate an item, or remove it for good."""
    versions = expected_versions(if_match, item_id)
    if permanent:
        await items.delete_permanently(database, item_id, versions=versions)
        log.debug("item_deleted", item_id=item_id)
    else:
        await items.deactivate(database, item_id, versions=versions)
        log.debug("item_deactivated", item_id=item_id)
    return Response(status_code=HTTPStatus.NO_CONTENT)


def _fingerprint(data: ItemData) -> bytes:
    """Tells one validated content from another."""
    return hashlib.sha256(orjson.dumps(data)).digest()
