import asyncio
import random
from http import HTTPStatus
from time import perf_counter
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_fastapi_instrumentator.metrics import Info
from starlette.types import Message, Receive, Scope, Send

from app.errors import DatabaseUnavailableError, OverloadedError, PoolExhaustedError, RequestError
from app.metrics.instruments import MOST_CODES, Metrics
from app.middleware.request_metrics import RequestMetrics
from app.state_keys import FAILURE_CODE, STREAM_BEGAN, STREAM_CUT
from tests.middleware.parts import lifecycle

pytestmark = pytest.mark.anyio


async def test_a_request_is_counted_by_route_and_exact_status():
    """429 and 503 are separate from other 4xx and 5xx."""
    metrics = Metrics()
    for status in (200, 200, 429, 503):
        await request(metrics, status, route="/samples/{sample_id}")

    assert {
        ("/samples/{sample_id}", "200"): 2,
        ("/samples/{sample_id}", "429"): 1,
        ("/samples/{sample_id}", "503"): 1,
    } == counted(metrics)


async def test_unknown_paths_are_one_series():
    """The handler of a path without a route is `none`."""
    metrics = Metrics()
    for _ in range(200):
        await request(metrics, 404, path=f"/{random.random()}")

    assert {("none", "404"): 200} == counted(metrics)


async def test_a_failure_is_counted_by_its_code():
    """Three kinds of 503 are three series. A refusal because of the client's own share has no duration."""
    metrics = Metrics()
    for error in (OverloadedError(), PoolExhaustedError(), DatabaseUnavailableError(), DatabaseUnavailableError()):
        await fail(metrics, error)
    await fail(metrics, OverloadedError(by_own_share=True))
    await fail(metrics, ValueError())

    assert {
        "overloaded": 1, "pool_exhausted": 1, "database_unavailable": 2, "client_share": 1, "internal_error": 1
    } == codes(metrics)  # fmt: skip
    assert 5 == metrics.registry.get_sample_value(
        "http_request_duration_seconds_count", {"method": "GET", "handler": "none"}
    )


async def test_the_number_of_codes_is_bounded():
    """A code that an adopter computes cannot make series without end."""
    metrics = Metrics()
    for number in range(MOST_CODES + 20):
        error = RequestError("Refused.")
        error.code, error.status = f"code_{number}", HTTPStatus.CONFLICT
        await fail(metrics, error)

    assert MOST_CODES + 1 == len(codes(metrics))
    assert 20 == codes(metrics)["other"]


async def test_requests_in_progress_are_counted():
    """The number is 1 during a request, and 0 after it, also after an exception."""
    metrics = Metrics()
    seen = []

    async def app(_scope: Scope, _receive: Receive, _send: Send) -> None:
        seen.append(metrics.in_progress)
        raise ValueError

    await send_through(app, metrics)

    assert [1] == seen
    assert 0 == metrics.in_progress
    assert {("none", "500"): 1} == counted(metrics)


async def test_a_stream_is_timed_until_its_head_and_counted_with_the_status_that_cut_it():
    """How long its client reads is not in the duration. Without a failure its status is that of the head."""
    metrics = Metrics()
    for cut, code in ((504, "statement_timeout"), (None, "")):

        async def app(scope: Scope, receive: Receive, send: Send, cut: int | None = cut, code: str = code) -> None:
            await answer(200)(scope, receive, send)
            scope["state"][STREAM_BEGAN] = perf_counter()
            await asyncio.sleep(0.3)
            if cut:
                scope["state"] |= {STREAM_CUT: cut, FAILURE_CODE: code}

        await send_through(app, metrics)

    assert {("none", "200"): 1, ("none", "504"): 1} == counted(metrics)
    assert 1 == codes(metrics)["statement_timeout"]
    labels = {"method": "GET", "handler": "none"}
    assert 0.3 > (metrics.registry.get_sample_value("http_request_duration_seconds_sum", labels) or 1)


async def test_a_disconnected_client_is_counted_as_499():
    """The metrics have the same status as the log line."""
    metrics = Metrics()

    async def app(_scope: Scope, receive: Receive, _send: Send) -> None:
        await receive()

    await send_through(app, metrics)

    assert {("none", "499"): 1} == counted(metrics)


async def test_an_instrumentation_of_the_library_works():
    """A function written for the instrumentator gets the library's `Info`."""
    metrics = Metrics()
    part = RequestMetrics(metrics)
    seen: list[Info] = []
    part.instrumentations.append(seen.append)
    scope = {"type": "http", "method": "POST", "path": "/samples", "headers": []}
    await lifecycle(answer(201, "/samples"), metrics=part)(scope, receive, send)

    (info,) = seen
    assert ("POST", "/samples", "201") == (info.method, info.modified_handler, info.modified_status)
    assert "/samples" == info.request.url.path
    assert {("/samples", "201"): 1} == counted(metrics)


async def test_a_lifespan_is_not_counted():
    """A scope that is not HTTP is passed on and not counted."""
    metrics = Metrics()

    async def app(_scope: Scope, _receive: Receive, _send: Send) -> None: ...

    await lifecycle(app, metrics=RequestMetrics(metrics))({"type": "lifespan"}, receive, send)

    assert {} == counted(metrics)


def answer(status: int, route: str | None = None) -> Any:
    """An application that gives this answer."""

    async def app(scope: Scope, _receive: Receive, send: Send) -> None:
        if route is not None:
            scope["route"] = SimpleNamespace(path=route)
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    return app


async def request(metrics: Metrics, status: int, route: str | None = None, path: str = "/") -> None:
    """Send one request."""
    await send_through(answer(status, route), metrics, path=path)


async def fail(metrics: Metrics, error: Exception) -> None:
    """Send one request to an application that raises this error."""

    async def app(_scope: Scope, _receive: Receive, _send: Send) -> None:
        raise error

    await send_through(app, metrics)


async def send_through(app: Any, metrics: Metrics, path: str = "/") -> None:
    """Send one request to an application whose requests are counted."""
    scope = {"type": "http", "method": "GET", "path": path, "headers": [], "app": SimpleNamespace(routes=[])}
    await lifecycle(app, metrics=RequestMetrics(metrics))(scope, receive, send)


def codes(metrics: Metrics) -> dict[str, float]:
    """The number of requests, by code."""
    (family,) = (family for family in metrics.registry.collect() if family.name == "http_requests")
    return {s.labels["code"]: s.value for s in family.samples if s.name == "http_requests_total"}


async def receive() -> Message:
    """Receive a disconnect."""
    return {"type": "http.disconnect"}


async def send(message: Message) -> None:
    """Discard the message."""


def counted(metrics: Metrics) -> dict[tuple[str, str], float]:
    """The number of requests, by handler and status."""
    (family,) = (family for family in metrics.registry.collect() if family.name == "http_requests")
    return {
        (sample.labels["handler"], sample.labels["status"]): sample.value
        for sample in family.samples
        if sample.name == "http_requests_total"
    }
