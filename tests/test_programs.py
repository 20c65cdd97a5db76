import os
import subprocess
import sys

import pytest

from tests import programs
from tests.paths import ROOT


def run_without_programs(**environment: str) -> tuple[int, list[str]]:
    """Run tests that need Redis where the PATH leads to no program; return the exit code and the lines printed."""
    kept = {name: value for name, value in os.environ.items() if name != "CI"}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "tests/rate_limits/test_redis_counters.py"],
        cwd=ROOT, env=kept | {"PATH": "/nonexistent"} | environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout.splitlines()


def test_a_test_without_its_program_is_skipped_and_named_last():
    """The last lines before pytest's own say how many tests were not run, what they need and how to get it."""
    code, lines = run_without_programs()

    assert code == 0
    assert "tests need redis-server: apt-get install redis-server" in lines[-2]
    assert "skipped" in lines[-1]


def test_in_continuous_integration_a_missing_program_is_a_failure():
    """With CI=true nothing is skipped."""
    code, lines = run_without_programs(CI="true")

    assert code == 1
    assert "redis-server: apt-get install redis-server" in lines
    assert "skipped" not in lines[-1]


@pytest.mark.needs("tar")
def test_a_program_is_found_only_by_a_test_that_names_it():
    """A test that forgets its marker fails on every machine, not only where the program is missing."""
    assert programs.find("tar")
    with pytest.raises(AssertionError, match=r'Mark this test with @pytest\.mark\.needs\("curl"\)'):
        programs.find("curl")
