"""The file with keys that workers share: what is written, and what is not trusted."""

import json
import os
import stat
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from app.auth import shared_keys
from app.auth.key_set import KeySet
from app.auth.shared_keys import MAX_FILE_BYTES, SharedKeys
from app.metrics import directory
from tests.issuer.tokens import make_key

ISSUER = "https://issuer.example.com"
FIRST = make_key("first", "EdDSA").jwk
SECOND = make_key("second", "ES256").jwk


def key_set(*keys: Any) -> KeySet:
    """These keys, as an issuer publishes them."""
    return KeySet.parse(json.dumps({"keys": keys}).encode())


def shared(folder: Path | None, *, issuer: str = ISSUER, jwks_url: str | None = None) -> SharedKeys:
    """The file in this folder, as a worker with these settings sees it."""
    return SharedKeys(folder, issuer=issuer, jwks_url=jwks_url)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """The file, with two keys."""
    shared(tmp_path).write(key_set(FIRST, SECOND))
    return tmp_path / directory.KEYS_FILE


def test_another_worker_reads_what_one_has_written(tmp_path, file):
    """The same keys, with the time of the fetch. Only this user may read the file, and no draft is left."""
    found = shared(tmp_path).read()

    assert found
    assert key_set(FIRST, SECOND).keys == found.keys.keys
    assert 0 <= found.age_seconds < 10
    assert abs(time.time() - found.fetched_at) < 10
    assert 0o600 == stat.S_IMODE(file.stat().st_mode)
    assert [file] == list(tmp_path.iterdir())


def test_without_a_folder_nothing_is_shared():
    """Neither read nor written."""
    shared(None).write(key_set(FIRST))
    assert shared(None).read() is None


def test_without_a_file_there_are_no_keys(tmp_path):
    """As in an instance that has never had any, and in a folder that is gone."""
    assert shared(tmp_path).read() is None
    assert shared(tmp_path / "gone").read() is None


def test_keys_of_other_settings_are_not_used(tmp_path, file):
    """Neither those of another issuer, nor those from another address."""
    assert shared(tmp_path, issuer="https://another.example.com").read() is None
    assert shared(tmp_path, jwks_url=f"{ISSUER}/keys").read() is None

    shared(tmp_path, jwks_url=f"{ISSUER}/keys").write(key_set(FIRST))
    assert shared(tmp_path).read() is None
    assert shared(tmp_path, jwks_url=f"{ISSUER}/keys").read()


def test_a_fetch_in_the_future_is_not_believed(tmp_path, file, monkeypatch):
    """The clock was set back, so how old the keys are is not known. The next fetch replaces them."""
    earlier = time.time() - 3600
    monkeypatch.setattr(shared_keys, "time", SimpleNamespace(time=lambda: earlier))
    assert shared(tmp_path).read() is None

    shared(tmp_path).write(key_set(FIRST, SECOND))
    assert shared(tmp_path).read()


def test_unchanged_keys_are_written_again_after_minutes(tmp_path, file, monkeypatch):
    """And other keys at once."""
    before = file.read_bytes()
    for seconds, keys, is_written in [
        (1, (FIRST, SECOND), False),
        (299, (SECOND, FIRST), False),
        (2, (FIRST,), True),
        (303, (FIRST,), True),
    ]:
        now = time.time() + seconds
        monkeypatch.setattr(shared_keys, "time", SimpleNamespace(time=lambda now=now: now))
        shared(tmp_path).write(key_set(*keys))
        assert is_written == (file.read_bytes() != before)
        before = file.read_bytes()


def changed(**members: Any) -> Callable[[Path], object]:
    """The file has other members."""
    return lambda file: file.write_text(json.dumps(json.loads(file.read_text()) | members))


def contains(content: bytes) -> Callable[[Path], object]:
    """The file has another content."""
    return lambda file: file.write_bytes(content)


def replaced(make: Callable[[Path], object]) -> Callable[[Path], object]:
    """Something else has the name of the file."""

    def replace(file: Path) -> None:
        make(file.rename(file.with_name("moved")))

    return replace


WRONG: dict[str, Callable[[Path], object]] = {
    "empty": contains(b""),
    "cut off": lambda file: file.write_bytes(file.read_bytes()[:-10]),
    "not JSON": contains(b"\x00\xff" * 100),
    "a list": contains(b"[]"),
    "deeply nested": contains(b"[" * 200_000),
    "too long": lambda file: file.write_bytes(file.read_bytes() + b" " * MAX_FILE_BYTES),
    "no keys": changed(keys=[]),
    "unusable keys": changed(keys=[{"kty": "oct", "k": "AAAA"}]),
    "65 keys": changed(keys=[FIRST] * 65),
    "a member twice": lambda file: file.write_text('{"issuer": "x", ' + file.read_text()[1:]),
    "no time": changed(fetched_at=None),
    "a time in words": changed(fetched_at="today"),
    "a time that is infinite": lambda file: file.write_text(
        file.read_text().replace('"fetched_at": ', '"fetched_at": 9e999')
    ),
    "a time that is too large": changed(fetched_at=10**400),
    "another issuer": changed(issuer="https://another.example.com"),
    "writable by the group": lambda file: file.chmod(0o620),
    "writable by others": lambda file: file.chmod(0o602),
    "a folder": replaced(lambda moved: moved.with_name(directory.KEYS_FILE).mkdir()),
    "a symbolic link": replaced(lambda moved: moved.with_name(directory.KEYS_FILE).symlink_to(moved)),
    "a named pipe": replaced(lambda moved: os.mkfifo(moved.with_name(directory.KEYS_FILE), 0o600)),
    "a symbolic link to a device": replaced(lambda moved: moved.with_name(directory.KEYS_FILE).symlink_to("/dev/zero")),
}


@pytest.mark.parametrize("damage", WRONG.values(), ids=WRONG)
def test_a_file_that_is_wrong_means_no_keys(tmp_path, file, damage):
    """It is never an exception, and no wait. Where the name can be used, the next fetch replaces it."""
    damage(file)
    assert shared(tmp_path).read() is None

    shared(tmp_path).write(key_set(FIRST))
    assert file.is_dir() or shared(tmp_path).read()


def test_a_file_of_another_user_means_no_keys(tmp_path, file, monkeypatch):
    """Whatever it contains."""
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    assert shared(tmp_path).read() is None


def test_a_full_file_system_leaves_the_file(tmp_path, file, monkeypatch):
    """The keys before stay, and no draft is left."""

    def fail(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", fail)
    shared(tmp_path).write(key_set(FIRST))

    found = shared(tmp_path).read()
    assert found
    assert ["first", "second"] == found.keys.key_ids
    assert [file] == list(tmp_path.iterdir())


def test_a_new_master_removes_the_file(tmp_path, file, monkeypatch):
    """And the draft of a worker that was killed. Keys live as long as the master."""
    monkeypatch.setenv(directory.VARIABLE, "unset")
    file.with_name(f"{file.name}.a_1b2c3d").touch()

    directory.prepare(str(tmp_path))

    assert [] == list(tmp_path.iterdir())
