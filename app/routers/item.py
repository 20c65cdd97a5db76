"""The routes below /items."""

import hashlib
from http import HTTPStatus
from typing import Annotated, Any, Literal

import orjson
from fastapi import APIRouter, Header, Query, Request, Security
from pydantic import Field
from starlette.responses import Response

from app.auth.scopes import access_token, owner_of
from app.crud import item as items
from app.crud import item_batch, item_feed, item_idempotency, item_page
from app.dataclasses.item import ItemData
from app.dependencies import DatabaseDependency, RateLimitsDependency, ReadDatabaseDependency
from app.errors import InvalidFieldError, ItemNotFoundError
from app.http import cursors
from app.http.etags import etag, expected_versions, is_not_modified, with_etags
from app.http.id_lists import PATTERN, parse_ids
from app.http.openapi import ETAG, MERGE_PATCH_TOO, error_responses, header
from app.http.pagination import Pagination
from app.http.responses import json_response
from app.routers import item_export
from app.schemas.item import (
    ActiveFilter,
    Flag,
    ItemBatch,
    ItemBatchRead,
    ItemCreate,
    ItemId,
    ItemList,
    ItemRead,
    ItemReplace,
    ItemUpdate,
    PageNumber,
    PerPage,
    Search,
    Time,
)

router = APIRouter(prefix="/items", tags=["items"])

_PER_PAGE = 20

_READ = Security(access_token, scopes=["items:read"])
_WRITE = Security(access_token, scopes=["items:write"])

_REPLAYED = {"Idempotency-Replayed": header("`true` if this repeats the response to an earlier request.")}
_CREATED: dict[int | str, dict[str, Any]] = {
    201: {"headers": ETAG | {"Location": header("The path of the item."), **_REPLAYED}}
}
_CREATED_MANY: dict[int | str, dict[str, Any]] = {201: {"headers": _REPLAYED}}
_LISTED: dict[int | str, dict[str, Any]] = {200: {"headers": {"Link": header("Links to the other pages (RFC 8288).")}}}

_NOT_FOUND = error_responses(ItemNotFoundError(1))
_ONE_ITEM = {200: {"headers": ETAG}} | _NOT_FOUND
_CONDITIONAL = _ONE_ITEM | {304: {"description": "The client already has this version.", "headers": ETAG}}

IfMatch = Annotated[list[str] | None, Header(description="Change the item only if its ETag is one of these.")]
IfNoneMatch = Annotated[list[str] | None, Header(description="The response is 304 if the item's ETag is one of these.")]
IdempotencyKey = Annotated[
    list[Annotated[str, Field(min_length=1, max_length=255, pattern=r"^[\x21-\x7e]+$")]] | None,
    Header(
        max_length=1,
        description="Send the same key with a retry: nothing is made twice, and the first response is repeated.",
    ),
]


@router.post("", dependencies=[_WRITE], status_code=HTTPStatus.CREATED, response_model=ItemRead, responses=_CREATED)
async def create_item(
    request: Request, body: ItemCreate, database: DatabaseDependency, idempotency_key: IdempotencyKey = None
) -> Response:
    """Create an item."""
    data = body.to_data()
    if idempotency_key is None:
        item, is_replay = await items.create(database, data.to_dict()), False
    else:
        item, is_replay = await item_idempotency.create_once(
            database,
            data.to_dict(),
            key=idempotency_key[0],
            fingerprint=_fingerprint(data),
            owner=owner_of(request),
        )
    headers = {"Location": f"{_path(request)}/{item.id}", "ETag": etag(item)}
    if is_replay:
        headers["Idempotency-Replayed"] = "true"
    return json_response(item, headers=headers, status=HTTPStatus.CREATED)


@router.post(
    "/batch",
    dependencies=[_WRITE],
    status_code=HTTPStatus.CREATED,
    response_model=ItemBatchRead,
    responses=_CREATED_MANY,
    max_body_size=1024 * 1024,
)
async def create_items(
    request: Request,
    body: ItemBatch,
    database: DatabaseDependency,
    rate_limits: RateLimitsDependency,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Create 1 to 500 items, all or none.

    The request counts as that many against the client's quota. The body can have 1 MiB, and 50,000 JSON values.
    """
    await rate_limits.count_as(request.scope, len(body.items))
    data = [item.to_data() for item in body.items]
    rows = [item.to_dict() for item in data]
    if idempotency_key is None:
        created, is_replay = await item_batch.create_many(database, rows), False
    else:
        created, is_replay = await item_batch.create_many_once(
            database, rows, key=idempotency_key[0], fingerprint=_fingerprint(data), owner=owner_of(request)
        )
    headers = {"Idempotency-Replayed": "true"} if is_replay else {}
    return json_response({"items": with_etags(created)}, headers=headers, status=HTTPStatus.CREATED)


@router.get("", dependencies=[_READ], response_model=ItemList, responses=_LISTED)
async def list_items(
    request: Request,
    database: ReadDatabaseDependency,
    page: Annotated[PageNumber | None, Query()] = None,
    per_page: PerPage = _PER_PAGE,
    cursor: Annotated[str | None, Query(description="`next_cursor` of the previous page.", max_length=64)] = None,
    is_active: ActiveFilter = None,
    q: Annotated[Search | None, Query(description="Text that the name contains. Case does not matter.")] = None,
    count: Annotated[
        Literal["exact"] | None,
        Query(
            description="Count all matches, instead of estimating a large total. A page after a cursor has no total, "
            "and `count` does not change it."
        ),
    ] = None,
    sort: Annotated[
        cursors.Order,
        Query(
            description="`-id` lists the newest items first, and cannot be combined with `q`. `updated_at` is a feed "
            "of changes: it has cursors and no page numbers or totals. Of the filters only `updated_after` can be "
            "combined with it."
        ),
    ] = "id",
    updated_after: Annotated[
        Time | None,
        Query(
            description="With `sort=updated_at`: only changes after this time, which has an offset. With `cursor` it "
            "changes nothing."
        ),
    ] = None,
    ids: Annotated[
        str | None,
        Query(
            description="Only the items with these ids, without those that do not exist. It cannot be combined with "
            "other parameters.",
            json_schema_extra={"pattern": PATTERN},
            examples=["3,1,9"],
        ),
    ] = None,
) -> Response:
    """List items in the order of their ids or of their changes, by page number or after a cursor, or by their ids."""
    q = q or None
    if ids is not None:
        _refuse_beside(
            "ids",
            page=page,
            per_page=None if per_page == _PER_PAGE else per_page,  # clients may send the default
            cursor=cursor,
            is_active=is_active,
            q=q,
            count=count,
            sort=None if sort == "id" else sort,
            updated_after=updated_after,
        )
        return await _list_chosen(request, database, ids)
    if cursor is not None and page is not None:
        raise InvalidFieldError("page", "Send `page` or `cursor`, not both")
    if sort == "updated_at":
        _refuse_beside("sort=updated_at", page=page, is_active=is_active, q=q, count=count)
    elif updated_after is not None:
        raise InvalidFieldError("updated_after", "Send it with `sort=updated_at`")
    if sort == "-id" and q is not None:
        raise InvalidFieldError("sort", "A search by `q` is in the order of the ids")
    filters = {
        "is_active": None if is_active is None else str(is_active).lower(),
        "q": q,
        "count": count,
        "sort": None if sort == "id" else sort,
        "updated_after": None if updated_after is None else updated_after.isoformat().replace("+00:00", "Z"),
    }
    pagination = Pagination(
        resource="items",
        path=_path(request),
        page=page,
        per_page=per_page,
        cursor=cursor,
        filters={name: value for name, value in filters.items() if value is not None},
        sort=sort,
    )
    if sort == "updated_at":
        position = item_feed.position_after(updated_after) if cursor is None else cursors.decode_change(cursor)
        result = await item_feed.changed_after(database.primary, position, limit=per_page)
    elif cursor is None:
        result = await item_page.page(
            database,
            limit=per_page,
            offset=pagination.offset,
            is_active=is_active,
            q=q,
            count_exactly=count == "exact",
            newest_first=sort == "-id",
        )
    else:
        result = await item_page.page_after(
            database,
            cursors.decode(cursor, sort),
            limit=per_page,
            is_active=is_active,
            q=q,
            newest_first=sort == "-id",
        )
    return pagination.response(result.items, result)


async def _list_chosen(request: Request, database: ReadDatabaseDependency, ids: str) -> Response:
    """The items with these ids, as one page that has no number."""
    if len(request.query_params.getlist("ids")) > 1:
        raise InvalidFieldError("ids", "Send one `ids`, with commas between the ids")
    item_ids = parse_ids("ids", ids)
    result = await item_page.chosen(database, item_ids)
    pagination = Pagination(
        resource="items",
        path=_path(request),
        page=None,
        per_page=len(item_ids),
        cursor=None,
        filters={},
        has_other_pages=False,
    )
    return pagination.response(result.items, result)


def _refuse_beside(reason: str, **others: Any) -> None:
    """Refuse the first of these parameters that is sent."""
    for name, value in others.items():
        if value is not None:
            raise InvalidFieldError(name, f"It cannot be combined with `{reason}`")


router.include_router(item_export.router)  # before the routes whose paths have an id


@router.get("/{item_id}", dependencies=[_READ], response_model=ItemRead, responses=_CONDITIONAL)
async def read_item(item_id: ItemId, database: ReadDatabaseDependency, if_none_match: IfNoneMatch = None) -> Response:
    """Read one item."""
    item = await items.get(database, item_id)
    if is_not_modified(if_none_match, item):
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers={"ETag": etag(item)})
    return json_response(item, headers={"ETag": etag(item)})


@router.put("/{item_id}", dependencies=[_WRITE], response_model=ItemRead, responses=_ONE_ITEM)
async def replace_item(
    item_id: ItemId, body: ItemReplace, database: DatabaseDependency, if_match: IfMatch = None
) -> Response:
    """Replace all fields of an item. Optional fields that are absent get their defaults."""
    versions = expected_versions(if_match, item_id)
    item = await items.change(database, item_id, body.to_data().to_dict(), versions=versions)
    return json_response(item, headers={"ETag": etag(item)})


@router.patch(
    "/{item_id}",
    dependencies=[_WRITE],
    response_model=ItemRead,
    responses=_ONE_ITEM,
    openapi_extra=MERGE_PATCH_TOO,
)
async def change_item(
    item_id: ItemId, body: ItemUpdate, database: DatabaseDependency, if_match: IfMatch = None
) -> Response:
    """Change the fields that are present."""
    changes = body.to_changes()
    if not changes:
        raise InvalidFieldError("body", "Send at least one field to change")
    item = await items.change(database, item_id, changes, versions=expected_versions(if_match, item_id))
    return json_response(item, headers={"ETag": etag(item)})


@router.delete("/{item_id}", dependencies=[_WRITE], status_code=HTTPStatus.NO_CONTENT, responses=_NOT_FOUND)
async def delete_item(
    item_id: ItemId,
    database: DatabaseDependency,
    permanent: Annotated[Flag, Query(description="Delete the item permanently.", examples=[True])] = False,
    if_match: IfMatch = None,
) -> Response:
    """Deactivate an item, or delete it permanently."""
    versions = expected_versions(if_match, item_id)
    if permanent:
        await items.delete_permanently(database, item_id, versions=versions)
    else:
        await items.deactivate(database, item_id, versions=versions)
    return Response(status_code=HTTPStatus.NO_CONTENT)


def _fingerprint(data: ItemData | list[ItemData]) -> bytes:
    """Return a hash of the validated content. Equal contents have equal hashes; one item is no batch of one."""
    return hashlib.sha256(orjson.dumps(data)).digest()


def _path(request: Request) -> str:
    """The path of the list, with the prefix that a proxy strips."""
    return f"{request.scope['root_path']}/items"
