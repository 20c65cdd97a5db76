"""Access tokens of a certified OpenID Connect provider are accepted by a running server."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest

from tests import programs
from tests.paths import ROOT
from tests.processes.server import Server, eventually

FOLDER = ROOT / "tests/clients/provider"
AUDIENCE = "https://items.example.com"
ALGORITHMS = ("RS256", "ES256", "EdDSA")

pytestmark = [pytest.mark.slow, pytest.mark.needs("node", "npm")]


@contextmanager
def provider(folder) -> Iterator[str]:
    """The address of a provider with a client for each algorithm."""
    shutil.copytree(FOLDER, folder, dirs_exist_ok=True)
    subprocess.run([programs.find("npm"), "ci"], cwd=folder, capture_output=True, timeout=300, check=True)
    command = [programs.find("node"), "provider.js", AUDIENCE, "items:read items:write"]
    with (folder / "errors").open("wb") as errors:
        process = subprocess.Popen(
            command, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True
        )
    # The end of its standard input ends the provider.
    with process:
        assert process.stdout
        address = process.stdout.readline().strip()
        assert address, (folder / "errors").read_text()
        yield address


def token(issuer: str, client: str, scope: str, resource: str = AUDIENCE) -> dict[str, str]:
    """The headers with an access token that the client gets for itself."""
    document = httpx.get(f"{issuer}/.well-known/openid-configuration").json()
    answer = httpx.post(
        document["token_endpoint"],
        auth=(client, "secret"),
        data={"grant_type": "client_credentials", "scope": scope, "resource": resource},
    )
    return {"Authorization": f"Bearer {answer.raise_for_status().json()['access_token']}"}


def test_tokens_of_a_certified_provider_are_accepted(database_url, tmp_path):
    """A client of each algorithm writes and reads with its own scopes, and with no more than them."""
    with provider(tmp_path / "provider") as issuer:
        environment = {
            "DATABASE_URL": database_url, "WEB_CONCURRENCY": "2", "AUTH_ISSUER": issuer, "AUTH_AUDIENCE": AUDIENCE,
        }  # fmt: skip
        with Server(environment=environment) as server, httpx.Client(base_url=f"http://127.0.0.1:{server.port}") as api:
            server.serving(workers=2)
            # Each worker fetches the keys by itself.
            eventually(lambda: api.get("/health/ready").status_code == 200, seconds=30, what="ready")
            for algorithm in ALGORITHMS:
                reader = token(issuer, f"client-{algorithm}", "items:read")
                writer = token(issuer, f"client-{algorithm}", "items:read items:write")
                created = api.post("/items", json={"name": algorithm}, headers=writer)
                refused = api.post("/items", json={"name": algorithm}, headers=reader)
                read = api.get(created.headers["Location"], headers=reader)

                assert 201 == created.status_code
                assert (200, algorithm) == (read.status_code, read.json()["name"])
                assert (403, "insufficient_scope") == (refused.status_code, refused.json()["code"])
                assert 'scope="items:write"' in refused.headers["WWW-Authenticate"]

            another = token(issuer, "client-RS256", "items:read", resource="https://another.example.com")
            refused = api.get("/items", headers=another)
            assert (401, "invalid_token") == (refused.status_code, refused.json()["code"])
            assert 401 == api.get("/items").status_code
            assert len(ALGORITHMS) == len(api.get("/items", headers=reader).json()["items"])
