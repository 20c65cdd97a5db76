import asyncio
import json
import re
from http import HTTPStatus
from inspect import signature
from types import SimpleNamespace

import httpx
import pytest
from fastapi import FastAPI
from fastapi import HTTPException as FastAPIHTTPException
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect
from structlog.testing import capture_logs

from app import errors
from tests.answers import problem
from tests.middleware.parts import lifecycle


def served(failure):
    """A client of an application that raises this."""

    def fail(_app):
        async def fail_always(_scope, _receive, _send):
            raise failure

        return fail_always

    app = FastAPI(middleware=[Middleware(lifecycle), Middleware(fail)])
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://testserver")


async def receive(*_):
    """Receive nothing, and discard what is sent."""
    return {}


def named_errors():
    """An example of every error that a request can be answered with."""
    arguments = {
        errors.MethodNotAllowedError: (["PUT", "GET"],),
        **{kind: (7,) for kind in _kinds(errors.RequestError) if _takes_an_id(kind)},
        errors.PreconditionFailedError: ("note", 7),
        errors.HostError: ("No.",),
        errors.InsufficientScopeError: (["samples:read"],),
        errors.BodyTooLargeError: (10,),
        errors.InvalidFieldError: ("page", "Too deep"),
        errors.PageTooLargeError: (10,),
        errors.NotReadyError: ({"database": "ok"},),
        errors.RateLimitedError: (7,),
        errors.QuotaTooSmallError: (500, "60/minute"),
        errors.DatabaseSetupError: ("Set DATABASE_POOLER.",),
        **dict.fromkeys(_kinds(errors.ConstraintViolatedError), ("uq_widgets_name",)),
    }
    return [kind(*arguments[kind]) if kind in arguments else kind for kind in _kinds(errors.RequestError)]


def _takes_an_id(kind):
    """Whether the error is made of the id of a resource."""
    return [name.endswith("_id") for name in list(signature(kind.__init__).parameters)[1:]] == [True]


def _kinds(base):
    """The class and all its subclasses that have their own code."""
    own = [base] if base.__module__ == "app.errors" and "code" in vars(base) else []
    return own + [kind for child in base.__subclasses__() for kind in _kinds(child)]


@pytest.mark.parametrize("error", named_errors(), ids=str)
async def test_a_named_error_is_answered_with_its_facts(error):
    """The answer has the error's status, code, sentence and headers; a 503 and a 429 have Retry-After."""
    if isinstance(error, type):
        try:
            error = error()
        except TypeError:
            pytest.fail(f"Add the arguments of {error.__name__} to the dictionary above.")
    async with served(error) as client:
        response = await client.get("/")

    body = problem(response, error.status, error.code)
    assert str(error) == body["detail"]
    assert not {"uq_widgets_name", "DATABASE_POOLER"} & set(re.findall(r"\w+", response.text))
    assert re.fullmatch(r"[A-Z].*\.", body["detail"])
    assert error.headers == {name: response.headers.get(name) for name in error.headers}
    assert error.members == {name: body[name] for name in error.members}
    if error.status in (429, 503):
        assert response.headers["retry-after"].isdigit()


def test_every_error_has_its_own_code():
    """No two errors have the same code."""
    codes = [error.code for error in named_errors()]

    assert len(codes) == len(set(codes))


async def test_an_internal_error_shows_no_detail():
    """An unexpected exception is answered 500 with the request id; its text and traceback are only logged."""
    with capture_logs() as lines:
        async with served(ValueError("postgresql://user:hunter2@db/samples")) as client:
            response = await client.get("/", headers={"X-Request-ID": "mine"})

    assert "hunter2" not in str(problem(response, 500, "internal_error"))
    assert "mine" == response.headers["x-request-id"]
    crashes = [line for line in lines if line["event"] == "request_crashed"]
    assert ["error"] == [line["log_level"] for line in crashes]
    assert isinstance(crashes[0]["exc_info"], ValueError)


async def test_a_server_error_is_logged_with_its_cause():
    """A named 5xx error is logged as a warning with its code and the driver's exception."""
    error = errors.DatabaseUnavailableError()
    error.__cause__ = ValueError("wrapped")
    error.__cause__.__cause__ = ConnectionRefusedError("no listener")

    with capture_logs() as lines:
        async with served(error) as client:
            await client.get("/")

    failed = [line for line in lines if line["event"] == "request_failed"]
    assert [("warning", "database_unavailable", "ConnectionRefusedError: no listener")] == [
        (line["log_level"], line["code"], line["cause"]) for line in failed
    ]


@pytest.mark.parametrize("error", [errors.NotFoundError(), errors.NotReadyError({}), errors.OverloadedError()])
async def test_a_refusal_is_no_warning(error):
    """Client errors, failed probes and refusals under load write no line of their own."""
    with capture_logs() as lines:
        async with served(error) as client:
            await client.get("/")

    assert [] == [line for line in lines if line["log_level"] != "info"]


@pytest.mark.parametrize("status", [400, 403, 418, 500])
async def test_an_http_exception_is_a_problem_with_its_detail(status):
    """What a route raises as FastAPI documents it keeps its detail and its headers."""
    async with served(HTTPException(status, "No such order", headers={"X-Kept": "yes"})) as client:
        response = await client.get("/")

    assert "No such order." == problem(response, status, HTTPStatus(status).name.lower())["detail"]
    assert "yes" == response.headers["x-kept"]


async def test_an_http_exception_without_detail_has_a_sentence():
    """The default detail, the name of the status, is replaced by the description of the standard library."""
    async with served(HTTPException(404)) as client:
        response = await client.get("/")

    assert "Nothing matches the given URI." == problem(response, 404, "not_found")["detail"]


async def test_a_structured_detail_is_a_member_of_its_own():
    """FastAPI takes any JSON as detail, and a problem's detail is text."""
    async with served(FastAPIHTTPException(409, {"order": 7})) as client:
        response = await client.get("/")

    assert {"order": 7} == problem(response, 409, "conflict")["context"]


async def test_a_status_without_a_name_is_its_own_code():
    """A status that no standard defines is answered as the route wants."""
    async with served(HTTPException(499, "Gone away")) as client:
        response = await client.get("/")

    assert (499, "status_499") == (response.status_code, response.json()["code"])


async def test_an_http_exception_without_a_body_has_none():
    """A 304 has headers only."""
    async with served(HTTPException(304, headers={"X-Kept": "yes"})) as client:
        response = await client.get("/")

    assert (304, b"", "yes") == (response.status_code, response.content, response.headers["x-kept"])


@pytest.mark.parametrize("failure", [ValueError(), errors.DatabaseUnavailableError()])
async def test_a_failure_after_the_start_of_a_response_is_raised(failure):
    """After the response has started nothing more is sent, so that the server closes the connection."""
    started, sent = {"type": "http.response.start", "status": 200, "headers": []}, []

    async def fail(_scope, _receive, send):
        await send(started)
        raise failure

    async def send(message):
        sent.append(message)

    with capture_logs() as lines:
        await lifecycle(fail)({"type": "http", "method": "GET", "path": "/", "headers": []}, receive, send)

    assert [started] == sent
    assert [failure] == [line["exc_info"] for line in lines if line["event"] == "request_crashed"]


async def test_a_disconnected_client_is_no_error():
    """Nothing is sent and no error is logged when a client disconnects before its body is complete."""
    sent = []

    async def disconnect(_scope, _receive, _send):
        raise ClientDisconnect

    async def send(message):
        sent.append(message)

    with capture_logs() as lines:
        await lifecycle(disconnect)({"type": "http", "method": "POST", "path": "/", "headers": []}, receive, send)

    assert [] == sent
    assert [] == [line for line in lines if line["log_level"] in ("warning", "error")]


@pytest.mark.parametrize(("method", "advice"), [("GET", "Try again"), ("POST", "may or may not have been applied")])
async def test_a_request_that_a_shutdown_cancels_is_answered_503(method, advice):
    """The problem has the request's id, and says if a write may have been applied."""
    sent = []

    async def wait(*_):
        await asyncio.Event().wait()

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": method, "path": "/", "headers": [], "app": SimpleNamespace(routes=[])}
    task = asyncio.create_task(lifecycle(wait)(scope, wait, send))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    start, message = sent
    body = json.loads(message["body"])
    assert (503, "shutting_down") == (start["status"], body["code"])
    assert (b"x-request-id", body["request_id"].encode()) in start["headers"]
    assert advice in body["detail"]


@pytest.mark.parametrize("request_id", ["a", "A-Z.a_z-09", "x" * 128])
async def test_a_request_keeps_its_id(client, request_id):
    """A valid request id is repeated in every answer, including errors."""
    for path in ("/health", "/nowhere", "/samples/x"):
        response = await client.get(path, headers={"X-Request-ID": request_id})
        assert request_id == response.headers["x-request-id"]


@pytest.mark.parametrize("request_id", ["", "x" * 129, "a b", "a\n", "é", "a/b", '"', "a,b"])
async def test_an_invalid_request_id_is_replaced(client, request_id):
    """An invalid id is not used; each request gets a new one."""
    answers = [await client.get("/nowhere", headers=[(b"X-Request-ID", request_id.encode())]) for _ in range(2)]

    ids = {problem(answer, 404, "not_found")["request_id"] for answer in answers}
    assert 2 == len(ids)
    assert request_id not in ids


async def test_a_lifespan_is_passed_on():
    """A scope that is not HTTP is passed on, and its exceptions are raised."""

    async def fail(_scope, _receive, _send):
        raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011  # it is raised just above
        await lifecycle(fail)({"type": "lifespan"}, receive, receive)
