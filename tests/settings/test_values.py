"""Which values are accepted, and which are refused."""

import re

import pytest

from app.errors import StartupError
from app.settings import Settings

SECRET = "hunter2"
SENTENCE = re.compile(r"[A-Z].*[^.]\.")


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        *(("DATABASE_URL", url) for url in (f"mysql://u:{SECRET}@h/n", SECRET, f"//u:{SECRET}@h",
        f"postgresql://u:{SECRET}@[::1/n", f"postgresql://u:{SECRET}@h:port/n", f"postgresql://u:{SECRET}@h:99999/n")),
        *(("RATE_LIMIT_STORAGE_URI", uri) for uri in (f"memcached://:{SECRET}@h", SECRET, "rediss")),
        *((name, text) for name in ("DATABASE_CONNECTIONS", "INSTANCES", "WEB_CONCURRENCY",
        "MAX_BODY_BYTES") for text in ("0", "-1", "many", "1.5", "99999999999")),
        *((name, text) for name in ("DATABASE_WAIT_SECONDS", "DATABASE_STATEMENT_SECONDS", "KEEP_ALIVE_SECONDS",
        "GRACEFUL_SECONDS") for text in ("0", "-1", "soon", "nan", "inf", "99999")),
        *((name, text) for name in ("PORT", "OPS_PORT") for text in ("0", "65536", "http")),
        ("WORKER_TIMEOUT_SECONDS", "1"), ("MAX_REQUESTS", "-1"), ("MAX_REQUESTS_JITTER", "x"), ("LOG_LEVEL", "loud"),
        ("LOG_FORMAT", "xml"),
        ("DATABASE_POOLER", "pgpool"), ("RATE_LIMIT_ENABLED", "maybe"),
        *((name, text) for name in ("RATE_LIMIT_READ", "RATE_LIMIT_WRITE") for text in ("many", "10",
        "10/minute;20/second", "x/minute", "10/fortnight")),
        ("FORWARDED_ALLOW_IPS", "proxy.example"),
    ],
)  # fmt: skip
def test_a_malformed_value_stops_the_start(environment, variable, text):
    """One sentence begins with the variable, says what to write, and does not show the value."""
    environment(variable, text)

    with pytest.raises(StartupError) as raised:
        Settings.load()

    sentence = str(raised.value)
    assert sentence.startswith(f"{variable} must be ")
    assert SENTENCE.fullmatch(sentence)
    assert SECRET not in sentence
    assert raised.value.__suppress_context__
