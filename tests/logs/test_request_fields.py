import httpx
import pytest
from fastapi import APIRouter, Request
from starlette.responses import Response

from app.logs.request_fields import MAX_CHARACTERS, MAX_FIELDS, OWN_FIELDS, add_log_fields
from app.main import create_app
from app.settings import Settings
from tests.log_lines import Lines

pytestmark = pytest.mark.anyio


async def respond(router: APIRouter) -> httpx.Response:
    """Send `GET /fields` to the application with this router."""
    settings = Settings.load(
        database_url="postgresql://nobody@127.0.0.1:1/none", rate_limit_enabled=False, _env_file=None
    )
    transport = httpx.ASGITransport(create_app(settings, resources=(router,)))
    async with httpx.AsyncClient(transport=transport, base_url="http://testserver") as client:
        return await client.get("/fields")


def served(lines: Lines) -> list[dict[str, object]]:
    """The `request_served` lines."""
    return [line for line in lines() if line["event"] == "request_served"]


async def test_a_handler_adds_fields_to_its_line(lines):
    """The fields are in the line of the request that added them, and not in the next one."""
    router = APIRouter(prefix="/fields")
    tenants = iter(["first", "second"])

    @router.get("")
    async def add(request: Request) -> Response:
        if tenant := next(tenants, None):
            add_log_fields(request, tenant=tenant, size=3)
            add_log_fields(request, size=4, text="x" * 1000)
        return Response()

    for _ in range(3):
        await respond(router)

    first, second, third = served(lines)
    assert ("first", 4, "x" * MAX_CHARACTERS) == (first["tenant"], first["size"], first["text"])
    assert "second" == second["tenant"]
    assert OWN_FIELDS - {"span_id"} == set(third)  # requests are not traced here


@pytest.mark.parametrize(
    "fields", [{"status": 200}, {"event": "a"}, {"self": 1}, {f"field_{n}": n for n in range(MAX_FIELDS + 1)}]
)
async def test_a_field_cannot_replace_another_one(lines, fields):
    """A field that the line has already, and one too many, are defects of the handler."""
    router = APIRouter(prefix="/fields")

    @router.get("")
    async def add(request: Request) -> Response:
        with pytest.raises(ValueError, match="fields"):
            add_log_fields(request, **fields)
        return Response()

    assert 200 == (await respond(router)).status_code
    assert 200 == served(lines)[0]["status"]
