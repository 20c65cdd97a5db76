import sys
from unittest.mock import Mock

import pytest
import structlog
from gunicorn.config import Config
from gunicorn.errors import ConfigError

from app.worker.arbiter import RollingArbiter, _check_restart_only, _forget_modules, _restore_modules


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


def imported():
    """A module of the application and a check of the master, as `from package import module` finds them."""
    from app import logs  # noqa: PLC0415
    from app.worker import configuration  # noqa: PLC0415

    return logs, configuration


def test_forgotten_modules_are_imported_again_until_they_are_restored():
    """`from app import logs` gives the module that `import app.logs` gives: a new one, and the old one afterwards."""
    old = imported()
    attributes = [dict(vars(sys.modules[package])) for package in ("app", "app.worker")]
    forgotten = _forget_modules()
    try:
        new = imported()
        found = sys.modules["app.logs"], sys.modules["app.worker.configuration"]
    finally:
        _restore_modules(forgotten)

    assert found == new
    assert not set(old) & set(new)
    assert old == imported() == (sys.modules["app.logs"], sys.modules["app.worker.configuration"])
    assert forgotten.items() <= sys.modules.items()
    assert attributes == [vars(sys.modules[package]) for package in ("app", "app.worker")]


def test_a_refused_reload_leaves_modules_and_logging_as_they_were():
    """The new configuration has imported its code and configured the log before its error was found."""

    def reload():
        structlog.configure(processors=imported()[0].rendering.processors("console"))
        application.cfg, application.app_uri = Config(), None
        raise ConfigError("wrong")

    arbiter = RollingArbiter.__new__(RollingArbiter)
    config = Config()
    application = Mock(reload=reload, cfg=config, app_uri="app.main:create_app()")
    arbiter.app, arbiter.events, arbiter.log = application, Mock(), Mock()
    old, logging = imported(), structlog.get_config()
    arbiter.reload()

    assert 0 == arbiter.generation
    assert old == imported()
    assert logging == structlog.get_config()
    assert (config, "app.main:create_app()") == (application.cfg, application.app_uri)
