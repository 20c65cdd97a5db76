"""How settings are read."""

import pytest
from pydantic import ValidationError

from app.database_url import DatabaseUrl
from app.errors import StartupError
from app.settings import Settings

SECRET = "hunter2"
URL = f"postgresql://user:{SECRET}@host:5432/name"


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
    """A setting is read from the environment. The case of the variable does not matter."""
    environment(variable, text)

    assert value == getattr(Settings.load(), variable.lower())


@pytest.mark.parametrize("name", [name.upper() for name in Settings.model_fields])
def test_an_empty_variable_counts_as_not_set(environment, name):
    """A variable without a value, which compose files can produce, gives the default."""
    default = getattr(Settings.load(), name.lower())

    environment(name, "")

    assert default == getattr(Settings.load(), name.lower())


def test_all_malformed_values_are_reported_at_once(environment):
    """Two malformed values give two sentences in one message."""
    environment("PORT", "http")
    environment("LOG_LEVEL", "loud")

    with pytest.raises(StartupError, match=r"PORT must be .*\. LOG_LEVEL must be .*\."):
        Settings.load()


def test_secrets_are_not_shown(environment):
    """Neither printing the settings nor a failure to read them shows a password."""
    environment("DATABASE_URL", URL)
    environment("RATE_LIMIT_STORAGE_URI", f"redis://:{SECRET}@host")

    settings = Settings.load()

    assert SECRET == settings.read_database_url().password
    assert SECRET not in f"{settings!r}{settings}{settings.model_dump()}{settings.model_dump_json()}"


def test_settings_are_frozen(environment):
    """A field cannot be assigned."""
    with pytest.raises(ValidationError):
        Settings.load().port = 1  # type: ignore[misc]


def test_a_dot_env_file_sets_what_the_environment_does_not(environment, tmp_path):
    """`.env` in the working directory is read. The environment takes precedence, and unknown lines are ignored."""
    (tmp_path / ".env").write_text(f"DATABASE_URL={URL}\nPORT=9001\nLOG_LEVEL=debug\nOTHER=1\n")
    environment("PORT", "9002")

    settings = Settings.load()

    assert DatabaseUrl.parse(URL) == settings.database_url
    assert (9002, "debug") == (settings.port, settings.log_level)
