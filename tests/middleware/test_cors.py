import httpx
import pytest

from app.middleware.cors import READABLE_HEADERS
from tests.answers import problem
from tests.sample.app import create_app

ORIGIN = "https://shop.example"


@pytest.fixture
async def browser(settings):
    """A client of an application that allows one other origin."""
    app = create_app(settings.model_copy(update={"cors_allow_origins": (ORIGIN,)}))
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://testserver") as running,
    ):
        yield running


def preflight(browser, origin=ORIGIN, method="PATCH", headers="if-match,content-type"):
    """Send a preflight request from this origin."""
    preflight_headers = {"Access-Control-Request-Method": method, "Access-Control-Request-Headers": headers}
    return browser.options("/samples/1", headers={"Origin": origin, **preflight_headers})


async def test_an_allowed_origin_can_use_the_api(browser):
    """Its preflight is answered 200, and all answers, including errors, have the CORS headers."""
    allowed = await preflight(browser)
    created = await browser.post("/samples", json={"name": "Kettle"}, headers={"Origin": ORIGIN})
    missing = await browser.get("/samples/999", headers={"Origin": ORIGIN})

    assert 200 == allowed.status_code
    assert [ORIGIN] * 3 == [answer.headers["access-control-allow-origin"] for answer in (allowed, created, missing)]
    assert ", ".join(READABLE_HEADERS) == created.headers["access-control-expose-headers"]
    assert (201, 404) == (created.status_code, missing.status_code)


@pytest.mark.parametrize(
    "header",
    ["traceparent", "tracestate", "baggage", "Authorization", "x-requested-with", "cache-control", "X-Request-ID",
    "idempotency-key", "if-match", "if-none-match", "content-type", "accept, traceparent, authorization"],
)  # fmt: skip
async def test_a_page_may_send_the_usual_headers(browser, header):
    """The headers of tracing, authentication and caching are allowed by default, as are those of the API."""
    assert 200 == (await preflight(browser, headers=header)).status_code


async def test_the_allowed_headers_are_a_setting(settings):
    """CORS_ALLOW_HEADERS replaces the default list."""
    app = create_app(settings.model_copy(update={"cors_allow_origins": (ORIGIN,), "cors_allow_headers": ("x-team",)}))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://testserver") as browser:
        assert 200 == (await preflight(browser, headers="X-Team")).status_code
        problem(await preflight(browser, headers="authorization"), 400, "preflight_refused")


@pytest.mark.parametrize(
    "changes", [{"origin": "https://other.example"}, {"method": "TRACE"}, {"headers": "x-hunter2"}], ids=str
)
async def test_a_refused_preflight_is_a_problem(browser, changes):
    """The answer repeats nothing of the request, and does not allow the origin."""
    refused = await preflight(browser, **changes)

    problem(refused, 400, "preflight_refused")
    assert "hunter2" not in refused.text
    assert "access-control-allow-origin" not in refused.headers
    assert "x-request-id" in refused.headers


async def test_preflights_count_against_the_client(settings):
    """Allowed and refused preflights use the quota of reading requests; past it the answer is 429."""
    changes = {"cors_allow_origins": (ORIGIN,), "rate_limit_read": "2/minute", "rate_limit_enabled": True}
    app = create_app(settings.model_copy(update=changes))
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://testserver") as browser,
    ):
        allowed, refused = await preflight(browser), await preflight(browser, origin="https://other.example")
        limited = await preflight(browser)

    assert [200, 400] == [allowed.status_code, refused.status_code]
    assert ['"read";r=1;t=60', '"read";r=0;t=60'] == [answer.headers["ratelimit"] for answer in (allowed, refused)]
    problem(limited, 429, "rate_limited")
    assert 1 <= int(limited.headers["retry-after"]) <= 60


async def test_other_origins_cannot_read_answers(browser, client):
    """Answers to an origin that is not listed have no CORS headers; without a list there are none at all."""
    other = await browser.get("/samples", headers={"Origin": "https://other.example"})
    unset = await client.get("/samples", headers={"Origin": ORIGIN})

    assert ["access-control-allow-origin" in answer.headers for answer in (other, unset)] == [False, False]
