"""A body is read by the same rules on every route, whether a `Binding` or FastAPI's handler calls the endpoint."""

from http import HTTPStatus
from typing import Annotated, Any, ClassVar

import httpx
import orjson
import pytest
from fastapi import APIRouter, Body, Cookie, Form, Request, UploadFile
from pydantic import BaseModel
from starlette.responses import JSONResponse, Response

from app.errors import RequestRefusedError
from app.http.openapi import MERGE_PATCH_TOO
from app.http.route import Route
from app.main import create_app
from app.settings import Settings
from app.state_keys import BODY_KEPT, BODY_LONG
from tests.answers import problem, refused_fields

JSON = {"Content-Type": "application/json"}
LIMIT = 1_000

Session = Annotated[str | None, Cookie()]
"""A parameter that only FastAPI's handler binds."""

router = APIRouter(prefix="/notes")
lenient_router = APIRouter(prefix="/notes", strict_content_type=False)


@router.post("/bound")
async def bound(note: dict[str, Any]) -> Response:
    """Return the note, called by a `Binding`."""
    return JSONResponse(note)


@router.post("/solved")
async def solved(note: dict[str, Any], session: Session = None) -> Response:
    """Return the note, called by FastAPI."""
    return JSONResponse(note)


@router.post("/returned")
def returned(note: dict[str, Any]) -> dict[str, Any]:
    """Return the note for FastAPI to render, in the thread pool."""
    return note


@router.post("/two")
async def two(note: dict[str, Any], size: Annotated[int, Body()]) -> dict[str, Any]:
    """Take a body of two parts."""
    return {"note": note, "size": size}


@router.post("/optional")
async def optional(note: dict[str, Any] | None = None) -> dict[str, Any] | None:
    """Take a body that can be absent."""
    return note


@lenient_router.post("/lenient")
async def lenient(note: dict[str, Any]) -> Response:
    """Take a body without a content type, too."""
    return JSONResponse(note)


@router.post("/bound/two-types", openapi_extra=MERGE_PATCH_TOO)
async def bound_with_two_types(note: dict[str, Any]) -> Response:
    """Return the note, in JSON or as a merge patch, called by a `Binding`."""
    return JSONResponse(note)


@router.post("/solved/two-types", openapi_extra=MERGE_PATCH_TOO)
async def solved_with_two_types(note: dict[str, Any], session: Session = None) -> Response:
    """Return the note, in JSON or as a merge patch, called by FastAPI."""
    return JSONResponse(note)


@router.post("/patch")
async def patch(note: Annotated[dict[str, Any], Body(media_type="application/merge-patch+json")]) -> Response:
    """Take a body of another JSON type."""
    return JSONResponse(note)


@router.post("/text")
async def text(note: Annotated[bytes, Body(media_type="text/*")]) -> Response:
    """Take a body that is not JSON."""
    return Response(note)


@router.post("/request")
async def request(request: Request) -> Response:
    """Read the body from the request."""
    return Response(await request.body())


@router.post("/small", max_body_size=10)
async def small(note: dict[str, Any]) -> Response:
    """Take a small body, called by a `Binding`."""
    return JSONResponse(note)


@router.post("/small-solved", max_body_size=10)
async def small_solved(note: dict[str, Any], session: Session = None) -> Response:
    """Take a small body, called by FastAPI."""
    return JSONResponse(note)


class Few(BaseModel):
    """A body that may have few values."""

    max_json_values: ClassVar = 30
    note: Any


@router.post("/few", max_body_size=10_000)
async def few(body: Few, request: Request) -> Response:
    """Take few values, called by a `Binding`."""
    return JSONResponse({"note": body.note, "is_kept": BODY_KEPT in request.scope["state"]})


@router.post("/few-solved", max_body_size=10_000)
async def few_solved(body: Few, request: Request, session: Session = None) -> Response:
    """Take few values, called by FastAPI."""
    return JSONResponse({"note": body.note, "is_kept": BODY_KEPT in request.scope["state"]})


@router.post("/form")
async def form(title: Annotated[str, Form()], size: Annotated[int, Form()] = 1) -> dict[str, Any]:
    """Take a form."""
    return {"title": title, "size": size}


@router.post("/file")
async def file(note: UploadFile, title: Annotated[str | None, Form()] = None) -> dict[str, Any]:
    """Take a file."""
    return {"name": note.filename, "content": (await note.read()).decode(), "title": title}


@pytest.fixture
async def client():
    """A client of this service with the routes above and a limit of 1,000 bytes."""
    app = create_app(
        Settings.load(database_url="postgresql://a@b/c", rate_limit_enabled=False, max_body_bytes=LIMIT, _env_file=None)
    )
    app.include_router(router)
    app.include_router(lenient_router)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://testserver") as running:
        await running.get("/health")
        bindings = {route.path: route.binding is not None for route in app.routes if isinstance(route, Route)}
        assert (True, False) == (bindings["/notes/bound"], bindings["/notes/solved"])
        yield running


async def chunks(*parts):
    """Send the parts as a body without a declared length."""
    for part in parts:
        yield part


json_routes = pytest.mark.parametrize("path", ["bound", "solved", "returned", "two"])


@json_routes
async def test_a_valid_body_is_accepted(client, path):
    """Every route that declares a JSON body accepts one."""
    document = {"note": {"a": 1}, "size": 2}

    assert document == (await client.post(f"/notes/{path}", json=document)).json()


@json_routes
async def test_other_media_types_are_refused(client, path):
    """A body of another type, without a type, in another character set, or compressed is 415."""
    for headers in (
        {},
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/merge-patch+json"},
        {"Content-Type": "application/json; charset=latin-1"},
        JSON | {"Content-Encoding": "gzip"},
    ):
        response = await client.post(f"/notes/{path}", content=b'{"a": 1}', headers=headers)
        assert "application/json" in problem(response, 415, "unsupported_media_type")["detail"]
    problem(await client.post(f"/notes/{path}"), 415, "unsupported_media_type")


@json_routes
async def test_a_body_that_is_not_strict_json_is_malformed(client, path):
    """NaN, lone surrogates, UTF-16, an empty body and a truncated one are 400."""
    for body in (b"", b"{", b'{"a": NaN}', b'{"a": "\\ud800"}', '{"a": 1}'.encode("utf-16"), b'{"a": 1}x'):
        answer = problem(await client.post(f"/notes/{path}", content=body, headers=JSON), 400, "malformed_body")
        assert "lone surrogates" in answer["detail"]


@pytest.mark.parametrize("path", ["bound", "solved", "returned", "two", "optional", "text", "request"])
@pytest.mark.parametrize("is_declared", [True, False])
async def test_a_body_above_the_limit_is_refused(client, path, is_declared):
    """One byte more than MAX_BODY_BYTES is 413, also if the endpoint reads the body from the request."""
    body = orjson.dumps({"a": "x" * (LIMIT - 7)})
    assert LIMIT + 1 == len(body)
    headers = {"Content-Type": "text/plain" if path == "text" else "application/json"}
    content = body if is_declared else chunks(body[:600], body[600:])

    response = await client.post(f"/notes/{path}", content=content, headers=headers)

    assert str(LIMIT) in problem(response, 413, "body_too_large")["detail"]


@pytest.mark.parametrize("path", ["few", "few-solved"])
async def test_a_model_can_limit_the_values_of_its_document(client, path):
    """They are counted by commas and brackets, but not by those in texts, whatever is escaped in them."""
    texts = ["[" * 100, ',"' * 100, "\\" * 101, '\\",' * 100, '\\\\"[', "é\n,"]
    for note in ([0] * 28, [{}] * 14, {str(number): "," for number in range(28)}, *texts, [*texts, *texts, *texts]):
        answer = await client.post(f"/notes/{path}", json={"note": note})
        assert {"note": note, "is_kept": True} == answer.json()
    for note in ([0] * 30, [{}] * 30, [[]] * 30, {str(number): "," for number in range(30)}, [""] * 200):
        answer = await client.post(f"/notes/{path}", json={"note": note})
        assert [{"field": "body", "message": "Input should have at most 30 values"}] == answer.json()["errors"]


@pytest.mark.parametrize("path", ["small", "small-solved"])
@pytest.mark.parametrize("is_declared", [True, False])
async def test_the_limit_of_a_route_replaces_the_general_one(client, path, is_declared):
    """`max_body_size` of a route is its limit, and the response is a problem as everywhere."""

    def content(body: bytes) -> Any:
        return body if is_declared else chunks(body[:5], body[5:])

    accepted = await client.post(f"/notes/{path}", content=content(b'{"a": 123}'), headers=JSON)
    refused = await client.post(f"/notes/{path}", content=content(b'{"a": 1234}'), headers=JSON)

    assert {"a": 123} == accepted.json()
    assert "10 bytes" in problem(refused, 413, "body_too_large")["detail"]


async def test_an_optional_body_can_be_absent(client):
    """Without a body an optional one is its default; a body that is sent follows the rules."""
    assert (await client.post("/notes/optional")).json() is None
    assert (await client.post("/notes/optional", headers=JSON)).json() is None
    assert {"a": 1} == (await client.post("/notes/optional", json={"a": 1})).json()
    problem(await client.post("/notes/optional", content=b'{"a": 1}'), 415, "unsupported_media_type")
    problem(await client.post("/notes/optional", content=b"{", headers=JSON), 400, "malformed_body")


async def test_a_declared_media_type_is_the_accepted_one(client):
    """A route accepts the media type that its body declares, and no other."""
    patched = await client.post(
        "/notes/patch", content=b'{"a": 1}', headers={"Content-Type": "application/merge-patch+json"}
    )
    plain = await client.post("/notes/text", content=b"\xff", headers={"Content-Type": "text/plain"})

    assert {"a": 1} == patched.json()
    assert b"\xff" == plain.content
    refused = problem(await client.post("/notes/patch", json={"a": 1}), 415, "unsupported_media_type")
    assert "application/merge-patch+json" in refused["detail"]
    problem(await client.post("/notes/text", json={"a": 1}), 415, "unsupported_media_type")


@pytest.mark.parametrize("path", ["bound/two-types", "solved/two-types"])
async def test_a_route_can_document_a_second_media_type(client, path):
    """A JSON media type in `openapi_extra` is accepted as the first one is; another one is refused, and both named."""
    for media_type in ("application/json", "application/merge-patch+json"):
        answer = await client.post(f"/notes/{path}", content=b'{"a": 1}', headers={"Content-Type": media_type})
        assert {"a": 1} == answer.json()
    other = {"Content-Type": "application/problem+json"}
    refused = problem(await client.post(f"/notes/{path}", content=b"{}", headers=other), 415, "unsupported_media_type")
    assert "application/json or application/merge-patch+json" in refused["detail"]


async def test_forms_and_files_are_accepted(client):
    """A form in either encoding is read, and a file with the fields beside it."""
    encoded = await client.post("/notes/form", data={"title": "a", "size": "2"})
    multipart = await client.post("/notes/form", files={"title": (None, "a")})
    uploaded = await client.post("/notes/file", files={"note": ("a.txt", b"text")}, data={"title": "b"})

    assert {"title": "a", "size": 2} == encoded.json()
    assert {"title": "a", "size": 1} == multipart.json()
    assert {"name": "a.txt", "content": "text", "title": "b"} == uploaded.json()


@pytest.mark.parametrize("path", ["form", "file"])
async def test_a_form_follows_the_rules(client, path):
    """Another type is 415, a compressed form too, an invalid field is 422, and a broken form is 400."""
    multipart = {"Content-Type": "multipart/form-data; boundary=x"}

    refused = problem(await client.post(f"/notes/{path}", json={"title": "a"}), 415, "unsupported_media_type")
    assert "multipart/form-data" in refused["detail"]
    problem(await client.post(f"/notes/{path}"), 415, "unsupported_media_type")
    problem(
        await client.post(f"/notes/{path}", content=b"", headers=multipart | {"Content-Encoding": "gzip"}),
        415,
        "unsupported_media_type",
    )
    assert {"note" if path == "file" else "title"} == refused_fields(
        await client.post(f"/notes/{path}", files={"other": (None, "a")})
    )
    problem(await client.post(f"/notes/{path}", content=b"not a form", headers=multipart), 400, "bad_request")


@pytest.mark.parametrize("is_declared", [True, False])
async def test_a_form_above_the_limit_is_refused(client, is_declared):
    """A form or a file of more than MAX_BODY_BYTES is 413, with a declared length and without."""
    body = b"title=" + b"x" * LIMIT
    content = body if is_declared else chunks(body[:600], body[600:])
    encoded = {"Content-Type": "application/x-www-form-urlencoded"}
    part = b'--x\r\nContent-Disposition: form-data; name="note"; filename="a"\r\n\r\n' + b"x" * LIMIT + b"\r\n--x--\r\n"
    file_content = part if is_declared else chunks(part[:600], part[600:])

    problem(await client.post("/notes/form", content=content, headers=encoded), 413, "body_too_large")
    problem(
        await client.post(
            "/notes/file", content=file_content, headers={"Content-Type": "multipart/form-data; boundary=x"}
        ),
        413,
        "body_too_large",
    )


async def test_a_content_type_is_not_required_where_the_router_says_so(client):
    """With `strict_content_type=False` a body without a content type is JSON; another type is still 415."""
    assert {"a": 1} == (await client.post("/notes/lenient", content=b'{"a": 1}')).json()
    problem(
        await client.post("/notes/lenient", content=b'{"a": 1}', headers={"Content-Type": "text/plain"}),
        415,
        "unsupported_media_type",
    )


@router.delete("/none")
async def none() -> Response:
    """Take no body, called by a `Binding`."""
    return Response(status_code=204)


@router.delete("/none-solved")
async def none_solved(session: Session = None) -> Response:
    """Take no body, called by FastAPI."""
    return Response(status_code=204)


@router.delete("/own", max_body_size=100)
async def own(request: Request) -> Response:
    """Read the body itself."""
    return Response(await request.body())


async def begun_early(client, path, messages):
    """The answers to a DELETE that begins before its body has arrived, and how many messages were left."""
    left = list(messages)
    sent: list[Any] = []

    async def receive():
        message = left.pop(0)
        if isinstance(message, Exception):
            raise message
        return {"type": "http.request", **message}

    async def send(message):
        sent.append(message)

    scope = {
        "type": "http", "method": "DELETE", "path": f"/notes/{path}", "raw_path": b"", "query_string": b"",
        "http_version": "1.1", "headers": [(b"host", b"a")], "client": ("127.0.0.1", 1), "server": ("a", 80),
        "scheme": "http", "root_path": "", "state": {BODY_LONG: True},
    }  # fmt: skip
    await client._transport.app(scope, receive, send)
    return [message["status"] for message in sent if message["type"] == "http.response.start"], len(left)


@pytest.mark.parametrize("path", ["none", "none-solved"])
async def test_an_endpoint_without_a_body_is_called_when_the_body_has_arrived(client, path):
    """If the rest of the body is refused, or it is too long, the endpoint is not called."""
    part = {"body": b"x", "more_body": True}
    last = {"body": b"x", "more_body": False}
    refused = RequestRefusedError(HTTPStatus.BAD_REQUEST)

    assert ([204], 0) == await begun_early(client, path, [part, part, last])
    assert ([400], 0) == await begun_early(client, path, [part, refused])
    assert ([413], 1) == await begun_early(client, path, [{"body": b"x" * (LIMIT + 1), "more_body": True}, part])


async def test_an_endpoint_with_a_size_of_its_own_reads_the_body_itself(client):
    """It is called before the body has arrived."""
    assert ([200], 0) == await begun_early(client, "own", [{"body": b"x"}])
