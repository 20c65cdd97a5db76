"""The worker class, in a server that does not read gunicorn.conf.py."""

import os
import subprocess
import sys

from tests.paths import ROOT


def test_another_configuration_file_is_refused(tmp_path):
    """Without the hooks of gunicorn.conf.py the worker has no limits. The server ends with a sentence."""
    other = tmp_path / "other.py"
    other.write_text("bind = '127.0.0.1:0'\n")

    ended = subprocess.run(
        [sys.executable, "-m", "gunicorn", "-c", other, "-k", "app.worker.Worker", "app.main:create_app()"],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "DATABASE_URL": "postgresql://nobody@127.0.0.1:1/nothing"},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip

    assert 0 != ended.returncode
    assert "start gunicorn in the folder of that file, without --config." in ended.stderr
    assert "Traceback" not in ended.stderr
