"""The variables that Gunicorn reads by itself: empty is unset, malformed is one sentence."""

import os
import re
import shutil
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


GUNICORNS = [
    "-m gunicorn", "-u -m gunicorn", "-X utf8 -m gunicorn", "-Xutf8 -mgunicorn", "-um gunicorn",
    "-W error -Im gunicorn", "-Werror -bb -OO -m gunicorn.app.wsgiapp", "--check-hash-based-pycs always -m gunicorn",
    "/venv/bin/gunicorn", "-u /venv/bin/gunicorn", "-I -X dev gunicorn -c x",
]  # fmt: skip
"""The arguments of Python that run Gunicorn."""


@pytest.mark.parametrize("arguments", GUNICORNS)
def test_gunicorn_is_found_behind_any_options_of_python(arguments):
    """Options may stand together, and have a value of their own."""
    environment = {"WEB_CONCURRENCY": ""}

    check(["python", *arguments.split()], environment)

    assert {} == environment


@pytest.mark.parametrize(
    "arguments",
    ["-m pytest", "-m pytest gunicorn", "script.py gunicorn", "-c pass gunicorn", "-cpass -m gunicorn", "-", "", "-u",
     "-X gunicorn -m pytest", "-W gunicorn x.py", "-m", "- -m gunicorn", "-m uvicorn -m gunicorn", "--version"],
)  # fmt: skip
def test_other_programs_keep_their_environment(arguments):
    """A program other than Gunicorn starts with the variables as they are."""
    environment = {"WEB_CONCURRENCY": "", "FORWARDED_ALLOW_IPS": "proxy.example"}

    check(["python", *arguments.split()], environment)

    assert {"WEB_CONCURRENCY": "", "FORWARDED_ALLOW_IPS": "proxy.example"} == environment


@pytest.mark.parametrize(("name", "value"), [*MALFORMED, ("WEB_CONCURRENCY", "9" * 5_000)])
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


@pytest.mark.parametrize(
    ("written", "read"),
    [("10.0.0.0/8, ", "10.0.0.0/8,"), (" 10.0.0.1 , ,\t::1\n", "10.0.0.1,,::1"), ("10.0.0.0/8,::1", "10.0.0.0/8,::1")],
)
def test_blank_entries_of_a_list_are_passed_over(this_version, written, read):
    """As everywhere else in a list. Gunicorn would end with a sentence that names no variable."""
    environment = {"FORWARDED_ALLOW_IPS": written}
    check(["python", "/venv/bin/gunicorn"], environment)
    done = start(PYTHONPATH=this_version, FORWARDED_ALLOW_IPS=written)

    assert {"FORWARDED_ALLOW_IPS": read} == environment
    assert (0, "") == (done.returncode, done.stderr)


def test_make_and_the_image_install_the_check():
    """Both copy the module and the file that runs it."""
    for file in ("Makefile", "Dockerfile"):
        text = (ROOT / file).read_text()
        assert "app/settings/gunicorn_environment.py" in text
        assert "gunicorn_environment.pth" in text


@pytest.fixture
def this_version(tmp_path):
    """A PYTHONPATH on which this version of the check comes before the one that is installed."""
    shutil.copy(ROOT / "app" / "settings" / "gunicorn_environment.py", tmp_path)
    return str(tmp_path)


@pytest.mark.parametrize("options", ["-u", "-X utf8", "-OuW default"])
def test_a_start_with_options_of_python_is_checked(this_version, options):
    """An empty variable is unset, and a number of thousands of digits is refused, before Gunicorn reads them."""
    command = (sys.executable, *options.split(), "-m", "gunicorn")

    started = start(*command, PYTHONPATH=this_version, WEB_CONCURRENCY="")
    refused = start(*command, PYTHONPATH=this_version, WEB_CONCURRENCY="9" * 5_000)

    assert (0, "") == (started.returncode, started.stderr)
    assert (1, 1) == (refused.returncode, len(refused.stderr.splitlines()))
    assert refused.stderr.startswith("Error: WEB_CONCURRENCY must ")
