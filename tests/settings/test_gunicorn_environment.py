"""The variables that Gunicorn reads by itself: empty is unset, malformed is one sentence."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from app.settings.gunicorn_environment import check
from tests.paths import ROOT

GUNICORN = Path(sys.executable).parent / "gunicorn"

MALFORMED = [
    ("WEB_CONCURRENCY", "auto"),
    ("WEB_CONCURRENCY", "1.5"),
    ("WEB_CONCURRENCY", "2.0"),
    ("WEB_CONCURRENCY", "-1"),
    ("FORWARDED_ALLOW_IPS", "proxy.example"),
    ("FORWARDED_ALLOW_IPS", "10.1.2.3/8"),
    ("FORWARDED_ALLOW_IPS", "unix"),
]


def start(*command: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run Gunicorn as it is installed, with `--check-config`."""
    environment = {"PATH": os.environ["PATH"], "DATABASE_URL": "postgresql://nobody@127.0.0.1:1/nothing", **variables}
    return subprocess.run(
        [*(command or [GUNICORN]), "--check-config"],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.parametrize(
    "variables",
    [{}, {"WEB_CONCURRENCY": ""}, {"WEB_CONCURRENCY": " "}, {"WEB_CONCURRENCY": "2"}, {"FORWARDED_ALLOW_IPS": ""},
     {"PORT": ""}, {"HOST": ""}, {"FORWARDED_ALLOW_IPS": "10.0.0.0/8, ::1"}, {"FORWARDED_ALLOW_IPS": "*"}],
)  # fmt: skip
def test_an_empty_variable_counts_as_not_set(variables):
    """Gunicorn starts, also when the variable is one that it reads when it is imported."""
    done = start(**variables)

    assert (0, "") == (done.returncode, done.stderr)


@pytest.mark.parametrize(
    ("name", "value"), [*MALFORMED, ("WEB_CONCURRENCY", "0"), ("PORT", "http"), ("DATABASE_URL", "mysql://u:hunter2@h")]
)
def test_a_malformed_variable_ends_the_start_with_one_sentence(name, value):
    """The sentence names the variable, where Gunicorn would show a traceback or leave the name out."""
    done = start(**{name: value})

    assert 1 == done.returncode
    assert re.fullmatch(rf"Error: {name} must .*[^.]\.\n", done.stderr)
    assert "hunter2" not in done.stderr


def test_gunicorn_as_a_module_is_checked_too():
    """`python -m gunicorn` is the same program."""
    done = start(sys.executable, "-m", "gunicorn", WEB_CONCURRENCY="auto")

    assert 1 == done.returncode
    assert done.stderr.startswith("Error: WEB_CONCURRENCY must ")


def test_other_programs_keep_their_environment():
    """A program other than Gunicorn starts with the variables as they are."""
    environment = {"WEB_CONCURRENCY": "", "FORWARDED_ALLOW_IPS": "proxy.example"}

    check(["python", "-m", "pytest"], environment)

    assert {"WEB_CONCURRENCY": "", "FORWARDED_ALLOW_IPS": "proxy.example"} == environment


@pytest.mark.parametrize(("name", "value"), MALFORMED)
def test_a_malformed_variable_ends_the_process(monkeypatch, capfd, name, value):
    """The exit code is 1, and the sentence goes to standard error."""
    codes: list[int] = []
    monkeypatch.setattr(os, "_exit", codes.append)

    check(["python", "/venv/bin/gunicorn"], {name: value})

    assert [1] == codes
    assert capfd.readouterr().err.startswith(f"Error: {name} must ")


def test_only_empty_variables_are_removed(monkeypatch):
    """A good value stays, and an empty one is gone before Gunicorn reads it."""
    environment = {"WEB_CONCURRENCY": " ", "FORWARDED_ALLOW_IPS": "10.0.0.0/8"}

    check(["python", "/venv/bin/gunicorn"], environment)

    assert {"FORWARDED_ALLOW_IPS": "10.0.0.0/8"} == environment


def test_make_and_the_image_install_the_check():
    """Both copy the module and the file that runs it."""
    for file in ("Makefile", "Dockerfile"):
        text = (ROOT / file).read_text()
        assert "app/settings/gunicorn_environment.py" in text
        assert "gunicorn_environment.pth" in text
