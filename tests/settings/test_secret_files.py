"""Secrets that are read from files."""

import os

import pytest

from app.database_url import DatabaseUrl
from app.errors import StartupError
from app.settings import Settings

URL = "postgresql://user:hunter2@host:5432/name"


def test_a_secret_can_be_in_a_file(environment, tmp_path):
    """The value is the content of the file, without leading and trailing white space."""
    database, storage = tmp_path / "database", tmp_path / "storage"
    database.write_text(f"{URL}\n")
    storage.write_text("redis://:hunter2@host:6379/0\n")
    environment("DATABASE_URL_FILE", str(database))
    environment("RATE_LIMIT_STORAGE_URI_FILE", str(storage))

    settings = Settings.load()

    assert DatabaseUrl.parse(URL) == settings.read_database_url()
    assert settings.rate_limit_storage_uri
    assert "redis://:hunter2@host:6379/0" == settings.rate_limit_storage_uri.get_secret_value()
    assert "hunter2" not in repr(settings)


@pytest.mark.parametrize(
    ("name", "value"), [("DATABASE_URL", URL), ("RATE_LIMIT_STORAGE_URI", "redis://:hunter2@host:6379/0")]
)
def test_a_value_together_with_a_file_is_refused(environment, tmp_path, name, value):
    """The sentence names both settings, because only the operator knows which one is meant."""
    file = tmp_path / "secret"
    file.write_text(value)
    environment(name, value)
    environment(f"{name}_FILE", str(file))

    with pytest.raises(StartupError, match=f"^{name} and {name}_FILE must not both be set\\.$"):
        Settings.load()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "that cannot be read: No such file or directory"),
        (b"\xff\xfe", "that cannot be read: it is not UTF-8 text"),
        (b"x" * 65_537, "of more than 65536 characters, which is no secret"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused(environment, tmp_path, content, reason):
    """The sentence names the variable and the reason."""
    file = tmp_path / "secret"
    if content is not None:
        file.write_bytes(content)
    environment("DATABASE_URL_FILE", str(file))

    with pytest.raises(StartupError, match=f"^DATABASE_URL_FILE names a file {reason}\\.$"):
        Settings.load()


def test_a_pipe_is_refused(environment, tmp_path):
    """The master and each worker read the file, and reading a pipe waits for its writer."""
    file = tmp_path / "secret"
    os.mkfifo(file)
    environment("DATABASE_URL_FILE", str(file))

    with pytest.raises(
        StartupError, match=r"^DATABASE_URL_FILE must name a regular file, and not a pipe or a device\.$"
    ):
        Settings.load()


@pytest.mark.parametrize("content", ["", "\n", "mysql://user:hunter2@host/name"])
def test_the_content_of_a_file_is_checked(environment, tmp_path, content):
    """A malformed value in a file is refused like one in the variable, and is not repeated."""
    file = tmp_path / "secret"
    file.write_text(content)
    environment("DATABASE_URL_FILE", str(file))

    with pytest.raises(StartupError, match=r"^DATABASE_URL must be a URL") as refused:
        Settings.load()

    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize("setting", ["database_url", "database_replica_url", "migration_database_url"])
def test_a_rotated_secret_is_read_again(environment, tmp_path, setting):
    """The URL is that of the file as it is now. A file that is no longer right is refused in one sentence."""
    file = tmp_path / "database"
    file.write_text(URL)
    environment(f"{setting.upper()}_FILE", str(file))
    settings = Settings.load()
    read = getattr(settings, f"read_{setting}")

    file.write_text(URL.replace("hunter2", "swordfish"))
    assert "swordfish" == read().password

    file.write_text("swordfish")
    with pytest.raises(StartupError, match=rf"^{setting.upper()} must be a URL like [^\n]*name\.$"):
        read()

    file.unlink()
    with pytest.raises(StartupError, match=rf"^{setting.upper()}_FILE names a file that cannot be read: No such "):
        read()
