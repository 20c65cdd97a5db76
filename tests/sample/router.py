"""The routes below /samples."""

import hashlib
from http import HTTPStatus
from typing import Annotated

import orjson
import structlog
from fastapi import APIRouter, Header, Query, Request, Security
from pydantic import Field
from starlette.responses import Response

from app.auth.scopes import access_token, owner_of
from app.dependencies import DatabaseDependency, ReadDatabaseDependency
from app.errors import InvalidFieldError
from app.http import cursors
from app.http.etags import etag, expected_versions, is_not_modified
from app.http.openapi import ETAG, MERGE_PATCH_TOO, error_responses, header
from app.http.pagination import Pagination
from app.http.responses import json_response
from tests.sample import crud
from tests.sample.schemas import PageNumber, PerPage, SampleCreate, SampleId, SampleList, SampleRead, SampleUpdate

log = structlog.get_logger(__name__)

router = APIRouter(prefix="/samples", tags=["samples"])

_READ = Security(access_token, scopes=["samples:read"])
_WRITE = Security(access_token, scopes=["samples:write"])

_NOT_FOUND = error_responses(crud.SampleNotFoundError(1))
_ONE = {200: {"headers": ETAG}} | _NOT_FOUND

IfMatch = Annotated[list[str] | None, Header(description="Change the sample only if its ETag is one of these.")]
IfNoneMatch = Annotated[list[str] | None, Header(description="304 if the sample's ETag is one of these.")]
IdempotencyKey = Annotated[
    list[Annotated[str, Field(min_length=1, max_length=255, pattern=r"^[\x21-\x7e]+$")]] | None,
    Header(max_length=1, description="Send the same key with a retry."),
]


@router.post(
    "",
    dependencies=[_WRITE],
    status_code=HTTPStatus.CREATED,
    response_model=SampleRead,
    responses={201: {"headers": ETAG | {"Location": header("The path."), "Idempotency-Replayed": header("`true`.")}}},
)
async def create_sample(
    request: Request, body: SampleCreate, database: DatabaseDependency, idempotency_key: IdempotencyKey = None
) -> Response:
    """Create a sample."""
    values = body.model_dump()
    if idempotency_key is None:
        sample, is_replay = await crud.create(database, values), False
    else:
        fingerprint = hashlib.sha256(orjson.dumps(values)).digest()
        sample, is_replay = await crud.create_once(
            database, values, key=idempotency_key[0], fingerprint=fingerprint, owner=owner_of(request)
        )
    log.debug("sample_created", sample_id=sample.id, is_replay=is_replay)
    headers = {"Location": f"{_path(request)}/{sample.id}", "ETag": etag(sample)}
    if is_replay:
        headers["Idempotency-Replayed"] = "true"
    return json_response(sample, headers=headers, status=HTTPStatus.CREATED)


@router.get(
    "",
    dependencies=[_READ],
    response_model=SampleList,
    responses={200: {"headers": {"Link": header("Links to other pages.")}}},
)
async def list_samples(
    request: Request,
    database: ReadDatabaseDependency,
    page: Annotated[PageNumber | None, Query()] = None,
    per_page: PerPage = 20,
    cursor: Annotated[str | None, Query(description="`next_cursor` of the page before.", max_length=64)] = None,
) -> Response:
    """List samples in the order of their ids."""
    if cursor is not None and page is not None:
        raise InvalidFieldError("page", "Send `page` or `cursor`, not both")
    pagination = Pagination(
        resource="samples", path=_path(request), page=page, per_page=per_page, cursor=cursor, filters={}
    )
    if cursor is None:
        found = await crud.page(database, limit=per_page, offset=pagination.offset)
    else:
        found = await crud.page_after(database, cursors.decode(cursor), limit=per_page)
    return pagination.response(found.samples, found)


@router.get(
    "/{sample_id}", dependencies=[_READ], response_model=SampleRead, responses=_ONE | {304: {"description": "Current."}}
)
async def read_sample(
    sample_id: SampleId, database: ReadDatabaseDependency, if_none_match: IfNoneMatch = None
) -> Response:
    """Read one sample."""
    sample = await crud.get(database, sample_id)
    if is_not_modified(if_none_match, sample):
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers={"ETag": etag(sample)})
    return json_response(sample, headers={"ETag": etag(sample)})


@router.put("/{sample_id}", dependencies=[_WRITE], response_model=SampleRead, responses=_ONE)
async def replace_sample(
    sample_id: SampleId, body: SampleCreate, database: DatabaseDependency, if_match: IfMatch = None
) -> Response:
    """Replace all fields of a sample."""
    versions = expected_versions(if_match, sample_id)
    sample = await crud.change(database, sample_id, body.model_dump(), versions=versions)
    return json_response(sample, headers={"ETag": etag(sample)})


@router.patch(
    "/{sample_id}",
    dependencies=[_WRITE],
    response_model=SampleRead,
    responses=_ONE,
    openapi_extra=MERGE_PATCH_TOO,
)
async def change_sample(
    sample_id: SampleId, body: SampleUpdate, database: DatabaseDependency, if_match: IfMatch = None
) -> Response:
    """Change the fields that are present."""
    changes = body.to_changes()
    if not changes:
        raise InvalidFieldError("body", "Send at least one field to change")
    sample = await crud.change(database, sample_id, changes, versions=expected_versions(if_match, sample_id))
    return json_response(sample, headers={"ETag": etag(sample)})


@router.delete("/{sample_id}", dependencies=[_WRITE], status_code=HTTPStatus.NO_CONTENT, responses=_NOT_FOUND)
async def delete_sample(sample_id: SampleId, database: DatabaseDependency, if_match: IfMatch = None) -> Response:
    """Delete a sample."""
    await crud.delete(database, sample_id, versions=expected_versions(if_match, sample_id))
    return Response(status_code=HTTPStatus.NO_CONTENT)


def _path(request: Request) -> str:
    """The path of the list, with the prefix that a proxy strips."""
    return f"{request.scope['root_path']}/samples"
