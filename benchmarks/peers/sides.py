"""The sides of the comparison, and what is on in each of them."""

from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus

from benchmarks.harness.servers import Server, service, uvicorn
from benchmarks.peers.installing import Installation
from benchmarks.request.sides import COMMON, FLOOR, FLOOR_WITHOUT_RESET, SERVICE

FASTIFY = "Fastify"
LITESTAR = "Litestar"
TEMPLATE = "full-stack-fastapi-template's way"

NEVER_REACHED = 1_000_000_000
"""Requests in a window of the rate limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One server of the comparison."""

    name: str
    start: Callable[[Installation, str, int], Server]
    """Takes the installed peers, the URL of the database, and the rate limit: requests in its window."""

    refusal: HTTPStatus | None = None
    """The answer to an invalid body; None for a floor, which checks nothing."""

    is_controlled: bool = True
    """Whether it has a rate limit, metrics and request ids."""

    on: tuple[str, ...] = ()
    """What is on, in the order of `CONTROLS`."""


CONTROLS = (
    "request log",
    "request id",
    "metrics",
    "rate limit",
    "validation of the body",
    "response",
    "timeouts",
    "database",
)

SIDES = (
    Side(
        name=FLOOR,
        start=lambda _, url, __: uvicorn(FLOOR, "benchmarks.request.floor:with_reset", url),
        on=("no", "no", "no", "no", "no", "orjson", "keep-alive 5 s", "asyncpg's pool, which resets a connection"),
    ),
    Side(
        name=FLOOR_WITHOUT_RESET,
        start=lambda _, url, __: uvicorn(FLOOR_WITHOUT_RESET, "benchmarks.request.floor:without_reset", url),
        on=("no", "no", "no", "no", "no", "orjson", "keep-alive 5 s", "asyncpg's pool, without the reset"),
    ),
    Side(
        name=SERVICE,
        start=lambda _, url, limit: service(
            SERVICE,
            url,
            DATABASE_CONNECTIONS="10",
            RATE_LIMIT_READ=f"{limit}/minute",
            RATE_LIMIT_WRITE=f"{limit}/minute",
        ),
        refusal=HTTPStatus.UNPROCESSABLE_ENTITY,
        on=(
            "structlog, one line, written by a thread",
            "yes",
            "prometheus-client, for all workers together",
            "of all workers of the host",
            "Pydantic",
            "orjson, ETag",
            "to send a request, for a connection, for a statement; keep-alive 75 s",
            "asyncpg, one statement",
        ),
    ),
    Side(
        name=FASTIFY,
        start=lambda peers, url, limit: Server(
            name=FASTIFY,
            command=[peers.node, str(peers.applications / "fastify_items.js")],
            environment={"DATABASE_URL": url, "RATE_LIMIT": str(limit), "NODE_ENV": "production"},
        ),
        refusal=HTTPStatus.BAD_REQUEST,
        on=(
            "pino, one line, written asynchronously",
            "yes",
            "prom-client, of one process",
            "@fastify/rate-limit, of one process",
            "JSON schema",
            "JSON schema",
            "to send a request, for a connection, for a statement; keep-alive 75 s",
            "pg, one prepared statement",
        ),
    ),
    Side(
        name=LITESTAR,
        start=lambda peers, url, limit: uvicorn(
            LITESTAR,
            "litestar_items:app",
            url,
            python=peers.python,
            folder=peers.applications,
            RATE_LIMIT=str(limit),
        ),
        refusal=HTTPStatus.BAD_REQUEST,
        on=(
            "structlog, one line",
            "yes",
            "its Prometheus plugin, of one process",
            "its middleware, of one process, by the second",
            "msgspec",
            "msgspec",
            "keep-alive 5 s",
            "asyncpg's pool, which resets a connection; one statement",
        ),
    ),
    Side(
        name=TEMPLATE,
        start=lambda peers, url, _: uvicorn(
            TEMPLATE, "template_items:app", url, python=peers.python, folder=peers.applications, options=()
        ),
        refusal=HTTPStatus.UNPROCESSABLE_ENTITY,
        is_controlled=False,
        on=(
            "Uvicorn's access log",
            "no",
            "no",
            "no",
            "Pydantic (SQLModel)",
            "Pydantic (SQLModel)",
            "keep-alive 5 s, for a connection",
            "psycopg, a session for each request in a thread",
        ),
    ),
    Side(
        name=COMMON,
        start=lambda _, url, limit: uvicorn(
            COMMON, "benchmarks.request.common_pattern:app", url, RATE_LIMIT=f"{limit}/minute"
        ),
        refusal=HTTPStatus.UNPROCESSABLE_ENTITY,
        on=(
            "structlog, one line",
            "yes",
            "instrumentator, of one process",
            "slowapi, of one process",
            "Pydantic",
            "Pydantic",
            "keep-alive 5 s, for a connection",
            "asyncpg, a session for each request",
        ),
    ),
)
