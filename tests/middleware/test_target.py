import httpx
import pytest

from app.main import create_app
from app.settings import Settings
from tests.answers import problem


@pytest.fixture
async def client():
    """A client of the application."""
    transport = httpx.ASGITransport(create_app(Settings.load(_env_file=None, rate_limit_enabled=False)))
    async with httpx.AsyncClient(transport=transport, base_url="http://testserver") as client:
        yield client


@pytest.mark.parametrize("path", ["/samples/%ff", "/samples/%c3", "/%ed%a0%80", "/samples/%ef%bf%bd/%ff"])
@pytest.mark.parametrize("method", ["GET", "PATCH", "OPTIONS"])
async def test_a_path_that_is_not_utf_8_is_a_400(client, method, path):
    """The answer is a problem document with the request's id, and closes the connection."""
    answer = await client.request(method, path, headers={"X-Request-ID": "request-1"})

    assert "request-1" == problem(answer, 400, "malformed_path")["request_id"]
    assert "close" == answer.headers["connection"]


@pytest.mark.parametrize("path", ["/n%C3%B6pe", "/%ef%bf%bd"])
async def test_a_path_in_utf_8_is_passed_on(client, path):
    """An unknown path beyond ASCII is a 404, also with the character that stands for bytes that are not UTF-8."""
    problem(await client.get(path), 404, "not_found")
