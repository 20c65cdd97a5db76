"""The types of the settings: their choices, their bounds and their checks."""

import os
import re
import stat
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import parse_qsl, urlsplit

from limits import parse_many
from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, PlainValidator, SecretStr
from pydantic_settings import NoDecode

from app.database_url import DatabaseUrl
from app.settings.addresses import List
from app.settings.files import mode_of

Seconds = Annotated[float, Field(ge=0.001, le=3600, allow_inf_nan=False)]
"""PostgreSQL counts in milliseconds. A shorter time would become 0, which it takes for no limit."""

Port = Annotated[int, Field(ge=1, le=65535)]
BuildName = Annotated[str, Field(max_length=128)]


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


def _parse_database_url(value: Any) -> DatabaseUrl | None:
    return value if value is None or isinstance(value, DatabaseUrl) else DatabaseUrl.parse(str(value))


DatabaseAddress = Annotated[
    DatabaseUrl | None, NoDecode, PlainValidator(_parse_database_url), PlainSerializer(lambda url: url and repr(url))
]
"""The address of a PostgreSQL."""


def _parse_replica_url(value: Any) -> DatabaseUrl | None:
    return value if value is None or isinstance(value, DatabaseUrl) else DatabaseUrl.parse_replicas(str(value))


ReplicaAddress = Annotated[
    DatabaseUrl | None, NoDecode, PlainValidator(_parse_replica_url), PlainSerializer(lambda url: url and repr(url))
]
"""The address of replicas."""

_STORAGE_FORM: Final = "must be a URL like redis://:password@host:6379/0"

_STORAGE_FILES: Final = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
"""The parameters that a URI with TLS can have. This service sets the others, such as timeouts, itself."""


def _check_storage_uri(value: SecretStr) -> SecretStr:
    uri = value.get_secret_value()
    try:
        parts = urlsplit(uri)
        is_usable = parts.hostname is not None and parts.port != 0  # a port that is no number raises
    except ValueError:
        raise ValueError(f"{_STORAGE_FORM}, or not be set") from None
    if parts.scheme not in {"redis", "rediss"}:
        raise ValueError(
            f"{_STORAGE_FORM}, also for a cluster, or like rediss://… with TLS; Redis Sentinel is not supported"
        )
    if not is_usable or uri.count("@") > 1 or parts.fragment or not re.fullmatch(r"(/\d{0,5})?", parts.path):
        raise ValueError(f"{_STORAGE_FORM}, with %23 for #, %2F for /, %3F for ? and %40 for @ in the password")
    for name, file in parse_qsl(parts.query, keep_blank_values=True):
        if name not in _STORAGE_FILES or parts.scheme != "rediss":
            raise ValueError(f"{_STORAGE_FORM} without parameters, but for {', '.join(_STORAGE_FILES)} of rediss://")
        if not os.access(file, os.R_OK):
            raise ValueError(f"must name a file that this process can read in its parameter {name}")
    return value


StorageUri = Annotated[SecretStr, AfterValidator(_check_storage_uri)]
"""The address of a Redis."""


_LONGEST_WINDOW_SECONDS: Final = 86_400
_LARGEST_LIMIT: Final = 1_000_000_000
_NO_PERIOD: Final = re.compile(r"(?:/|per)\s*0+\s*[a-z]", re.IGNORECASE)


def parse_limits(text: str) -> list[Any]:
    """The limits in the notation of `limits`, which reads a period of 0 minutes as one.

    Raises:
        ValueError: The text is malformed, or has a period of 0.
    """
    if _NO_PERIOD.search(text):
        raise ValueError(f"The period of a limit is at least 1: {text}")
    return parse_many(text)


def _check_limit(value: str) -> str:
    try:
        (limit,) = parse_limits(value)
    except ValueError:
        raise ValueError("must be one limit like 600/minute or 20/second") from None
    if not 1 <= limit.amount <= _LARGEST_LIMIT or limit.get_expiry() > _LONGEST_WINDOW_SECONDS:
        raise ValueError("must be at least one request in a period of at most a day, like 600/minute or 20/second")
    return value


Limit = Annotated[str, AfterValidator(_check_limit)]
"""A number of requests in a period, in the notation of `limits`."""


def _check_folder(value: str) -> str:
    mode = mode_of(Path(value))
    if mode and not stat.S_ISDIR(mode):
        raise ValueError("must name a folder, or a path where one can be made")
    return value


Folder = Annotated[str, AfterValidator(_check_folder)]
"""The path of a folder, which is made where it is missing."""


CORS_HEADERS: Final = (
    "content-type",
    "idempotency-key",
    "if-match",
    "if-none-match",
    "x-request-id",
    "authorization",
    "traceparent",
    "tracestate",
    "baggage",
    "x-requested-with",
    "cache-control",
)

_TOKEN: Final = re.compile(r"[a-z0-9!#$%&'*+.^_`|~-]+")


def _header_names(value: tuple[str, ...]) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(entry.lower() for entry in value))
    if not all(map(_TOKEN.fullmatch, names)):
        raise ValueError("must be names of headers, separated by commas, or * for every header")
    return names


HeaderNames = Annotated[List, AfterValidator(_header_names)]
"""Names of headers, separated by commas. `*` stands for every header."""

_PREFIX: Final = re.compile(r"(?:/(?!\.{1,2}(?:/|$))[A-Za-z0-9._~-]+)+")


def _root_path(value: str | None) -> str | None:
    if value is not None and not _PREFIX.fullmatch(value):
        raise ValueError("must be a path like /shop or /api/v1, without a slash at the end, or not be set")
    return value


RootPath = Annotated[str | None, AfterValidator(_root_path)]
"""A prefix of paths, or none."""
