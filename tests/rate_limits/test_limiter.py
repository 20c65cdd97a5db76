import subprocess
import sys

import pytest
from limits import parse

from app.rate_limits import limiter
from app.rate_limits.limiter import SharedLimiter
from app.rate_limits.shared_memory import SharedMemory


def test_the_limiter_reads_no_environment(monkeypatch, tmp_path):
    """Neither RATELIMIT_* nor a `.env` file changes it."""
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
    before = SharedLimiter()
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    after = SharedLimiter()

    for made in (before, after):
        assert made.enabled
        assert [] == made._default_limits == made._application_limits
        assert not made._swallow_errors
        assert not made._key_prefix
        assert "SharedMemoryStorage" == type(made._storage).__name__
        assert "MovingWindowRateLimiter" == type(made.limiter).__name__


def test_importing_opens_nothing(tmp_path):
    """The modules can be imported where nothing can be written, start no thread, and load no Redis client."""
    program = (
        "import app.rate_limits, sys, threading, os;"
        "assert threading.active_count() == 1;"
        "assert 'redis' not in sys.modules;"
        "assert not [f for f in os.listdir('/proc/self/fd') if 'shm' in os.path.realpath('/proc/self/fd/' + f)]"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True)


def test_the_limiter_counts_where_it_is_told():
    """While counters are open it counts in them, and afterwards it says that none are."""
    counters = SharedMemory()
    counters.open(None)
    minute = parse("2/minute")
    with limiter.counting_in(counters, enabled=True):
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


def test_only_the_sliding_window_is_counted():
    """A fixed window would count wrongly at its edges, and is refused."""
    for call in (
        lambda: limiter._storage.incr("a", 1),
        lambda: limiter._storage.get("a"),
        lambda: limiter._storage.get_expiry("a"),
    ):
        with pytest.raises(NotImplementedError, match="moving-window"):
            call()
