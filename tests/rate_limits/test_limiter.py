import subprocess
import sys

import pytest
from limits import parse

from app.rate_limits import limiter
from app.rate_limits.host_counters import HostCounters
from app.rate_limits.limiter import RouteLimiter
from tests.paths import ROOT


def test_the_limiter_reads_no_environment(monkeypatch, tmp_path):
    """Neither RATELIMIT_* variables nor a `.env` file configure the limiter."""
    monkeypatch.chdir(tmp_path)
    variables = {
        "RATELIMIT_ENABLED": "false",
        "RATELIMIT_STORAGE_URL": "memory://",
        "RATELIMIT_STRATEGY": "fixed-window",
        "RATELIMIT_DEFAULT": "1/minute",
        "RATELIMIT_APPLICATION": "1/minute",
        "RATELIMIT_SWALLOW_ERRORS": "true",
        "RATELIMIT_KEY_PREFIX": "x",
    }
    (tmp_path / ".env").write_text("".join(f"{name}={value}\n" for name, value in variables.items()))
    before = RouteLimiter()
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    after = RouteLimiter()

    for made in (before, after):
        assert made.enabled
        assert [] == made._default_limits == made._application_limits
        assert not made._swallow_errors
        assert not made._key_prefix
        assert "HostStorage" == type(made._storage).__name__
        assert "MovingWindowRateLimiter" == type(made.limiter).__name__


IMPORT = """
import os, sys, threading
written = []
def record(event, arguments):
    if event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
        written.append(arguments[0])
    if event in ("socket.connect", "tempfile.mkdtemp"):
        written.append(event)
sys.addaudithook(record)
before = os.listdir("/proc/self/fd")
import app.rate_limits
print(os.listdir("/proc/self/fd") == before, written, threading.active_count(), "redis" in sys.modules)
"""


def test_importing_opens_nothing():
    """The import leaves no file open, writes none, starts no thread, and does not import the Redis client."""
    done = subprocess.run(
        [sys.executable, "-B", "-W", "error", "-c", IMPORT], cwd=ROOT, capture_output=True, text=True, check=True
    )

    assert "True [] 1 False" == done.stdout.strip()


@pytest.mark.parametrize("is_shared", [True, False], ids=["shared", "alone"])
def test_the_limiter_counts_only_while_counters_are_open(tmp_path, is_shared):
    """While counters are in use it counts in them; afterwards counting raises an error that names the lifespan."""
    counters = HostCounters(lambda _: None)
    counters.open(tmp_path if is_shared else None)
    minute = parse("2/minute")
    with limiter.using(counters, {}, enabled=True):
        strategy = limiter.limiter
        assert [True, True, False] == [strategy.hit(minute, "client", "route") for _ in range(3)]
        assert not strategy.test(minute, "client", "route")
        assert 0 == strategy.get_window_stats(minute, "client", "route").remaining
        assert limiter._storage.check()
        strategy.clear(minute, "client", "route")
        assert 2 == strategy.get_window_stats(minute, "client", "route").remaining
        assert strategy.hit(minute, "client" * 100, "a long key")
        limiter.reset()
        assert 2 == strategy.get_window_stats(minute, "client" * 100, "a long key").remaining
    counters.close()

    assert not limiter._storage.check()
    with pytest.raises(RuntimeError, match="lifespan"):
        limiter.limiter.hit(minute, "client", "route")


def test_a_limit_of_the_settings_is_that_of_the_application_that_runs():
    """The decorator names it when the module is imported, and it is looked up when a request is counted."""
    limit = limiter.setting("export")
    counters = HostCounters(lambda _: None)
    with limiter.using(counters, {"export": "10/minute"}, enabled=True):
        assert "10/minute" == limit()
        with limiter.using(counters, {"export": "3/hour"}, enabled=True):
            assert "3/hour" == limit()
        assert "10/minute" == limit()

    with pytest.raises(KeyError):
        limit()


def test_fixed_windows_are_refused():
    """Calls that belong to a fixed window raise an error that names the right strategy."""
    for call in (
        lambda: limiter._storage.incr("a", 1),
        lambda: limiter._storage.get("a"),
        lambda: limiter._storage.get_expiry("a"),
    ):
        with pytest.raises(NotImplementedError, match="moving-window"):
            call()


@pytest.mark.parametrize("malformed", ["often", "1/fortnight", "-1/minute", "", "1/0minute"])
def test_a_malformed_limit_is_refused_where_it_is_declared(malformed):
    """It would be logged by slowapi, and limit nothing."""
    with pytest.raises(ValueError, match=r"couldn't parse|no granularity|at least 1"):
        limiter.limit(malformed)
    with pytest.raises(ValueError, match=r"couldn't parse|no granularity|at least 1"):
        limiter.shared_limit(malformed, scope="all")
