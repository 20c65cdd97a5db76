"""How settings are read."""

import re
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from app.database_url import DatabaseUrl
from app.errors import StartupError
from app.settings import Settings
from app.settings.environment import is_whole_number

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


@pytest.mark.parametrize("text", ["1_5", "1,5", "+5", "\u0661", "1 5", "0x1", "1e", ".", "1.5s", "inf", "nan"])
def test_what_is_no_number_is_refused(environment, text):
    """Python reads `1_5` as 15, where a person may have meant 1.5."""
    environment("DATABASE_WAIT_SECONDS", text)

    with pytest.raises(StartupError, match=r"^DATABASE_WAIT_SECONDS must be a number\.$"):
        Settings.load()


@pytest.mark.parametrize(("text", "number"), [("2", 2), ("0.5", 0.5), (".5", 0.5), ("2.", 2), ("5e-1", 0.5)])
def test_a_number_may_have_a_fraction_and_an_exponent(environment, text, number):
    """As in most other programs."""
    environment("DATABASE_WAIT_SECONDS", text)

    assert number == Settings.load().database_wait_seconds


@pytest.mark.parametrize("names", [("PORT", "port"), ("Port", "PORT")])
def test_two_spellings_of_a_setting_are_refused(environment, names):
    """The one that comes last in the environment would count. The same value twice, or an empty one, does no harm."""
    for name, text in zip(names, ("8001", "8002"), strict=True):
        environment(name, text)
    with pytest.raises(StartupError, match=f"^{names[0]} and {names[1]} are the same setting, and have different val"):
        Settings.load()

    for text in ("8001", ""):
        environment(names[1], text)
        assert 8001 == Settings.load().port


def test_two_spellings_in_a_dotenv_file_are_refused(environment, tmp_path):
    """As in the environment. The environment still takes precedence over the file."""
    (tmp_path / ".env").write_text("PORT=8001\nport=8002\n")
    with pytest.raises(StartupError, match=r"^PORT and port are the same setting, and have different values: remove"):
        Settings.load()

    (tmp_path / ".env").write_text("port=8002\n")
    environment("PORT", "8001")
    assert 8001 == Settings.load().port


@pytest.mark.parametrize("name", [name.upper() for name in Settings.model_fields])
def test_an_empty_variable_counts_as_not_set(environment, name):
    """A variable without a value, which compose files can produce, gives the default."""
    default = getattr(Settings.load(), name.lower())

    for empty in ("", " ", "\t\n"):
        environment(name, empty)
        assert default == getattr(Settings.load(), name.lower())


def test_all_malformed_values_are_reported_at_once(environment):
    """Two malformed values give two sentences in one message."""
    environment("PORT", "http")
    environment("LOG_LEVEL", "loud")

    with pytest.raises(StartupError, match=r"PORT must be .*\. LOG_LEVEL must be .*\."):
        Settings.load()


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("RATE_LIMIT_ENABLED", "maybe", "RATE_LIMIT_ENABLED must be true or false."),
        ("MAX_BODY_BYTES", "64k", "MAX_BODY_BYTES must be a whole number."),
        ("MAX_BODY_BYTES", "9" * 5_000, "MAX_BODY_BYTES must be a smaller whole number."),
        ("GRACEFUL_SECONDS", "25s", "GRACEFUL_SECONDS must be a number."),
        ("BUILD_VERSION", "1" * 129, "BUILD_VERSION must have at most 128 characters."),
        ("LOG_LEVEL", "trace", "LOG_LEVEL must be 'debug', 'info', 'warning' or 'error'."),
    ],
)
def test_a_refusal_says_what_to_write(environment, name, value, sentence):
    """The sentence does not say how the value was parsed."""
    environment(name, value)

    with pytest.raises(StartupError) as raised:
        Settings.load()

    assert sentence == str(raised.value)


NUMBERS = [name.upper() for name, field in Settings.model_fields.items() if is_whole_number(field.annotation)]


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("value", ["8000.0", "8_000", "8 000", "+8000", "8e3", "0x1f40", "\uff18", "eight"])
def test_a_whole_number_has_digits_only(environment, name, value):
    """Another reader of the variable, such as the health check of the image, would refuse what Pydantic takes."""
    environment(name, value)

    with pytest.raises(StartupError, match=rf"^{name} must be a whole number\.$"):
        Settings.load()


def test_every_whole_number_is_checked():
    """They are found by their type, also those that may be left out."""
    assert {"PORT", "OPS_PORT", "WEB_CONCURRENCY", "MAX_REQUESTS", "OTEL_BSP_MAX_QUEUE_SIZE"} <= set(NUMBERS)


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


def test_white_space_around_a_value_is_removed(environment):
    """A line break at the end, which files and shells leave behind, makes no difference."""
    environment("RATE_LIMIT_READ", " 20/second\n")

    assert "20/second" == Settings.load().rate_limit_read


@pytest.mark.parametrize("value", [f'"{URL}"', f"'{URL}'"])
def test_a_value_in_quotes_is_refused(environment, value):
    """Docker's `--env-file` keeps the quotes that a shell would remove."""
    environment("DATABASE_URL", value)

    with pytest.raises(StartupError, match=r"^DATABASE_URL must be written without the quotes around it\.$"):
        Settings.load()


@pytest.mark.parametrize("value", ["1.0\n2", "1.0\x1b[31m", "1.0\udcff"])
def test_a_value_that_is_no_line_of_text_is_refused(environment, value):
    """Bytes that are not UTF-8 would fail later, in a metric or a log line."""
    environment("BUILD_VERSION", value)

    with pytest.raises(StartupError, match=r"^BUILD_VERSION must be one line of text in UTF-8"):
        Settings.load()


def test_a_dot_env_file_can_begin_with_a_byte_order_mark(environment, tmp_path):
    """Editors of Windows write one."""
    (tmp_path / ".env").write_text("PORT=9001\r\nLOG_LEVEL=debug\r\n", encoding="utf-8-sig")

    assert (9001, "debug") == (Settings.load().port, Settings.load().log_level)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "latin-1"])
def test_a_dot_env_file_in_another_encoding_is_refused(environment, tmp_path, encoding):
    """It would be read as settings that nobody knows, or end in a traceback."""
    (tmp_path / ".env").write_bytes("BUILD_VERSION=\xe9t\xe9\nPORT=9001\n".encode(encoding))

    with pytest.raises(StartupError, match=r"^\.env must be text in UTF-8: save it in that encoding\.$"):
        Settings.load()


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("PORT=9001\nthis is no line\n", 2), (f'DATABASE_URL="postgresql://u:{SECRET}@h/n\nPORT=9001\n', 1),
        (f"# a comment\n\nDATABASE_URL = '{SECRET}", 3), (f"DATABASE_URL: {SECRET}\n", 1),
    ],
)  # fmt: skip
def test_a_line_of_a_dot_env_file_that_cannot_be_read_is_refused(environment, tmp_path, text, number):
    """Without the line its setting would have its default, such as a private database."""
    (tmp_path / ".env").write_text(text)

    with pytest.raises(StartupError, match=rf"^Line {number} of \.env must be like NAME=value, .*\.$") as refused:
        Settings.load()

    assert SECRET not in str(refused.value)


@pytest.mark.parametrize("kind", ["folder", "broken link"])
def test_a_dot_env_file_that_cannot_be_read_is_refused(environment, tmp_path, kind):
    """Docker makes a folder of a file that it should mount and does not find."""
    if kind == "folder":
        (tmp_path / ".env").mkdir()
    else:
        (tmp_path / ".env").symlink_to("missing")

    with pytest.raises(StartupError, match=r"^\.env cannot be read: .*\. Correct that, or remove it\.$"):
        Settings.load()


def test_a_dot_env_file_without_permission_is_refused(environment, tmp_path, monkeypatch):
    """Another user's file that this process may not read is not passed over."""

    def refuse(*_: object, **__: object) -> str:
        raise PermissionError(13, "Permission denied")

    (tmp_path / ".env").write_text("PORT=9001\n")
    monkeypatch.setattr(Path, "read_text", refuse)

    with pytest.raises(StartupError, match=r"^\.env cannot be read: Permission denied\. Correct that, or remove it\.$"):
        Settings.load()


PIECES = [*'01-/:,[]{}"a.@* é', "unix:", "redis://", "postgresql://", "https://", "10/", "minute", "h"]
"""Parts of values that come close to what a setting accepts."""


@given(
    st.sampled_from([name.upper() for name in Settings.model_fields]),
    st.text(st.characters(exclude_characters="\0"), max_size=9) | st.lists(st.sampled_from(PIECES)).map("".join),
)
def test_any_value_is_accepted_or_refused_in_one_sentence(name, value):
    """The sentence begins with the variable. No value ends in another exception."""
    with pytest.MonkeyPatch.context() as patch:
        for other in Settings.model_fields:
            patch.delenv(other.upper(), raising=False)
        with suppress(ValueError, UnicodeError):  # what no environment can contain
            patch.setenv(name, value)
        try:
            Settings.load(_env_file=None)
        except StartupError as error:
            sentence = str(error)
        else:
            return

    assert re.fullmatch(rf"{name}(_FILE)? .*[^.]\.", sentence)
