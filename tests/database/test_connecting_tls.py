"""Connecting to a server that has TLS, and that is of one kind or another."""

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from app.database.connecting import HostOrder, connect
from app.database_url import DatabaseUrl
from app.embedded_postgres.programs import account
from tests.cluster import execute, throw_away_cluster
from tests.database.test_connecting import encrypted
from tests.programs import find

pytestmark = pytest.mark.needs("openssl", "postgresql")  # the server that comes as a Python package may lack TLS

RULES = """
hostssl all encrypted all trust
hostnossl all encrypted all reject
hostssl all unencrypted all reject
hostnossl all unencrypted all trust
hostssl all authenticated all scram-sha-256
hostnossl all authenticated all trust
"""


def free_port() -> int:
    """A port of loopback that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def write_certificate(folder: Path) -> None:
    """Write a certificate of `localhost`, signed by itself, and its key, to where PostgreSQL looks for them."""
    files = [folder / "server.key", folder / "server.crt"]
    subprocess.run(
        [find("openssl"), "req", "-new", "-x509", "-days", "2", "-nodes", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=DNS:localhost", "-keyout", files[0], "-out", files[1]],
        check=True, capture_output=True,
    )  # fmt: skip
    for file in files:
        file.chmod(0o600)
        if user := account():
            os.chown(file, user.pw_uid, user.pw_gid)


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[dict[str, str]]:
    """A PostgreSQL with TLS: its address by TCP, and its root certificate."""
    port = free_port()
    with throw_away_cluster({"listen_addresses": "127.0.0.1", "port": str(port)}) as cluster:
        socket_url = cluster.url.replace("port=5432", f"port={port}")
        write_certificate(cluster.data)
        root = tmp_path_factory.mktemp("certificates") / "root.crt"
        root.write_bytes((cluster.data / "server.crt").read_bytes())
        rules = cluster.data / "pg_hba.conf"
        rules.write_text(RULES + rules.read_text())
        for statement in (
            "ALTER SYSTEM SET ssl = on", "CREATE ROLE encrypted LOGIN", "CREATE ROLE unencrypted LOGIN",
            "CREATE ROLE authenticated LOGIN PASSWORD 'right'", "SELECT pg_reload_conf()",
        ):  # fmt: skip
            execute(socket_url, statement)
        yield {"address": f"localhost:{port}", "root": str(root), "socket": socket_url}


@pytest.fixture(autouse=True)
def home(monkeypatch, tmp_path):
    """A home directory that this process cannot use."""
    monkeypatch.setenv("HOME", str(tmp_path / "missing"))


@pytest.mark.parametrize(
    ("user", "parameters", "expected"),
    [
        ("postgres", "", True), ("postgres", "sslmode=disable", False), ("postgres", "sslmode=allow", False),
        ("postgres", "sslmode=require", True), ("postgres", "ssl=true", True), ("postgres", "sslmode=prefer", True),
        ("unencrypted", "", False), ("unencrypted", "sslmode=prefer", False),
        ("encrypted", "sslmode=allow", True), ("encrypted", "", True),
    ],
)  # fmt: skip
async def test_sslmode_chooses_tls_as_libpq_does(server, user, parameters, expected):
    """`prefer` and `allow` fall back where the server refuses a user with or without TLS."""
    assert expected is await encrypted(f"postgresql://{user}@{server['address']}/postgres?{parameters}")


@pytest.mark.parametrize("mode", ["require", "verify-ca", "verify-full"])
async def test_the_certificate_of_the_server_is_checked(server, mode):
    """It is accepted by its own root, and refused where the root is another one."""
    url = f"postgresql://postgres@{server['address']}/postgres?sslmode={mode}&sslrootcert="

    assert await encrypted(url + server["root"])
    if mode == "verify-full":
        with pytest.raises(OSError, match="certificate verify failed"):
            await encrypted(url + "system")


async def test_a_root_certificate_that_was_replaced_is_read_again(server, tmp_path):
    """The next connection uses the new file. The URL is not read again."""
    write_certificate(tmp_path)
    file = tmp_path / "server.crt"
    url = DatabaseUrl.parse(
        f"postgresql://postgres@{server['address']}/postgres?sslmode=verify-full&sslrootcert={file}"
    )
    with pytest.raises(OSError, match="certificate verify failed"):
        await connect(url, HostOrder(), host_seconds=5, server_settings={})

    shutil.copyfile(server["root"], file)

    connection, *_ = await connect(url, HostOrder(), host_seconds=5, server_settings={})
    assert await connection.fetchval("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
    await connection.close()


async def test_the_name_in_the_certificate_is_checked_by_verify_full_only(server):
    """Reached by its address, the server is not the one that its certificate names."""
    address = server["address"].replace("localhost", "127.0.0.1")
    url = f"postgresql://postgres@{address}/postgres?sslrootcert={server['root']}&sslmode="

    assert await encrypted(f"{url}verify-ca")
    with pytest.raises(OSError, match="certificate verify failed"):
        await encrypted(f"{url}verify-full")


@pytest.mark.parametrize(("user", "mode"), [("encrypted", "disable"), ("unencrypted", "require")])
async def test_a_mode_without_a_fallback_has_none(server, user, mode):
    """The server's refusal is the result."""
    with pytest.raises(asyncpg.InvalidAuthorizationSpecificationError):
        await encrypted(f"postgresql://{user}@{server['address']}/postgres?sslmode={mode}")


async def test_a_wrong_password_is_not_sent_again_without_tls(server):
    """Where the server refuses the password over TLS, no second attempt goes over the network in the clear."""
    with pytest.raises(asyncpg.InvalidPasswordError):
        await encrypted(f"postgresql://authenticated:wrong@{server['address']}/postgres")

    assert await encrypted(f"postgresql://authenticated:right@{server['address']}/postgres")


@pytest.mark.parametrize("attributes", ["any", "primary", "read-write", "prefer-standby"])
async def test_the_next_host_is_tried_where_one_is_unreachable(server, attributes):
    """A host that refuses is passed over; `prefer-standby` takes the primary where there is no standby."""
    hosts = f"127.0.0.1:{free_port()},{server['address']}"

    assert await encrypted(f"postgresql://postgres@{hosts}/postgres?target_session_attrs={attributes}")


@pytest.mark.parametrize("attributes", ["standby", "read-only"])
async def test_a_server_of_another_kind_is_refused(server, attributes):
    """No host is a standby."""
    with pytest.raises(ConnectionError, match=f"the server is not of the kind target_session_attrs={attributes}"):
        await encrypted(f"postgresql://postgres@{server['address']}/postgres?target_session_attrs={attributes}")


async def test_what_a_url_sets_takes_precedence(server):
    """`application_name` and `options` of the URL come before those of the service."""
    url = DatabaseUrl.parse(f"{server['socket']}&application_name=mine&options=-cwork_mem%3D9MB")
    connection, _ = await connect(
        url, HostOrder(), host_seconds=5, server_settings={"application_name": "ours", "jit": "off"}
    )
    try:
        assert ["mine", "9MB", "off"] == [
            await connection.fetchval(f"SHOW {name}") for name in ("application_name", "work_mem", "jit")
        ]
    finally:
        await connection.close()


async def test_a_password_can_come_from_a_file(server, tmp_path):
    """`passfile` has a line for the host; a file without one gives no password."""
    file = tmp_path / "passwords"
    file.write_text("localhost:*:*:authenticated:right\n")
    file.chmod(0o600)
    url = f"postgresql://authenticated@{server['address']}/postgres?passfile={file}"

    assert await encrypted(url)

    file.write_text("elsewhere:*:*:authenticated:right\n")
    with pytest.raises(asyncpg.PostgresError):
        await encrypted(f"{url}&sslmode=require")
