"""`Application` and `Route` respond to the same requests as FastAPI's own classes do, with the same calls."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import orjson
import pytest
from fastapi import FastAPI
from fastapi.exceptions import DependencyScopeError
from fastapi.routing import APIRoute, iter_route_contexts
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.http.application import Application
from app.http.route import Route
from tests.http.endpoints import Build, Calls, Endpoint, Sent, endpoints, requests

EXAMPLES = 100
LIMIT_BYTES = 65_536

Result = tuple[int | str, list[tuple[bytes, bytes]], bytes, Calls]
"""The status (or the exception that the server would get), headers and body of a response, and the recorded calls."""


@dataclass(frozen=True)
class Subject:
    """An application, its functions, and the list of the calls that they record."""

    app: FastAPI
    functions: Build
    calls: Calls


async def send(subject: Subject, sent: Sent, body: bytes | None) -> Result:
    """Send the request, and record when the response starts among the calls."""
    calls = subject.calls
    calls.clear()
    status: int | str = 0
    headers: list[tuple[bytes, bytes]] = []
    content = b""
    messages = iter([{"type": "http.request", "body": body or b"", "more_body": False}])

    async def receive() -> Any:
        return next(messages, {"type": "http.disconnect"})

    async def record(message: Any) -> None:
        nonlocal status, headers, content
        if message["type"] == "http.response.start":
            calls.append("response started")
            status, headers = message["status"], list(message["headers"])
        else:
            content += message.get("body", b"")

    path = f"/v1/things/{sent.item_id}"
    declared = [(b"content-type", b"application/json")] if body is not None else []
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "scheme": "http",
        "path": path, "raw_path": path.encode(), "query_string": sent.query.encode(), "root_path": "",
        "headers": [(b"host", b"testserver"), *declared, *sent.headers], "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80), "state": {},
    }  # fmt: skip
    try:
        await subject.app(scope, receive, record)
    except Exception as error:  # noqa: BLE001  # the same one is expected of both
        status = type(error).__name__
    return status, headers, content, list(calls)


def build(endpoint: Endpoint, make: Any, route_class: type[APIRoute] = APIRoute) -> Subject:
    """Return an application with the endpoint."""
    calls: Calls = []
    functions = Build(calls)
    return Subject(functions.application(endpoint, make, route_class), functions, calls)


def application(**declared: Any) -> Application:
    """Return an application without middleware."""
    return Application(middleware=[], max_body_bytes=LIMIT_BYTES, **declared)


def route_of(app: FastAPI) -> Any:
    """Return the route of an application that has started."""
    return next(route for route in app.routes if isinstance(route, APIRoute))


def body_to_send(sent: Sent, app: FastAPI) -> bytes | None:
    """Return a body where one is declared; it is left out only if it is optional, since `Route` refuses that else."""
    field = route_of(app).body_field
    if field is None or not (sent.has_body or field.field_info.is_required()):
        return None
    return orjson.dumps(sent.document)


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    """One event loop for all examples."""
    with asyncio.Runner() as running:
        yield running


@pytest.mark.parametrize(("form", "bound"), [("simple", 1.0), ("almost simple", 0.3), ("any", 0.1)])
def test_responses_and_calls_are_those_of_fastapi(runner, form, bound):
    """Status, headers, body, and the order of all calls are equal, with dependencies in every place, and overrides."""
    counts: Counter[str] = Counter()

    @settings(max_examples=EXAMPLES, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    @given(endpoints(form), st.lists(requests(), min_size=2, max_size=4), st.data())
    def compare(described: Any, sent: list[Sent], data: st.DataObject) -> None:
        endpoint, dependencies = described
        try:
            reference = build(endpoint, FastAPI)
            list(iter_route_contexts(reference.app.routes))  # resolves the included router, as the first request would
        except DependencyScopeError:
            with pytest.raises(DependencyScopeError):
                build(endpoint, application).app.build_middleware_stack()
            return
        ours, included = build(endpoint, application), build(endpoint, FastAPI, Route)
        ours.app.middleware_stack = ours.app.build_middleware_stack()
        counts["endpoints"] += 1
        counts["endpoints with a binding"] += route_of(ours.app).binding is not None

        def check(request: Sent) -> None:
            body = body_to_send(request, ours.app)
            expected = runner.run(send(reference, request, body))
            assert expected == runner.run(send(ours, request, body))
            assert expected == runner.run(send(included, request, body))
            counts["requests"] += 1
            counts[f"status {expected[0]}"] += 1

        for request in sent:
            check(request)
        if dependencies:
            pair = data.draw(st.tuples(st.sampled_from(dependencies), st.sampled_from(dependencies)))
            for subject in (reference, ours, included):
                functions = [subject.functions.function(dependency) for dependency in pair]
                subject.app.dependency_overrides[functions[0]] = functions[1]
            check(sent[0])

    compare()

    share = counts["endpoints with a binding"] / counts["endpoints"]
    assert share == bound if form == "simple" else share < bound
    assert {"status 202", "status 403", "status 422"} <= set(counts)
