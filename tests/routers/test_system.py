import asyncio

import httpx
import pytest

from app import TITLE, __version__
from app.health import readiness
from app.health.schema_state import VERSION_TABLE
from app.main import RESOURCES
from app.settings import Settings
from tests.answers import problem
from tests.migrations.alembic import HEAD
from tests.sample.app import create_app

CHECKS = {
    "database": "ok",
    "schema": "current",
    "revision_found": HEAD,
    "revision_needed": HEAD,
    "draining": False,
}


@pytest.fixture(autouse=True)
def _wait_for_the_first_check(monkeypatch):
    """Let probes wait for the first check, and give it time to connect, even if the machine is busy."""
    monkeypatch.setattr(readiness, "FIRST_SECONDS", 30.0)
    monkeypatch.setattr("app.database.connection.CONNECT_SECONDS", 30.0)


@pytest.fixture
async def client_without_database():
    """A client of an application whose database does not respond."""
    settings = Settings.load(
        database_url="postgresql://nobody:secret@127.0.0.1:1/none", rate_limit_enabled=False, _env_file=None
    )
    app = create_app(settings)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://testserver") as running,
    ):
        yield running


async def test_the_index_links_to_the_main_routes(client):
    """The index has the name and version of the service, and links that are 200."""
    index = (await client.get("/")).json()

    assert (TITLE, __version__) == (index["name"], index["version"])
    assert {"samples", "documentation", "openapi", "health"} <= set(index["links"])
    for path in index["links"].values():
        assert 200 == (await client.get(path)).status_code


async def test_the_index_links_to_its_own_port_only(settings):
    """With OPS_PORT the index has no link to metrics and readiness, which are at that port."""
    app = create_app(settings.model_copy(update={"ops_port": 9000}))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://testserver") as client:
        links = (await client.get("/")).json()["links"]

    resources = {router.prefix.removeprefix("/") for router in RESOURCES}
    assert {"samples", "documentation", "openapi", "health"} | resources == set(links)


@pytest.mark.parametrize("path", ["/", "/health", "/health/ready", "/openapi.json", "/docs"])
async def test_head_is_get_without_the_body(client, path):
    """HEAD has the status and headers of GET."""
    head, get = await client.head(path), await client.get(path)

    assert (200, b"") == (head.status_code, head.content)
    assert {**get.headers, "x-request-id": ""} == {**head.headers, "x-request-id": ""}


@pytest.mark.parametrize("path", ["/", "/health", "/health/ready", "/openapi.json", "/docs"])
async def test_other_methods_are_not_allowed(client, path):
    """Any method but GET and HEAD is 405 with `Allow`."""
    for method in ("POST", "PUT", "PATCH", "DELETE", "OPTIONS"):
        response = await client.request(method, path)
        problem(response, 405, "method_not_allowed")
        assert "GET, HEAD" == response.headers["allow"]


async def test_a_ready_worker_lists_its_checks(client):
    """With a migrated database readiness is 200 and lists each check."""
    response = await client.get("/health/ready")

    assert (200, {"status": "ready", "checks": CHECKS}) == (response.status_code, response.json())


async def test_health_does_not_need_the_database(client_without_database):
    """Without a database `/health` is 200, readiness and samples are 503 with `Retry-After`."""
    health, ready, samples = await asyncio.gather(
        *(client_without_database.get(path) for path in ("/health", "/health/ready", "/samples"))
    )

    assert (200, {"status": "ok"}) == (health.status_code, health.json())
    checks = problem(ready, 503, "not_ready")["checks"]
    assert CHECKS | {"database": "database_unavailable", "schema": "unknown", "revision_found": None} == checks
    problem(samples, 503, "database_unavailable")
    assert ready.headers["retry-after"].isdigit()
    assert samples.headers["retry-after"].isdigit()


@pytest.fixture
async def without_tables(sql):
    """Drop all tables. A test names it before `client`: a worker that started checks its database at once."""
    await sql.execute(f"DROP TABLE {VERSION_TABLE}, samples, idempotency_keys CASCADE")


async def test_a_database_behind_is_not_ready(without_tables, client):
    """If the database is not migrated, readiness and `/samples` are 503."""
    ready = await client.get("/health/ready")
    samples = await client.get("/samples")

    assert CHECKS | {"schema": "behind", "revision_found": None} == problem(ready, 503, "not_ready")["checks"]
    problem(samples, 503, "schema_outdated")
    assert samples.headers["retry-after"].isdigit()


@pytest.fixture
async def ahead(sql):
    """Give the database a revision that this release does not know, before `client` starts."""
    await sql.execute(f"UPDATE {VERSION_TABLE} SET version_num = '9999'")


async def test_a_database_ahead_is_ready(ahead, client):
    """A database with an unknown revision is ready, so that this release can follow a newer one."""
    response = await client.get("/health/ready")

    assert "ahead" == response.json()["checks"]["schema"]
    assert 200 == response.status_code
