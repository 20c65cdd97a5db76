import asyncio
import re
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request
from slowapi.errors import RateLimitExceeded
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.dependencies import RateLimitsDependency
from app.errors import QuotaTooSmallError, RateLimitedError, RequestError
from app.middleware.rate_limit import RateLimit
from app.rate_limits import RateLimits, limiter
from app.settings import Settings
from tests.sample.app import create_app
from tests.sample.crud import SampleNotFoundError


class RecordedMetrics:
    """Records the decisions that are reported to it."""

    def __init__(self) -> None:
        self.decisions: list[tuple[str, str]] = []

    def rate_limit_decided(self, quota: str, outcome: str) -> None:
        """Record it."""
        self.decisions.append((quota, outcome))

    def rate_limit_degraded(self, degraded: bool) -> None:
        """Fail: these limits are never degraded."""
        raise AssertionError


def declare(metrics: RecordedMetrics | None = None, **settings: Any) -> RateLimits:
    """The rate limits of these settings."""
    return RateLimits(Settings.load(_env_file=None, web_concurrency=1, **settings), metrics)


class Outer:
    """Counts each request, and adds the headers of the rate limit to each response, as the lifecycle does."""

    def __init__(self, app: ASGIApp, limits: RateLimits) -> None:
        self.app = app
        self._part = RateLimit(limits)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Count the request and pass it on."""
        scope.setdefault("state", {})
        counting = self._part.count(scope)
        if counting is not None:
            await counting

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *scope["state"].get("rate_limit_headers", ())]
            await send(message)

        await self.app(scope, receive, send_with_headers)


def application(limits: RateLimits) -> FastAPI:
    """An application with some routes behind the limits."""
    app = FastAPI()
    app.state.rate_limits = limits
    app.state.executed = executed = list[int]()
    app.add_middleware(Outer, limits=limits)
    app.add_exception_handler(RateLimitExceeded, limits.refuse)

    @app.get("/samples")
    @app.head("/samples")
    async def read() -> Response:
        return Response("read", headers={"ETag": '"1"'})

    @app.post("/samples")
    async def write(body: dict[str, int]) -> dict[str, int]:
        return body

    @app.post("/samples/many")
    async def write_many(request: Request, body: list[int], rate_limits: RateLimitsDependency) -> int:
        await rate_limits.count_as(request.scope, len(body))
        executed.append(len(body))
        return len(body)

    @app.get("/samples/{sample_id}")
    async def missing(sample_id: int) -> None:
        raise SampleNotFoundError(sample_id)

    for path in ("/health", "/health/ready", "/metrics"):
        app.add_api_route(path, read)
    return app


def connect(app: FastAPI, client: tuple[str, int] = ("192.0.2.1", 1)) -> httpx.AsyncClient:
    """A client whose requests come from this address."""
    transport = httpx.ASGITransport(app, client=client)
    return httpx.AsyncClient(transport=transport, base_url="http://testserver")


async def ignore(message: Message) -> None:
    """Discard an answer."""


@pytest.fixture
def recorded() -> RecordedMetrics:
    """The decisions that the metrics receive."""
    return RecordedMetrics()


@pytest.fixture
async def client(recorded):
    """A client that may read three times and write twice in a minute."""
    limits = declare(recorded, rate_limit_read="3/minute", rate_limit_write="2/minute")
    async with limits.opened(), connect(application(limits)) as running:
        yield running


async def test_all_reading_requests_share_one_quota(client):
    """GET, HEAD and OPTIONS count together, on known and unknown paths and where the answer is 405."""
    assert 200 == (await client.get("/samples")).status_code
    assert 404 == (await client.get("/nowhere")).status_code
    assert 405 == (await client.options("/samples")).status_code

    for request in (client.get("/samples"), client.head("/samples"), client.get("/nowhere")):
        with pytest.raises(RateLimitedError):
            await request


async def test_writing_requests_have_their_own_quota(client):
    """Refused bodies and unknown methods count as writing, and reading requests are still admitted."""
    assert 422 == (await client.post("/samples", json={"a": "no number"})).status_code
    assert 405 == (await client.request("PROPFIND", "/samples")).status_code

    with pytest.raises(RateLimitedError):
        await client.post("/samples", json={"a": 1})
    assert 200 == (await client.get("/samples")).status_code


async def test_the_body_of_a_refused_request_is_not_read(client):
    """Past the limit no part of the body is received."""

    async def body():
        raise AssertionError

    for _ in range(2):
        await client.post("/samples", json={})
    scope = {"type": "http", "method": "POST", "path": "/samples", "headers": [], "client": ("192.0.2.1", 1)}
    app = client._transport.app
    with pytest.raises(RateLimitedError):
        await app(scope, body, ignore)


async def test_probes_and_metrics_are_exempt(client, recorded):
    """Probes are not counted, and their answers have no rate limit headers."""
    for path in ("/health", "/health/ready", "/metrics") * 4:
        answer = await client.get(path)
        assert 200 == answer.status_code
        assert "ratelimit" not in answer.headers

    assert [] == recorded.decisions


async def test_only_reading_a_probe_is_exempt(recorded):
    """Other methods at a probe are counted, and so are the probes of the operators' port at another port."""
    limits = declare(recorded, rate_limit_read="1/minute")
    app = application(limits)
    async with limits.opened(), connect(app) as client:
        assert 405 == (await client.options("/health")).status_code
        assert 405 == (await client.post("/metrics")).status_code
    assert [("read", "admitted"), ("write", "admitted")] == recorded.decisions


@pytest.mark.parametrize(("port", "counted"), [(9000, []), (8000, ["/health/ready", "/metrics"])])
async def test_a_probe_is_exempt_only_at_the_port_that_serves_it(recorded, port, counted):
    """With OPS_PORT, readiness and metrics at the main port are not found, and counted as all such paths."""
    limits = declare(recorded)
    found = []
    part = RateLimit(limits, ops_port=9000)
    async with limits.opened():
        for path in ("/health", "/health/ready", "/metrics"):
            scope: dict[str, Any] = {
                "type": "http",
                "method": "GET",
                "path": path,
                "client": ("192.0.2.2", 1),
                "state": {},
            }
            assert part.count(scope | {"server": ("127.0.0.1", port)}) is None
            found += [path] if recorded.decisions else []
            recorded.decisions.clear()
    assert counted == found


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [("/samples", {"Host": "other.example"}, 400), ("/samples", {}, 404), ("/%ff", {}, 400), ("/metrics", {}, 200)],
    ids=["a refused host", "another port's path", "a malformed path", "a probe"],
)
async def test_refusals_of_every_middleware_count(settings, path, headers, status):
    """Whatever refuses the request, it counts against the client's address. A probe at its port does not."""
    changes = {"allowed_hosts": ("testserver",), "ops_port": 9000, "rate_limit_read": "2/minute"}
    app = create_app(settings.model_copy(update={**changes, "rate_limit_enabled": True}))
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://testserver:9000") as client,
    ):
        statuses = [(await client.get(path, headers=headers)).status_code for _ in range(3)]

    assert [status, status, status if path == "/metrics" else 429] == statuses


async def test_answers_have_rate_limit_headers(client):
    """`RateLimit-Policy` and `RateLimit` follow the IETF draft, beside the answer's own headers."""
    for remaining in (2, 1, 0):
        answer = await client.get("/samples")
        assert '"read";q=3;w=60' == answer.headers["ratelimit-policy"]
        assert f'"read";r={remaining};t=60' == answer.headers["ratelimit"]
        assert '"1"' == answer.headers["etag"]

    answer = await client.post("/samples", json={})
    assert '"write";q=2;w=60' == answer.headers["ratelimit-policy"]
    assert '"write";r=1;t=60' == answer.headers["ratelimit"]


async def test_outer_middleware_finds_the_rate_limit_headers(client):
    """The headers for a problem, and for the refusal itself, are in the request's state."""
    app = client._transport.app

    async def send(method: str, path: str) -> tuple[RequestError, dict[bytes, bytes]]:
        scope: dict[str, Any] = {
            "type": "http",
            "method": method,
            "path": path,
            "headers": [],
            "client": ("192.0.2.9", 1),
        }
        scope |= {"query_string": b"", "raw_path": path.encode(), "state": {}}
        with pytest.raises(RequestError) as error:
            await app(scope, None, ignore)
        return error.value, dict(scope["state"]["rate_limit_headers"])

    for remaining in (2, 1, 0):
        error, headers = await send("GET", "/samples/1")
        assert isinstance(error, SampleNotFoundError)
        assert b'"read";r=%d;t=60' % remaining == headers[b"ratelimit"]
    error, headers = await send("GET", "/samples/1")
    assert isinstance(error, RateLimitedError)
    assert {b"ratelimit-policy": b'"read";q=3;w=60', b"ratelimit": b'"read";r=0;t=60'} == headers
    assert {"Retry-After": "60"} == error.headers


async def test_clients_have_separate_quotas(client):
    """One client at its limit leaves the others alone; a /64 of IPv6 is one client."""
    app = client._transport.app
    async with connect(app, ("2001:db8::1", 1)) as one, connect(app, ("2001:db8::ffff", 1)) as two:
        for _ in range(3):
            await one.get("/samples")
        with pytest.raises(RateLimitedError):
            await two.get("/samples")
    async with connect(app, ("2001:db8:0:1::1", 1)) as other:
        assert 200 == (await other.get("/samples")).status_code


async def test_a_request_can_count_as_several(recorded):
    """It counts whole, and `RateLimit` says what is left. One that does not fit is refused whole and not executed."""
    limits = declare(recorded, rate_limit_write="10/minute")
    async with limits.opened(), connect(application(limits)) as client:
        transport: Any = client._transport
        executed = transport.app.state.executed
        answer = await client.post("/samples/many", json=[1] * 7)
        assert (200, '"write";r=3;t=60') == (answer.status_code, answer.headers["ratelimit"])

        with pytest.raises(RateLimitedError) as refused:
            await client.post("/samples/many", json=[1] * 4)
        assert 60 == refused.value.retry_after_seconds
        assert [7] == executed
        # The refused request has counted as one.
        answer = await client.post("/samples/many", json=[1] * 2)
        assert (200, '"write";r=0;t=60') == (answer.status_code, answer.headers["ratelimit"])

    assert [("write", "admitted")] * 2 + [("write", "refused"), ("write", "admitted")] == recorded.decisions


async def test_a_request_that_no_quota_admits_is_invalid(recorded):
    """One that counts as more than the whole quota would never be admitted: it is 422, and counts as one."""
    limits = declare(recorded, rate_limit_write="10/minute")
    async with limits.opened(), connect(application(limits)) as client:
        with pytest.raises(QuotaTooSmallError, match="counts as 11 requests, and a client may send 10/minute"):
            await client.post("/samples/many", json=[1] * 11)
        answer = await client.post("/samples/many", json=[1] * 9)

    assert '"write";r=0;t=60' == answer.headers["ratelimit"]


async def test_a_request_that_counts_as_several_is_admitted_after_retry_after():
    """The wait is for as much quota as the whole request needs."""
    limits = declare(rate_limit_write="4/second")
    async with limits.opened(), connect(application(limits)) as client:
        await client.post("/samples/many", json=[1] * 3)
        with pytest.raises(RateLimitedError) as refused:
            await client.post("/samples/many", json=[1] * 4)
        await asyncio.sleep(refused.value.retry_after_seconds or 0)
        assert 200 == (await client.post("/samples/many", json=[1] * 4)).status_code


async def test_without_limits_a_request_counts_as_nothing():
    """With the limits off, a request may count as more than any quota."""
    limits = declare(rate_limit_enabled=False, rate_limit_write="1/minute")
    async with limits.opened(), connect(application(limits)) as client:
        answer = await client.post("/samples/many", json=[1] * 100)
    assert (200, False) == (answer.status_code, "ratelimit" in answer.headers)


async def test_decisions_are_reported_to_the_metrics(client, recorded):
    """Each decision is reported with its quota."""
    for _ in range(3):
        await client.get("/samples")
    with pytest.raises(RateLimitedError):
        await client.get("/samples")
    await client.post("/samples", json={})

    assert [*[("read", "admitted")] * 3, ("read", "refused"), ("write", "admitted")] == recorded.decisions


async def test_a_client_is_admitted_after_retry_after():
    """After as many whole seconds as Retry-After says, the next request is admitted."""
    limits = declare(rate_limit_read="2/second")
    async with limits.opened(), connect(application(limits)) as client:
        for _ in range(2):
            await client.get("/samples")
        with pytest.raises(RateLimitedError) as refused:
            await client.get("/samples")
        assert 1 == refused.value.retry_after_seconds
        await asyncio.sleep(refused.value.retry_after_seconds)
        assert 200 == (await client.get("/samples")).status_code


async def test_limits_can_be_switched_off(recorded):
    """With the limits off nothing is counted, and answers have no rate limit headers."""
    limits = declare(recorded, rate_limit_enabled=False, rate_limit_read="1/minute")
    async with limits.opened(), connect(application(limits)) as client:
        for _ in range(5):
            answer = await client.get("/samples")
            assert 200 == answer.status_code
            assert "ratelimit-policy" not in answer.headers
    assert [] == recorded.decisions


async def test_with_redis_a_request_past_the_limit_is_refused():
    """A request waits for Redis, here for one that cannot be reached, and then counts on this host."""
    limits = declare(rate_limit_storage_uri="redis://127.0.0.1:1", rate_limit_read="1/minute")
    async with limits.opened(), connect(application(limits)) as client:
        assert '"read";r=0;t=60' == (await client.get("/samples")).headers["ratelimit"]
        with pytest.raises(RateLimitedError):
            await client.get("/samples")


async def test_a_request_without_a_lifespan_fails():
    """An application whose lifespan was not entered does not run without limits; it raises an error."""
    async with connect(application(declare())) as client:
        with pytest.raises(RuntimeError, match="lifespan"):
            await client.get("/samples")


async def test_a_route_can_have_its_own_limit(client, recorded, caplog):
    """The decorator of slowapi counts by route, not by path, on asynchronous and synchronous handlers.

    The service's limits count the request as well. A refusal is the same error, with whole seconds to wait, and has no
    log line of the library.
    """
    app = client._transport.app

    @app.post("/own/{number}")
    @limiter.limit("1/minute")
    async def own(request: Request, number: int) -> int:
        return number

    @app.get("/synchronous/{number}")
    @limiter.limit("1/hour")
    def synchronous(request: Request, number: int) -> int:
        return number

    assert 200 == (await client.post("/own/1")).status_code
    with pytest.raises(RateLimitedError) as refused:
        await client.post("/own/2")
    assert 60 == refused.value.retry_after_seconds

    answer = await client.get("/synchronous/1")
    assert '"read";r=2;t=60' == answer.headers["ratelimit"]
    with pytest.raises(RateLimitedError) as refused:
        await client.get("/synchronous/2")
    assert 3600 == refused.value.retry_after_seconds
    assert ("route", "refused") == recorded.decisions[-1]
    assert [] == caplog.messages


def test_the_policy_is_a_structured_field():
    """The quota's name is a string and its numbers are integers, as RFC 9651 defines them."""
    quota = declare(rate_limit_read="20 per 5 seconds").quota("GET")
    (name, value), _ = quota.headers(1, 1.0)

    assert b"ratelimit-policy" == name
    assert re.fullmatch(rb'"[a-z]+";q=20;w=5', value)
