"""Exceptions that libraries raise for a URL, as they are logged."""

import asyncio
from collections.abc import Callable
from urllib.parse import urlsplit

import asyncpg
import pytest
import structlog
from redis import Redis
from sqlalchemy import make_url

from tests.log_lines import Lines

SECRET = "S3cretWord"

PASSWORDS = [
    SECRET,
    f"{SECRET}:x",
    f"a/{SECRET}",
    f"a@{SECRET}",
    f"{SECRET}@tenant:{SECRET}",
    f"a#{SECRET}",
    f"a?{SECRET}",
    f"[{SECRET}",
    f"a b{SECRET}",
    f"%zz{SECRET}",
    f"{SECRET}%40x",
    f"{SECRET}/x",
    f"{SECRET}?x=y",
    f"{SECRET}#x",
]

PLACES = ["owner:pw@127.0.0.1:{}/samples", "owner:pw@127.0.0.1:1/samples?{}", "owner:pw@127.0.0.1:1/samples?sslmode={}",
          "owner:pw@127.0.0.1:1/samples?target_session_attrs={}", "{}@tenant:pw@127.0.0.1:1/samples"]  # fmt: skip

PARSERS: dict[str, Callable[[str], object]] = {
    "urllib": lambda url: urlsplit(url).port,
    "asyncpg": lambda url: asyncio.run(asyncpg.connect(url, timeout=1)),
    "SQLAlchemy": make_url,
    "redis": lambda url: Redis.from_url(url.replace("postgresql", "redis", 1)).ping(),
}


URLS = [
    *(f"postgresql://samples:{password}@127.0.0.1:1/samples" for password in PASSWORDS),
    *(f"postgresql://{place.format(SECRET)}" for place in PLACES),
]


@pytest.mark.parametrize("parser", PARSERS)
@pytest.mark.parametrize("url", URLS)
def test_an_exception_of_a_library_shows_no_part_of_a_url(lines: Lines, parser: str, url: str):
    """Whatever a library says about a malformed URL, the log has neither the password nor another part of it."""
    try:
        raised: object = PARSERS[parser](url)
    except Exception as error:  # noqa: BLE001 -- each library raises its own
        structlog.get_logger().exception("failed", url=url)
        structlog.get_logger().error("failed", cause=str(error), error=error)
    else:
        structlog.get_logger().error("parsed", url=url, result=raised)

    assert SECRET not in str(lines())
