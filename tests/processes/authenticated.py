"""Servers that require the access tokens of an issuer, and tokens for them."""

import http.client
import json
from collections.abc import Iterable
from typing import Any

from fastapi import FastAPI

from app.auth import keys
from app.settings import Settings
from tests.issuer.server import Issuer
from tests.issuer.tokens import AUDIENCE, SigningKey
from tests.processes.load import Answer
from tests.processes.server import Server, eventually, service
from tests.sample import app as sample

BOTH = "samples:read samples:write"

SHORT_FETCHES = "tests.processes.authenticated:with_short_fetches()"
"""The application with the samples, in which a token with an unknown key causes a fetch after 50 ms."""


def with_short_fetches(settings: Settings | None = None) -> FastAPI:
    """Return the application, in which the issuer is asked more often than in production."""
    keys.UNKNOWN_KEY_SECONDS = 0.05  # type: ignore[misc]
    return sample.create_app(settings)


def authenticated(url: str, issuer: Issuer, *, workers: int = 1, **settings: str) -> Server:
    """The service and the samples with this database, for clients with tokens of this issuer."""
    return service(url, workers=workers, AUTH_ISSUER=issuer.url, AUTH_AUDIENCE=AUDIENCE, **settings)


def bearer(token: str) -> tuple[str, str]:
    """The header with a token."""
    return ("Authorization", f"Bearer {token}")


def token(issuer: Issuer, key: SigningKey, **changed: Any) -> str:
    """A new token for reading and writing, signed by this key."""
    return key.token(issuer.url, **{"scope": BOTH} | changed)


def ask(
    server: Server, headers: Iterable[tuple[str, str]] = (), *, method: str = "GET", target: str = "/samples",
    body: bytes = b"",
) -> Answer:  # fmt: skip
    """The answer to a request on a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    try:
        connection.putrequest(method, target)
        for name, value in headers:
            connection.putheader(name, value.encode("utf-8"))
        connection.endheaders(body)
        answer = connection.getresponse()
        found = {name.lower(): value for name, value in answer.getheaders()}
        return Answer(status=answer.status, headers=found, body=answer.read())
    finally:
        connection.close()


def post(server: Server, name: str, *headers: tuple[str, str]) -> Answer:
    """The answer to a request that makes a sample."""
    body = json.dumps({"name": name}).encode()
    described = (("Content-Type", "application/json"), ("Content-Length", str(len(body))))
    return ask(server, (*headers, *described), method="POST", body=body)


def code(answer: Answer) -> tuple[int, str | None]:
    """The status and the code of an answer. A success has no code."""
    return answer.status, json.loads(answer.body).get("code") if answer.body else None


def wait_until_ready(server: Server, *, seconds: float = 30) -> None:
    """Wait until the server is ready."""
    eventually(lambda: ask(server, target="/health/ready").status == 200, seconds=seconds, what="ready")
