"""`python -m app.settings`, and how the image calls it before Gunicorn."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.paths import ROOT

COMMAND = json.loads(re.findall(r"^CMD (\[.*\])$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)[-1])


def start(**variables: str) -> subprocess.CompletedProcess[str]:
    """Run the command of the image up to Gunicorn, which only checks its configuration."""
    environment = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "DATABASE_URL": "postgresql://nobody@127.0.0.1:1/nothing",
        **variables,
    }
    *arguments, script = COMMAND
    return subprocess.run(
        [*arguments, f"{script} --check-config"], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    "variables",
    [{}, {"WEB_CONCURRENCY": ""}, {"WEB_CONCURRENCY": "2"}, {"FORWARDED_ALLOW_IPS": ""}, {"PORT": ""}, {"HOST": ""},
     {"FORWARDED_ALLOW_IPS": "10.0.0.0/8, ::1"}, {"FORWARDED_ALLOW_IPS": "*"}],
)  # fmt: skip
def test_an_empty_variable_counts_as_not_set(variables):
    """Also one that Gunicorn reads when it is imported."""
    done = start(**variables)

    assert (0, "") == (done.returncode, done.stderr)


@pytest.mark.parametrize(
    ("name", "value"),
    [("WEB_CONCURRENCY", "auto"), ("WEB_CONCURRENCY", "0"), ("WEB_CONCURRENCY", "1.5"), ("WEB_CONCURRENCY", "2.0"),
     ("FORWARDED_ALLOW_IPS", "proxy.example"), ("FORWARDED_ALLOW_IPS", "10.1.2.3/8"), ("FORWARDED_ALLOW_IPS", "unix"),
     ("PORT", "http"), ("DATABASE_URL", "mysql://u:hunter2@h/d")],
)  # fmt: skip
def test_a_malformed_variable_ends_the_start_with_one_sentence(name, value):
    """It names the variable, where Gunicorn would show a traceback or leave the name out."""
    done = start(**{name: value})

    assert 1 == done.returncode
    assert re.fullmatch(rf"Error: {name} must .*[^.]\.\n", done.stderr)
    assert "hunter2" not in done.stderr
