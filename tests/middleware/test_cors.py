import httpx
import pytest

from app.main import create_app
from app.middleware.cors import READABLE_HEADERS
from tests.answers import problem

ORIGIN = "https://shop.example"


@pytest.fixture
async def browser(settings):
    """A client of a service that pages of one other origin may use."""
    app = create_app(settings.model_copy(update={"cors_allow_origins": (ORIGIN,)}))
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://testserver") as running,
    ):
        yield running


def preflight(browser, origin=ORIGIN, method="PATCH", headers="if-match,content-type"):
    """Ask what a page of this origin may send."""
    asked = {"Access-Control-Request-Method": method, "Access-Control-Request-Headers": headers}
    return browser.options("/items/1", headers={"Origin": origin, **asked})


async def test_a_page_of_an_allowed_origin_may_use_the_api(browser):
    """It may send what the API takes, and read its answers with their headers, the errors too."""
    allowed = await preflight(browser)
    created = await browser.post("/items", json={"name": "Kettle"}, headers={"Origin": ORIGIN})
    missing = await browser.get("/items/999", headers={"Origin": ORIGIN})

    assert 200 == allowed.status_code
    assert [ORIGIN] * 3 == [answer.headers["access-control-allow-origin"] for answer in (allowed, created, missing)]
    assert ", ".join(READABLE_HEADERS) == created.headers["access-control-expose-headers"]
    assert (201, 404) == (created.status_code, missing.status_code)


@pytest.mark.parametrize(
    "asked", [{"origin": "https://other.example"}, {"method": "TRACE"}, {"headers": "x-hunter2"}], ids=str
)
async def test_a_preflight_of_what_is_not_allowed_is_a_problem(browser, asked):
    """It names nothing that was sent, and does not allow the origin."""
    refused = await preflight(browser, **asked)

    problem(refused, 400, "preflight_refused")
    assert "hunter2" not in refused.text
    assert "access-control-allow-origin" not in refused.headers
    assert "x-request-id" in refused.headers


async def test_a_page_of_another_origin_may_not_read(browser, client):
    """Its browser is told nothing that would let it, nor is anybody's where no origin is allowed."""
    other = await browser.get("/items", headers={"Origin": "https://other.example"})
    unset = await client.get("/items", headers={"Origin": ORIGIN})

    assert ["access-control-allow-origin" in answer.headers for answer in (other, unset)] == [False, False]
