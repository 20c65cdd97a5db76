"""Checks before a measurement that a side answers correctly, and that its controls are on."""

import re
import time
from collections.abc import Callable
from http import HTTPStatus

import httpx

from benchmarks.harness.servers import Server
from benchmarks.peers.sides import Side

LIMIT = 3
"""The rate limit of a server whose refusals are checked."""

_ITEM = {"id", "name", "description", "price", "is_active", "created_at", "updated_at"}
_PAGE = {"items", "page", "per_page", "total", "pages"}
_NEW = {"name": "Kettle", "description": None, "price": 34.5}
_ID = "checked-by-the-benchmark"
_COUNTER = re.compile(r'^\w*requests_total\{[^\n]*"/items/[:{][^\n]*\} (\d+)', re.MULTILINE)
_WAIT_SECONDS = 5.0


def check_answers(server: Server, side: Side) -> None:
    """Check the three answers, and those to a missing item and to an invalid body.

    Raises:
        AssertionError: An answer is not what the other sides answer.
    """
    with httpx.Client(base_url=server.url("")) as client:
        item = client.get("/items/5000")
        assert item.status_code == HTTPStatus.OK, item.text
        assert item.json().keys() >= _ITEM, item.text
        assert {"id": 5000, "name": "Kettle 5000", "price": 50.0}.items() <= item.json().items(), item.text
        page = client.get("/items", params={"page": 2})
        assert page.json().keys() >= _PAGE, page.text
        assert list(range(21, 41)) == [one["id"] for one in page.json()["items"]], page.text
        assert page.json()["items"][0].keys() >= _ITEM, page.text
        assert page.json()["pages"] >= 51, page.text
        created = client.post("/items", json=_NEW)
        assert created.status_code == HTTPStatus.CREATED, created.text
        assert (_NEW | {"is_active": True}).items() <= created.json().items(), created.text
        assert client.get(f"/items/{created.json()['id']}").json()["name"] == "Kettle"
        assert client.get("/items/999999999").status_code == HTTPStatus.NOT_FOUND
        for body in ({}, _NEW | {"price": -1}, _NEW | {"name": ""}, _NEW | {"name": "x" * 256}):
            refused = client.post("/items", json=body)
            assert side.refusal == refused.status_code, (body, refused.status_code, refused.text)


def check_controls(server: Server, side: Side) -> None:
    """Check the request log and, where the side has them, request ids and metrics.

    Raises:
        AssertionError: A control is off.
    """
    with httpx.Client(base_url=server.url("")) as client:
        if not side.is_controlled:
            client.get("/items/4711")
            _wait(lambda: _lines(server, "GET /items/4711 ") == 1, f"{side.name} does not write one line a request")
            return
        before = _counted(client)
        answer = client.get("/items/4711", headers={"X-Request-ID": _ID})
        assert answer.headers.get("x-request-id") == _ID
        assert client.get("/items/4711").headers.get("x-request-id")
        _wait(lambda: _lines(server, _ID) == 1, f"{side.name} does not write one line a request")
        _wait(lambda: _counted(client) == before + 2, f"{side.name} does not count each request")


def check_limit(server: Server) -> None:
    """Check that the server, whose rate limit is `LIMIT`, refuses what comes after.

    Raises:
        AssertionError: It does not.
    """
    with httpx.Client(base_url=server.url("")) as client:
        # A window may end between two requests.
        answers = [client.get("/items/1").status_code for _ in range(2 * LIMIT + 1)]
    assert HTTPStatus.TOO_MANY_REQUESTS in answers[LIMIT - 1 :], answers


def _counted(client: httpx.Client) -> int:
    """The requests of the route of one item that the metrics count."""
    return sum(map(int, _COUNTER.findall(client.get("/metrics").text)))


def _lines(server: Server, text: str) -> int:
    return sum(text in line for line in server.output().splitlines())


def _wait(condition: Callable[[], bool], otherwise: str) -> None:
    """Wait for what comes a moment after the answer: lines are written together."""
    until = time.monotonic() + _WAIT_SECONDS
    while not condition():
        assert time.monotonic() < until, otherwise
        time.sleep(0.05)
