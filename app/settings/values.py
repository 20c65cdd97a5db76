"""The types of the settings: their choices, their bounds and their checks."""

from enum import StrEnum
from ipaddress import ip_network
from typing import Annotated, Any
from urllib.parse import urlsplit

from limits import parse_many
from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, PlainValidator, SecretStr
from pydantic_settings import NoDecode

from app.database_url import DatabaseUrl

Seconds = Annotated[float, Field(gt=0, le=3600, allow_inf_nan=False)]
Port = Annotated[int, Field(ge=1, le=65535)]


class LogFormat(StrEnum):
    """How a log line is written."""

    JSON = "json"
    CONSOLE = "console"


class LogLevel(StrEnum):
    """The lowest level that is logged."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class DatabasePooler(StrEnum):
    """What stands between this service and PostgreSQL."""

    NONE = "none"

    PGBOUNCER = "pgbouncer"
    """PgBouncer of any version. Each statement is parsed every time, which takes a second round trip."""

    PGBOUNCER_PREPARED = "pgbouncer-prepared"
    """PgBouncer 1.21 or newer with `max_prepared_statements` of at least 100."""


def _lower_case(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


AnyCase = BeforeValidator(_lower_case)
"""Makes a choice readable in upper and lower case."""


def _split(value: Any) -> Any:
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


List = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]
"""Several values in one variable, separated by commas."""


def _check_networks(value: tuple[str, ...]) -> tuple[str, ...]:
    for network in value:
        try:
            _ = network == "*" or ip_network(network)
        except ValueError:
            raise ValueError("must be addresses or networks like 10.0.0.0/8, separated by commas") from None
    return value


Networks = Annotated[List, AfterValidator(_check_networks)]
"""Addresses and networks, separated by commas. `*` stands for all."""


def _parse_database_url(value: Any) -> DatabaseUrl:
    return value if isinstance(value, DatabaseUrl) else DatabaseUrl.parse(str(value))


DatabaseAddress = Annotated[DatabaseUrl, PlainValidator(_parse_database_url), PlainSerializer(repr)]
"""The address of a PostgreSQL."""


def _check_storage_uri(value: SecretStr) -> SecretStr:
    try:
        parts = urlsplit(value.get_secret_value())
        _ = parts.port  # raises when it is no number
    except ValueError:
        parts = urlsplit("")
    if parts.scheme not in {"redis", "rediss"}:
        raise ValueError("must be a URL like redis://:password@host:6379/0, or not be set")
    return value


StorageUri = Annotated[SecretStr, AfterValidator(_check_storage_uri)]
"""The address of a Redis."""


def _check_limit(value: str) -> str:
    try:
        several = len(parse_many(value)) != 1
    except ValueError:
        several = True
    if several:
        raise ValueError("must be one limit like 600/minute or 20/second")
    return value


Limit = Annotated[str, AfterValidator(_check_limit)]
"""A number of requests in a period, in the notation of `limits`."""
