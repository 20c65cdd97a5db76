"""Generates clients from the OpenAPI document, checks their types, and uses them with a running server."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.request import urlopen

import pytest

from tests import programs
from tests.cluster import as_role, execute
from tests.paths import ROOT
from tests.processes.server import Server

FOLDER = ROOT / "tests/clients"
NODE = ("node", "npm")

pytestmark = pytest.mark.slow


@pytest.fixture
def server(database_url) -> Iterator[Server]:
    """A server with an empty database."""
    with Server(environment={"DATABASE_URL": database_url, "WEB_CONCURRENCY": "1"}) as server:
        yield server.serving()


def run(command: Sequence[str | Path], folder: Path, **environment: str) -> None:
    """Run a command, which must succeed."""
    ended = subprocess.run(
        command, cwd=folder, env={**os.environ, **environment}, capture_output=True, text=True, timeout=300, check=False
    )
    assert 0 == ended.returncode, f"{' '.join(map(str, command))}\n{ended.stdout}\n{ended.stderr}"


def save_document(server: Server, folder: Path) -> Path:
    """Save the server's OpenAPI document."""
    path = folder / "openapi.json"
    with urlopen(f"http://127.0.0.1:{server.port}/openapi.json", timeout=10) as response:
        path.write_bytes(response.read())
    return path


def test_a_generated_python_client_works(server, database_url, tmp_path):
    """A client of openapi-python-client is typed, and has the greatest ids and prices exactly."""
    execute(as_role(database_url, "items_owner"), f"SELECT setval(pg_get_serial_sequence('items', 'id'), {2**63 - 4})")
    document = save_document(server, tmp_path)
    script = shutil.copy(FOLDER / "python/use_item_client.py", tmp_path)
    binaries = Path(sys.executable).parent
    configuration = FOLDER / "python/generator.yaml"
    generate = ["generate", "--path", document, "--meta", "none", "--output-path", tmp_path / "client"]

    run(
        [binaries / "openapi-python-client", *generate, "--config", configuration, "--fail-on-warning"],
        tmp_path,
        PATH=f"{binaries}:{os.environ['PATH']}",
    )
    # Not client.py, which is the same for every document and passes on arguments that mypy does not know.
    typed = [script, "client/api", "client/models"]
    run([binaries / "mypy", "--strict", "--follow-imports=silent", "--config-file=", *typed], tmp_path)
    run([sys.executable, script, f"http://127.0.0.1:{server.port}"], tmp_path)


@pytest.mark.needs(*NODE)
def test_a_generated_typescript_client_works(server, database_url, tmp_path):
    """The document has no error for a linter, and a client of openapi-typescript is typed and works."""
    execute(as_role(database_url, "items_owner"), f"SELECT setval(pg_get_serial_sequence('items', 'id'), {2**53 - 4})")
    folder = shutil.copytree(FOLDER / "typescript", tmp_path / "client")
    document = save_document(server, folder)
    tools = folder / "node_modules/.bin"

    run([programs.find("npm"), "ci"], folder)
    run([tools / "spectral", "lint", document, "--ruleset", "spectral.yaml", "--fail-severity", "warn"], folder)
    run([tools / "openapi-typescript", document, "--output", "api.d.ts"], folder)
    run([tools / "tsc"], folder)
    run([programs.find("node"), "use_item_client.js", f"http://127.0.0.1:{server.port}"], folder)
