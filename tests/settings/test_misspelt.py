"""Variables whose names are almost those of settings."""

import json
import subprocess
import sys

import pytest

from app.settings.misspelt import misspelt_variables
from tests.migrations.alembic import events, succeed
from tests.paths import ROOT


@pytest.mark.parametrize(
    ("name", "setting"),
    [("DATABSE_URL", "DATABASE_URL"), ("DATABASE_URI", "DATABASE_URL"), ("RATE_LIMITS_READ", "RATE_LIMIT_READ"),
     ("cors_allowed_origins", "CORS_ALLOW_ORIGINS"), ("ALLOWED_HOST", "ALLOWED_HOSTS")],
)  # fmt: skip
def test_a_misspelt_variable_is_found(environment, tmp_path, name, setting):
    """In the environment as in `.env`."""
    environment(name, "x")
    assert (name, setting) in misspelt_variables()

    file = tmp_path / "settings"
    file.write_text(f"LOG_LEVEL=info\n{name}=x\n")
    assert (name, setting) in misspelt_variables(file)


@pytest.mark.parametrize(
    "name", ["DATABASE_URL", "database_url", "PORTS", "HOSTNAME", "POSTGRES_URL", "PGHOST", "OTHER_API_PORT", "METRICS"]
)
def test_other_variables_are_left_alone(environment, name):
    """Settings themselves, and variables of other programs."""
    environment(name, "x")

    assert name not in dict(misspelt_variables())


def test_a_start_warns_of_a_misspelt_variable():
    """The start goes on, because the variable may be another program's. The value is not shown."""
    done = subprocess.run(
        [sys.executable, "-m", "gunicorn", "--check-config"], cwd=ROOT, capture_output=True, text=True, check=True,
        env={"DATABASE_URL": "postgresql://nobody@127.0.0.1:1/nothing", "DATABASE_URI": "postgresql://u:hunter2@h/d"},
    )  # fmt: skip
    (line,) = [json.loads(line) for line in done.stdout.splitlines() if "setting_unknown" in line]

    assert ("warning", "DATABASE_URI", "DATABASE_URL") == (line["level"], line["name"], line["similar"])
    assert "hunter2" not in done.stdout + done.stderr


def test_alembic_warns_of_a_misspelt_variable():
    """Also a command without a database does, on standard error."""
    done = succeed(None, "upgrade", "head", "--sql", databse_url="postgresql://u:hunter2@h/d")
    (line,) = [line for line in events(done.stderr) if line["event"] == "setting_unknown"]

    assert ("warning", "DATABSE_URL", "DATABASE_URL") == (line["level"], line["name"], line["similar"])
    assert "hunter2" not in done.stdout + done.stderr
