import asyncio

import httpx
import pytest

from app import __version__
from app.main import create_app
from app.settings import Settings
from tests.answers import problem

READY = {"status": "ready", "checks": {"database": "ok", "schema": "current", "draining": False}}


@pytest.fixture
async def client_without_database():
    """A client of the application whose database nobody listens for."""
    settings = Settings.load(
        database_url="postgresql://nobody:secret@127.0.0.1:1/none", rate_limit_enabled=False, _env_file=None
    )
    app = create_app(settings)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://testserver") as running,
    ):
        yield running


async def test_the_index_leads_on(client):
    """The root names the service, its version, and paths that answer."""
    index = (await client.get("/")).json()

    assert ("Items API", __version__) == (index["name"], index["version"])
    assert {"items", "documentation", "openapi", "health"} <= set(index["links"])
    for path in index["links"].values():
        assert 200 == (await client.get(path)).status_code


async def test_the_index_names_what_answers_at_this_port_only(settings):
    """With a port for operators the index leads neither to their metrics nor to readiness."""
    app = create_app(settings.model_copy(update={"ops_port": 9000}))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://testserver") as client:
        links = (await client.get("/")).json()["links"]

    assert {"items", "documentation", "openapi", "health"} == set(links)


@pytest.mark.parametrize("path", ["/", "/health", "/health/ready", "/openapi.json", "/docs"])
async def test_head_is_get_without_the_body(client, path):
    """HEAD works for these too, with GET's headers."""
    head, get = await client.head(path), await client.get(path)

    assert (200, b"") == (head.status_code, head.content)
    assert {**get.headers, "x-request-id": ""} == {**head.headers, "x-request-id": ""}


@pytest.mark.parametrize("path", ["/", "/health", "/health/ready", "/openapi.json", "/docs"])
async def test_they_only_read(client, path):
    """Any other method is 405, and told so."""
    for method in ("POST", "PUT", "PATCH", "DELETE", "OPTIONS"):
        response = await client.request(method, path)
        problem(response, 405, "method_not_allowed")
        assert "GET, HEAD" == response.headers["allow"]


async def test_a_ready_worker_says_what_it_has_checked(client):
    """With a migrated database the answer is 200 and names each check."""
    response = await client.get("/health/ready")

    assert (200, READY) == (response.status_code, response.json())


async def test_health_asks_nobody(client_without_database):
    """Without a database the process is healthy; requests are not served, and say when to come again."""
    health, ready, items = await asyncio.gather(
        *(client_without_database.get(path) for path in ("/health", "/health/ready", "/items"))
    )

    assert (200, {"status": "ok"}) == (health.status_code, health.json())
    checks = problem(ready, 503, "not_ready")["checks"]
    assert {"database": "database_unavailable", "schema": "unknown", "draining": False} == checks
    problem(items, 503, "database_unavailable")
    assert ready.headers["retry-after"].isdigit()
    assert items.headers["retry-after"].isdigit()


async def test_a_database_behind_is_not_ready(client, sql):
    """Until it is migrated, readiness is 503 and so are requests that need the schema."""
    await sql.execute("DROP TABLE alembic_version, items, idempotency_keys CASCADE")

    ready = await client.get("/health/ready")
    items = await client.get("/items")

    assert {"database": "ok", "schema": "behind", "draining": False} == problem(ready, 503, "not_ready")["checks"]
    problem(items, 503, "schema_outdated")
    assert items.headers["retry-after"].isdigit()


async def test_a_database_ahead_is_ready(client, sql):
    """A newer release may have migrated already: going back to this one must stay possible."""
    await sql.execute("UPDATE alembic_version SET version_num = '9999'")

    response = await client.get("/health/ready")

    assert "ahead" == response.json()["checks"]["schema"]
    assert 200 == response.status_code
