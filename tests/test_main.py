import os
import subprocess
import sys

import pytest

from app import logs
from app.errors import StartupError
from app.main import create_app
from app.settings import Settings
from tests.paths import ROOT


def test_importing_reads_and_opens_nothing(tmp_path):
    """Importing the application reads no environment variable and opens no file or connection."""
    script = """if True:
        import sys, os
        seen = []
        sys.addaudithook(lambda event, arguments: seen.append((event, arguments)) if watching else None)
        watching = False
        import alembic, asyncio, asyncpg, fastapi, fastapi_swagger, gunicorn, hiredis, limits, lmdb
        import logging.config, orjson, prometheus_client
        import pydantic_settings, redis.asyncio, slowapi, sqlalchemy.ext.asyncio, structlog, uvicorn
        before = set(os.listdir("/proc/self/fd"))
        environment = os.environ
        read = set()
        class Watched(dict):
            def __getitem__(self, name): read.add(name); return super().__getitem__(name)
            def get(self, name, default=None): read.add(name); return super().get(name, default)
            def __contains__(self, name): read.add(name); return super().__contains__(name)
        os.environ = Watched(os.environ)
        watching = True
        import app.main
        watching = False
        os.environ = environment
        opened = [arguments[0] for event, arguments in seen if event == "open" and isinstance(arguments[0], str)]
        files = [file for file in opened if not file.endswith((".py", ".pyc", ".so"))]
        sockets = [e for e, _ in seen if e.startswith("socket.")]
        read.discard("PYDANTIC_DISABLE_PLUGINS")  # Pydantic looks for it when it makes a model
        print(read, files, sockets, set(os.listdir("/proc/self/fd")) - before)
    """
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT),
        "PORT": "malformed",
        "DATABASE_URL": "malformed",
    }

    done = subprocess.run(
        [sys.executable, "-B", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )

    assert ("set() [] [] set()", "") == (done.stdout.strip(), done.stderr)
    assert [] == list(tmp_path.iterdir())


def test_the_application_uses_the_settings_it_is_given(monkeypatch):
    """`create_app` reads the environment only if it is called without settings, and then refuses malformed ones."""
    monkeypatch.setenv("PORT", "1234")
    settings = Settings.load(_env_file=None)
    monkeypatch.setenv("PORT", "http")

    assert 1234 == create_app(settings).state.settings.port
    with pytest.raises(StartupError, match=r"^PORT"):
        create_app()


async def test_a_worker_that_counts_alone_says_so(lines, monkeypatch):
    """Another server than the service's Gunicorn has started it, so limits and metrics are not those of an instance."""
    app = create_app(Settings.load(database_url="postgresql://a@127.0.0.1:1/c", _env_file=None))
    monkeypatch.setattr(logs, "configure", lambda *_: None)  # lines stay where the fixture reads them

    async with app.router.lifespan_context(app):
        pass

    assert 1 == len([line for line in lines() if line["event"] == "worker_counts_alone"])
