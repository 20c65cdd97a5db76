"""Which values are accepted, and which are refused."""

import errno
import io
import os
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
        "GRACEFUL_SECONDS", "MIGRATION_LOCK_SECONDS") for text in ("0", "0.0009", "-1", "soon", "nan", "inf", "99999")),
        *((name, text) for name in ("PORT", "OPS_PORT") for text in ("0", "65536", "http")),
        ("WORKER_TIMEOUT_SECONDS", "1"), ("MAX_REQUESTS", "-1"), ("MAX_REQUESTS_JITTER", "x"), ("LOG_LEVEL", "loud"),
        ("LOG_FORMAT", "xml"),
        ("DATABASE_POOLER", "pgpool"), ("RATE_LIMIT_ENABLED", "maybe"),
        *((name, text) for name in ("RATE_LIMIT_READ", "RATE_LIMIT_WRITE") for text in ("many", "10",
        "10/minute;20/second", "x/minute", "10/fortnight")),
        ("FORWARDED_ALLOW_IPS", "proxy.example"),
        *(("ROOT_PATH", text) for text in ("shop", "/", "/shop/", "//shop", "/a//b", "/a/../b", "/.", "/a b", "/%20",
        "/a?b", "/a#b", "https://shop.example/a", '/a"b')),
        *(("CORS_ALLOW_HEADERS", text) for text in ("x y", "x:y", "x-é", '"x"')),
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


@pytest.mark.parametrize(
    "variable", ["DATABASE_URL_FILE", "MIGRATION_DATABASE_URL_FILE", "OTEL_EXPORTER_OTLP_CERTIFICATE"]
)
@pytest.mark.parametrize("error", [errno.EACCES, errno.ENAMETOOLONG])
def test_a_file_that_cannot_be_looked_at_stops_the_start_with_a_sentence(environment, monkeypatch, variable, error):
    """Its folder is closed to this process, or its name is too long."""
    monkeypatch.setattr(os, "stat", refusing(os.stat, error))
    monkeypatch.setattr(io, "open", refusing(io.open, error))
    environment("OTEL_EXPORTER_OTLP_ENDPOINT", "https://collector:4318")
    environment(variable, UNSEEN)

    with pytest.raises(StartupError, match=rf"^{variable} (names a file that cannot be read|must name a file that)"):
        Settings.load()


@pytest.mark.parametrize("error", [errno.EACCES, errno.ENAMETOOLONG])
def test_what_cannot_be_looked_at_is_left_to_who_uses_it(environment, monkeypatch, error):
    """The metrics and the socket then say what the system says."""
    monkeypatch.setattr(os, "stat", refusing(os.stat, error))
    environment("METRICS_DIRECTORY", UNSEEN)
    environment("HOST", f"unix:{UNSEEN}")

    assert UNSEEN == Settings.load().metrics_directory


UNSEEN = "/tmp/unseen"


def refusing(function, error):
    """The function, which fails for the path `UNSEEN`."""

    def called(path, *arguments, **options):
        if os.fspath(path) == UNSEEN:
            raise OSError(error, os.strerror(error))
        return function(path, *arguments, **options)

    return called


@pytest.mark.parametrize(
    "limit", ["0/minute", "10/2 days", "1/month", "1000000001/minute", "-1/minute", "1/0minute", "1 per 0 hours"]
)
def test_a_limit_that_cannot_be_kept_is_refused(limit):
    """None at all would serve nobody, and a restart within a long period would begin to count from zero."""
    with pytest.raises(StartupError, match=r"^RATE_LIMIT_READ must be .* like 600/minute"):
        Settings.load(rate_limit_read=limit, _env_file=None)


@pytest.mark.parametrize("limit", ["1/day", "10 per 2 hours", "1/second", "1000000000/minute"])
def test_a_limit_is_in_the_notation_of_limits(limit):
    """A number of requests and a period of at most a day."""
    assert limit == Settings.load(rate_limit_read=limit, _env_file=None).rate_limit_read


@pytest.mark.parametrize(
    "uri",
    ["redis+sentinel://h/0", "redis+cluster://h", "unix:///run/redis.sock", "redis://", "redis://:6379",
     "redis://h:port", "redis://h/zero", "redis://h/0/1", f"redis://:{SECRET}#x@h", f"redis://:{SECRET}/x@h",
     f"redis://:{SECRET}@x@h", f"redis://:{SECRET}?x@h", "redis://h?db=0", "redis://h?decode_responses=true",
     "redis://h?socket_timeout=1", "rediss://h?timeout=1", "redis://h?ssl_ca_certs=/x", f"rediss://h?x={SECRET}",
     "rediss://h?ssl_ca_certs=/nowhere", "redis://h:0", "redis://[::1"],
)  # fmt: skip
def test_a_storage_uri_that_cannot_work_is_refused(uri):
    """The sentence says what to write, and shows no part of the URI."""
    with pytest.raises(StartupError, match=r"^RATE_LIMIT_STORAGE_URI must .*[^.]\.$") as refused:
        Settings.load(rate_limit_storage_uri=uri, _env_file=None)

    assert SECRET not in str(refused.value)


@pytest.mark.parametrize("uri", ["redis://h", "redis://user:p%40w@h:6379/15", "rediss://[::1]:6380", "redis://h/"])
def test_a_storage_uri_is_that_of_one_redis(uri):
    """With or without TLS, a password and the number of a database."""
    storage = Settings.load(rate_limit_storage_uri=uri, _env_file=None).rate_limit_storage_uri

    assert storage is not None
    assert uri == storage.get_secret_value()


def test_a_metrics_directory_is_a_folder(tmp_path):
    """One that is missing is made; a file is refused."""
    missing, file = tmp_path / "missing", tmp_path / "file"
    file.touch()

    assert str(missing) == Settings.load(metrics_directory=str(missing), _env_file=None).metrics_directory
    with pytest.raises(
        StartupError, match=r"^METRICS_DIRECTORY must name a folder, or a path where one can be made\.$"
    ):
        Settings.load(metrics_directory=str(file), _env_file=None)


@pytest.mark.parametrize("prefix", ["/shop", "/api/v1.2", "/~team_a/shop-1", "/..a/b"])
def test_a_root_path_is_a_path_without_a_slash_at_the_end(prefix):
    """One or more segments of letters, digits and - . _ ~ are accepted."""
    assert prefix == Settings.load(root_path=prefix, _env_file=None).root_path


def test_names_of_headers_are_compared_in_lower_case():
    """A name that is written twice stays once."""
    names = Settings.load(cors_allow_headers="X-Team, x-team,Content-Type", _env_file=None).cors_allow_headers

    assert ("x-team", "content-type") == names


LISTS = [name.upper() for name, field in Settings.model_fields.items() if field.annotation == tuple[str, ...]]


@pytest.mark.parametrize("name", LISTS)
@pytest.mark.parametrize("value", [",", " , ,", "[]", '["", " "]'])
def test_a_list_that_names_nothing_is_refused(environment, name, value):
    """It would allow nobody, or everybody. Only an empty value counts as not set."""
    environment(name, value)

    with pytest.raises(StartupError, match=rf"^{name} must name at least one value, or not be set\.$"):
        Settings.load()


def test_every_list_is_checked():
    """The lists are found by their type."""
    assert {"ALLOWED_HOSTS", "CORS_ALLOW_HEADERS", "CORS_ALLOW_ORIGINS", "FORWARDED_ALLOW_IPS"} <= set(LISTS)
