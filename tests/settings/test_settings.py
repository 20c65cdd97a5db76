"""What the settings are when nothing is said, and what they say together."""

import os

import pytest

from app.errors import StartupError
from app.settings import Settings


def test_nothing_has_to_be_set(environment):
    """Each setting has a default; that of the database is asked for when it is needed."""
    settings = Settings.load()

    assert (20, 1.0, 5.0, "none", 1) == (
        settings.database_connections, settings.database_wait_seconds, settings.database_statement_seconds,
        settings.database_pooler, settings.instances,
    )  # fmt: skip
    assert ("127.0.0.1", 8000, None, "info") == (settings.host, settings.port, settings.ops_port, settings.log_level)
    assert ("6000/minute", "600/minute", None, True) == (
        settings.rate_limit_read, settings.rate_limit_write, settings.rate_limit_storage_uri,
        settings.rate_limit_enabled,
    )  # fmt: skip
    assert (("127.0.0.1",), (), ("*",), 65536) == (
        settings.forwarded_allow_ips, settings.cors_allow_origins, settings.allowed_hosts, settings.max_body_bytes,
    )  # fmt: skip
    assert (10.0, 75.0, 25.0, 30, 0, 0, None) == (
        settings.request_receive_seconds, settings.keep_alive_seconds, settings.graceful_seconds,
        settings.worker_timeout_seconds, settings.max_requests, settings.max_requests_jitter,
        settings.metrics_directory,
    )  # fmt: skip
    assert 1 <= settings.web_concurrency <= (os.cpu_count() or 1)
    with pytest.raises(StartupError, match=r"^DATABASE_URL is not set: write it as postgresql://"):
        _ = settings.dsn


def test_a_contradiction_stops_the_start(environment):
    """Settings that exclude each other are both named."""
    environment("OPS_PORT", "8000")

    with pytest.raises(StartupError, match=r"^OPS_PORT and PORT must differ"):
        Settings.load()
