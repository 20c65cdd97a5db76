import pytest
from gunicorn.config import Config
from gunicorn.errors import ConfigError

from app.worker.arbiter import RollingArbiter, _check_restart_only


def configuration(**values):
    """Gunicorn's configuration with these values."""
    config = Config()
    for name, value in values.items():
        config.set(name, value)
    return config


def test_a_reload_may_change_what_workers_use():
    """Timeouts and the number of workers are read again."""
    _check_restart_only(configuration(workers=2, timeout=30), configuration(workers=3, timeout=5))


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"bind": "127.0.0.1:1"}, "HOST, PORT and OPS_PORT"),
        ({"pidfile": "/run/other.pid"}, "`pidfile`"),
        ({"proc_name": "other"}, "`proc_name`"),
        ({"raw_env": ["A=b"]}, "`raw_env`"),
        ({"umask": 0o77}, "`umask`"),
    ],
)
def test_a_reload_that_changes_what_the_master_reads_at_its_start_is_refused(values, named):
    """The message names the setting."""
    with pytest.raises(ConfigError, match=f"{named} changes? with a restart only"):
        _check_restart_only(configuration(), configuration(**values))


def test_the_pause_is_bounded_however_many_workers_have_failed():
    """A day of failures does not end the master."""
    arbiter = RollingArbiter.__new__(RollingArbiter)
    arbiter._failures = 5_000

    assert 30.0 == arbiter._pause_next_start()
