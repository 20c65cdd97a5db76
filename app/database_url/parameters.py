"""Which parameters a PostgreSQL URI may have: those that are used, those that are ignored, and the rest is refused."""

import difflib
from collections.abc import Mapping
from typing import Final

from app.database_url.uri import PARAMETER_NAME, PARAMETERS, parse_uri

_USED: Final = {
    "host": "PGHOST",
    "port": "PGPORT",
    "user": "PGUSER",
    "password": "PGPASSWORD",  # nosec  # the name of a variable
    "passfile": "PGPASSFILE",
    "dbname": "PGDATABASE",
    "options": "PGOPTIONS",
    "application_name": "PGAPPNAME",
    "connect_timeout": "PGCONNECT_TIMEOUT",
    "target_session_attrs": "PGTARGETSESSIONATTRS",
    "load_balance_hosts": "PGLOADBALANCEHOSTS",
    "sslmode": "PGSSLMODE",
    "sslnegotiation": "PGSSLNEGOTIATION",
    "sslrootcert": "PGSSLROOTCERT",
    "sslcrl": "PGSSLCRL",
    "sslcert": "PGSSLCERT",
    "sslkey": "PGSSLKEY",
    "sslpassword": None,
    "ssl_min_protocol_version": "PGSSLMINPROTOCOLVERSION",
    "ssl_max_protocol_version": "PGSSLMAXPROTOCOLVERSION",
    "channel_binding": "PGCHANNELBINDING",
}
"""The variable of the environment that libpq takes each one from when the URI leaves it out."""

_IGNORED: Final[Mapping[str, tuple[str, ...] | None]] = {
    "client_encoding": ("auto", "utf8", "utf-8", "unicode"),
    "fallback_application_name": None,
    "gssencmode": ("disable", "prefer"),
    "gssdelegation": None,
    "gsslib": None,
    "krbsrvname": None,
    "keepalives": None,
    "keepalives_idle": None,
    "keepalives_interval": None,
    "keepalives_count": None,
    "tcp_user_timeout": None,
    "min_protocol_version": ("3.0",),
    "max_protocol_version": None,
    "sslcertmode": ("disable", "allow"),
    "sslcompression": None,
    "sslsni": None,
}
"""Parameters that this service ignores, with the values for which that makes no difference that matters."""

_INSTEAD: Final = {
    "connection_limit": "set DATABASE_CONNECTIONS",
    "currentschema": "write options=-csearch_path%3Dname",
    "hostaddr": "write the address as the host",
    "pgbouncer": "set DATABASE_POOLER=pgbouncer",
    "pool_timeout": "set DATABASE_WAIT_SECONDS",
    "schema": "write options=-csearch_path%3Dname",
    "search_path": "write options=-csearch_path%3Dname",
    "service": "write the service's parameters into the URL",
    "statement_timeout": "set DATABASE_STATEMENT_SECONDS",
}
"""What does the same here as a parameter that is refused."""

_ENCRYPTED: Final = ("require", "verify-ca", "verify-full")

_SSL: Final = {"true": _ENCRYPTED, "require": _ENCRYPTED, "false": ("disable",)}
"""The values of `sslmode` that `ssl` may have beside it, first the one that it means alone. It may also have another
`sslmode` as its value."""


def read_parameters(uri: str, environment: Mapping[str, str]) -> dict[str, str]:
    """The parameters of libpq that are used here, from the URI or else from the environment; none is empty.

    Raises:
        ValueError: The URI is malformed, or a parameter cannot work. The message repeats no value.
    """
    written = parse_uri(uri)
    if ssl := written.pop("ssl", ""):
        mode = written.get("sslmode") or _SSL.get(ssl, (ssl,))[0]
        if mode not in _SSL.get(ssl, (ssl,)):
            raise ValueError("must not have the parameters ssl and sslmode with different meanings: leave ssl out")
        written["sslmode"] = mode
    for name in written:
        if choices := _IGNORED.get(name):
            choice(written, name, *choices)
        elif name not in _USED and name not in _IGNORED:
            raise ValueError(_refusal(name))
    values = {name: written.get(name) or environment.get(variable or "") for name, variable in _USED.items()}
    for name, value in values.items():
        if value and any("\ud800" <= character <= "\udfff" for character in value):  # bytes of a variable
            raise ValueError(f"must have text in UTF-8 as the value of {name} (or {_USED[name]})")
    return {name: value for name, value in values.items() if value}


def choice(parameters: Mapping[str, str], name: str, *choices: str) -> str:
    """The parameter's value, by default the first of its choices.

    Raises:
        ValueError: It is none of them.
    """
    value = parameters.get(name) or choices[0]
    if value not in choices:
        source = f" (or {variable})" if (variable := _USED.get(name)) else ""
        alternatives = " or ".join(filter(None, [", ".join(choices[:-1]), choices[-1]]))
        raise ValueError(f"must have {alternatives} as the value of {name}{source}")
    return value


def _refusal(name: str) -> str:
    if not PARAMETER_NAME.fullmatch(name):
        return PARAMETERS
    if instead := _INSTEAD.get(name.lower()):
        return f"must not have the parameter {name}: {instead} instead"
    known = sorted({*_USED, *_IGNORED})
    similar = difflib.get_close_matches(name.lower(), known, 1)
    meant = f"write {similar[0]} if that is meant" if similar else f"it can have {', '.join(known)}"
    return f"must not have the parameter {name}, which does not work here: {meant}"
