import re
from http import HTTPStatus

import httpx
import pytest
from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect
from structlog.testing import capture_logs

from app import errors
from app.middleware.problems import Problems
from app.middleware.request_log import RequestLog
from tests.answers import problem


def served(failure):
    """A client of an application that fails so."""

    def fail(_app):
        async def fail_always(_scope, _receive, _send):
            raise failure

        return fail_always

    app = FastAPI(middleware=[Middleware(RequestLog), Middleware(Problems), Middleware(fail)])
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://testserver")


async def receive(*_):
    """Have nothing to give, and take everything."""
    return {}


def named_errors():
    """Every error that a request may be refused with, as an example of it."""
    arguments = {
        errors.MethodNotAllowedError: (["PUT", "GET"],),
        errors.ItemNotFoundError: (7,),
        errors.PreconditionFailedError: (7,),
        errors.HostError: ("No.",),
        errors.BodyTooLargeError: (10,),
        errors.InvalidFieldError: ("page", "Too deep"),
        errors.NotReadyError: ({"database": "ok"},),
        errors.RateLimitedError: (7,),
    }
    kinds, found = [errors.RequestError], []
    while kinds:
        kind = kinds.pop()
        kinds += kind.__subclasses__()
        if kind.__module__ == "app.errors" and "code" in vars(kind):
            found.append(kind(*arguments[kind]) if kind in arguments else kind)
    return found


@pytest.mark.parametrize("error", named_errors(), ids=str)
async def test_a_named_error_is_answered_as_it_says(error):
    """Each has its status, its code, its sentence and its headers; a 503 and a 429 say when to come again."""
    if isinstance(error, type):
        try:
            error = error()
        except TypeError:
            pytest.fail(f"Say above how a {error.__name__} is made.")
    async with served(error) as client:
        response = await client.get("/")

    body = problem(response, error.status, error.code)
    assert str(error) == body["detail"]
    assert re.fullmatch(r"[A-Z].*\.", body["detail"])
    assert error.headers.items() <= {name.title(): value for name, value in response.headers.items()}.items()
    assert error.members == {name: body[name] for name in error.members}
    if error.status in (429, 503):
        assert response.headers["retry-after"].isdigit()


def test_each_error_has_a_code_of_its_own():
    """A program can tell any two failures apart."""
    codes = [error.code for error in named_errors()]

    assert len(codes) == len(set(codes))


async def test_a_defect_shows_nothing():
    """An unforeseen exception is 500 with the request's id; its text and traceback stand in the log alone."""
    with capture_logs() as lines:
        async with served(ValueError("postgresql://user:hunter2@db/items")) as client:
            response = await client.get("/", headers={"X-Request-ID": "mine"})

    assert "hunter2" not in str(problem(response, 500, "internal_error"))
    assert "mine" == response.headers["x-request-id"]
    crashes = [line for line in lines if line["event"] == "request_crashed"]
    assert ["error"] == [line["log_level"] for line in crashes]
    assert isinstance(crashes[0]["exc_info"], ValueError)


async def test_a_failure_of_ours_is_logged_by_its_kind():
    """A 5xx with a name is a warning with its code, and with the failure of the driver that is beneath it."""
    error = errors.DatabaseUnavailableError()
    error.__cause__ = ValueError("wrapped")
    error.__cause__.__cause__ = ConnectionRefusedError("nobody listens")

    with capture_logs() as lines:
        async with served(error) as client:
            await client.get("/")

    failed = [line for line in lines if line["event"] == "request_failed"]
    assert [("warning", "database_unavailable", "ConnectionRefusedError: nobody listens")] == [
        (line["log_level"], line["code"], line["cause"]) for line in failed
    ]


@pytest.mark.parametrize("error", [errors.NotFoundError(), errors.NotReadyError({}), errors.OverloadedError()])
async def test_a_refusal_is_no_warning(error):
    """What a client does wrong is not logged as a failure, nor is a probe or a refusal under load: others tell them."""
    with capture_logs() as lines:
        async with served(error) as client:
            await client.get("/")

    assert [] == [line for line in lines if line["log_level"] != "info"]


@pytest.mark.parametrize("status", [400, 403, 418, 500])
async def test_an_error_of_the_framework_is_a_problem_too(status):
    """Whatever Starlette or FastAPI raise by themselves gets the same form, and keeps its headers."""
    async with served(HTTPException(status, "hunter2", headers={"X-Kept": "yes"})) as client:
        response = await client.get("/")

    assert "hunter2" not in str(problem(response, status, HTTPStatus(status).name.lower()))
    assert "yes" == response.headers["x-kept"]


@pytest.mark.parametrize("failure", [ValueError(), errors.DatabaseUnavailableError()])
async def test_a_failure_in_the_middle_of_an_answer_is_not_answered_twice(failure):
    """Once an answer has begun, the failure goes up, so that the server cuts the connection."""
    begun, sent = {"type": "http.response.start", "status": 200, "headers": []}, []

    async def fail(_scope, _receive, send):
        await send(begun)
        raise failure

    async def send(message):
        sent.append(message)

    with pytest.raises(type(failure)):
        await Problems(fail)({"type": "http"}, receive, send)

    assert [begun] == sent


async def test_a_client_that_is_gone_is_no_defect():
    """Nobody is answered, and no error logged, when a client leaves before its body has come."""
    sent = []

    async def gone(_scope, _receive, _send):
        raise ClientDisconnect

    async def send(message):
        sent.append(message)

    with capture_logs() as lines:
        await RequestLog(Problems(gone))({"type": "http", "method": "POST", "path": "/", "headers": []}, receive, send)

    assert [] == sent
    assert [] == [line for line in lines if line["log_level"] in ("warning", "error")]


@pytest.mark.parametrize("request_id", ["a", "A-Z.a_z-09", "x" * 128])
async def test_a_request_keeps_its_id(client, request_id):
    """An id of 1 to 128 plain characters stands in the answer, good or bad."""
    for path in ("/health", "/nowhere", "/items/x"):
        response = await client.get(path, headers={"X-Request-ID": request_id})
        assert request_id == response.headers["x-request-id"]


@pytest.mark.parametrize("request_id", ["", "x" * 129, "a b", "a\n", "é", "a/b", '"', "a,b"])
async def test_any_other_id_is_replaced(client, request_id):
    """What could not stand in a log line is not taken; each request gets another one instead."""
    answers = [await client.get("/nowhere", headers=[(b"X-Request-ID", request_id.encode())]) for _ in range(2)]

    ids = {problem(answer, 404, "not_found")["request_id"] for answer in answers}
    assert 2 == len(ids)
    assert request_id not in ids


async def test_other_scopes_are_left_alone():
    """A lifespan is passed on, and its failures too."""

    async def fail(_scope, _receive, _send):
        raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011  # it is raised just above
        await Problems(fail)({"type": "lifespan"}, receive, receive)
