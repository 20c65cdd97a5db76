import os
import re
import subprocess
import sys

import pytest
from pydantic import ValidationError

from app.errors import StartupError
from app.main import create_app
from app.settings import Settings
from tests.cluster import PROJECT

SECRET = "hunter2"
URL = f"postgresql://user:{SECRET}@host:5432/name"
SENTENCE = re.compile(r"[A-Z].*[^.]\.")


@pytest.fixture
def environment(monkeypatch):
    """An environment with none of the settings in it, to set some."""
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    return monkeypatch.setenv


def load():
    """The settings of this environment."""
    return Settings.load(_env_file=None)


def test_nothing_has_to_be_set(environment):
    """Each setting has a default; that of the database is asked for when it is needed."""
    settings = load()

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
    assert 1 <= settings.web_concurrency <= os.cpu_count()
    with pytest.raises(StartupError, match=r"^DATABASE_URL is not set: write it as postgresql://"):
        _ = settings.dsn


@pytest.mark.parametrize(
    ("variable", "text", "value"),
    [
        ("DATABASE_CONNECTIONS", "7", 7), ("DATABASE_WAIT_SECONDS", "0.5", 0.5),
        ("DATABASE_POOLER", "PgBouncer", "pgbouncer"),
        ("WEB_CONCURRENCY", "3", 3), ("OPS_PORT", "9000", 9000), ("LOG_LEVEL", "WARNING", "warning"),
        ("LOG_FORMAT", "console", "console"),
        ("RATE_LIMIT_READ", "20/second", "20/second"), ("RATE_LIMIT_ENABLED", "false", False),
        ("FORWARDED_ALLOW_IPS", "10.0.0.0/8, ::1,", ("10.0.0.0/8", "::1")),
        ("ALLOWED_HOSTS", "a.example,*.b.example", ("a.example", "*.b.example")),
        ("CORS_ALLOW_ORIGINS", "https://a.example", ("https://a.example",)), ("MAX_BODY_BYTES", "1", 1),
        ("log_level", "error", "error"),
    ],
)  # fmt: skip
def test_a_variable_sets_the_field_of_its_name(environment, variable, text, value):
    """A setting is read from the environment, in whichever case it is written there."""
    environment(variable, text)

    assert value == getattr(load(), variable.lower())


@pytest.mark.parametrize("name", [name.upper() for name in Settings.model_fields])
def test_an_empty_variable_is_not_set(environment, name):
    """A variable without a value, as compose files leave behind, means the default."""
    default = getattr(load(), name.lower())

    environment(name, "")

    assert default == getattr(load(), name.lower())


@pytest.mark.parametrize("hosts", ["", "h", "h:1", "[::1]:5432", "h1:5432,h2:5433", "h1,h2"])
def test_the_hosts_may_be_several(environment, hosts):
    """One host or more, with a port or without, or none: a socket's folder then stands behind."""
    environment("DATABASE_URL", f"postgresql://user@{hosts}/name")

    assert hosts in load().dsn


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+asyncpg"])
def test_the_database_url_may_be_written_in_other_ways(environment, scheme):
    """What other tools call the scheme is understood; the rest stays as it is, a `%` in the password included."""
    environment("DATABASE_URL", f"{scheme}://user:p%25w@host/name?sslmode=require")

    assert "postgresql://user:p%25w@host/name?sslmode=require" == load().dsn


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
    """The start ends with one sentence that begins with the variable, says what to write, and shows no value."""
    environment(variable, text)

    with pytest.raises(StartupError) as raised:
        load()

    sentence = str(raised.value)
    assert sentence.startswith(f"{variable} must be ")
    assert SENTENCE.fullmatch(sentence)
    assert SECRET not in sentence
    assert raised.value.__suppress_context__


def test_each_malformed_value_is_told(environment):
    """Who has two things wrong learns of both at once."""
    environment("PORT", "http")
    environment("LOG_LEVEL", "loud")

    with pytest.raises(StartupError, match=r"PORT must be .*\. LOG_LEVEL must be .*\."):
        load()


def test_a_contradiction_stops_the_start(environment):
    """Settings that exclude each other are both named."""
    environment("OPS_PORT", "8000")

    with pytest.raises(StartupError, match=r"^OPS_PORT and PORT must differ"):
        load()


def test_secrets_are_not_shown(environment):
    """Neither printing the settings nor a failure to read them shows a password."""
    environment("DATABASE_URL", URL)
    environment("RATE_LIMIT_STORAGE_URI", f"redis://:{SECRET}@host")

    settings = load()

    assert SECRET in settings.dsn
    assert SECRET not in f"{settings!r}{settings}{settings.model_dump_json()}"


def test_settings_are_frozen():
    """What was read once stays."""
    with pytest.raises(ValidationError):
        load().port = 1


def test_a_file_sets_what_the_environment_leaves_open(environment, tmp_path, monkeypatch):
    """`.env` in the folder of the start is read; a variable of the environment goes first; unknown lines are left."""
    (tmp_path / ".env").write_text(f"DATABASE_URL={URL}\nPORT=9001\nLOG_LEVEL=debug\nOTHER=1\n")
    monkeypatch.chdir(tmp_path)
    environment("PORT", "9002")

    settings = Settings.load()

    assert (URL, 9002, "debug") == (settings.dsn, settings.port, settings.log_level)


def test_importing_reads_and_opens_nothing(tmp_path):
    """To import the application is no start: nothing is read from the environment, opened or connected to."""
    script = """if True:
        import sys, os
        seen = []
        sys.addaudithook(lambda event, arguments: seen.append((event, arguments)) if watching else None)
        watching = False
        import alembic, asyncio, asyncpg, fastapi, fastapi_swagger, gunicorn, hiredis, limits, lmdb
        import logging.config, orjson, prometheus_client
        import pydantic_settings, redis.asyncio, slowapi, sqlalchemy.ext.asyncio, structlog, uvicorn
        before = set(os.listdir("/proc/self/fd"))
        environment = os.environ
        read = set()
        class Watched(dict):
            def __getitem__(self, name): read.add(name); return super().__getitem__(name)
            def get(self, name, default=None): read.add(name); return super().get(name, default)
            def __contains__(self, name): read.add(name); return super().__contains__(name)
        os.environ = Watched(os.environ)
        watching = True
        import app.main
        watching = False
        os.environ = environment
        opened = [arguments[0] for event, arguments in seen if event == "open" and isinstance(arguments[0], str)]
        files = [file for file in opened if not file.endswith((".py", ".pyc", ".so"))]
        sockets = [e for e, _ in seen if e.startswith("socket.")]
        read.discard("PYDANTIC_DISABLE_PLUGINS")  # Pydantic looks for it when it makes a model
        print(read, files, sockets, set(os.listdir("/proc/self/fd")) - before)
    """
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(PROJECT),
        "PORT": "malformed",
        "DATABASE_URL": "malformed",
    }

    done = subprocess.run(
        [sys.executable, "-B", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )

    assert ("set() [] [] set()", "") == (done.stdout.strip(), done.stderr)
    assert [] == list(tmp_path.iterdir())


def test_the_application_is_built_from_what_it_is_given(environment):
    """Only a call without settings reads the environment, and a malformed one stops it there."""
    environment("PORT", "http")

    assert 1234 == create_app(load_from(environment, PORT="1234")).state.settings.port
    environment("PORT", "http")
    with pytest.raises(StartupError, match=r"^PORT"):
        create_app()


def load_from(environment, **variables):
    """The settings of an environment in which these are set."""
    for name, value in variables.items():
        environment(name, value)
    return load()
