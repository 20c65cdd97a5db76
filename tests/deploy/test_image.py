"""The image: its contents, how it runs with the restrictions of its pod, and how it stops."""

import asyncio
import json
import time
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from tests.deploy.balancer import balancer
from tests.deploy.conftest import REVISION, VERSION
from tests.deploy.engine import IMAGE
from tests.deploy.manifests import docker_flags
from tests.deploy.stack import OVERLAY, database, service, url
from tests.processes.load import Request, load
from tests.resources import creation

CONTENTS = Path(__file__).with_name("contents.py")

PATH, BODY = creation()
WRITE = Request(
    method="POST", target=PATH, headers=(("Content-Type", "application/json"),), body=json.dumps(BODY).encode()
)


@pytest.fixture(scope="module")
def network(images):
    """A network with a migrated PostgreSQL."""
    with database(images) as name:
        yield name


def test_the_image_has_its_version_and_revision(images):
    """Labels and variables have the version and the revision; it runs as uid 10001 and stops on SIGTERM."""
    found = images.inspect(IMAGE)["Config"]
    variables = dict(entry.split("=", 1) for entry in found["Env"])

    assert VERSION == found["Labels"]["org.opencontainers.image.version"] == variables["BUILD_VERSION"]
    assert REVISION == found["Labels"]["org.opencontainers.image.revision"] == variables["BUILD_REVISION"]
    assert ("10001:10001", "SIGTERM") == (found["User"], found["StopSignal"])
    assert ["gunicorn"] == found["Cmd"]
    assert found["Entrypoint"] is None
    assert "CMD" == found["Healthcheck"]["Test"][0]


def test_the_image_contains_only_what_the_service_needs(images):
    """No build tools, tests, development dependencies or caches; all code is compiled, and nothing is writable."""
    script = CONTENTS.read_text()
    found = json.loads(images.docker("run", "--rm", "--network=none", "--user=0:0", IMAGE, "python", "-c", script))

    assert {
        "tools": [],
        "modules": [],
        "entries": [".venv", "__pycache__", "alembic.ini", "app", "gunicorn.conf.py", "migrations"],
        "caches": [],
        "uncompiled": [],
        "writable": [],
    } == found


def test_the_image_is_small(images):
    """The service adds less than 130 MB to its base image; deploy/README.md gives the size."""
    size, base = (images.inspect(name)["Size"] for name in (IMAGE, "python:3.13-slim"))

    assert size - base < 130_000_000


def test_the_image_does_not_start_without_a_database(images):
    """Without DATABASE_URL the exit code is 1 and one sentence names the setting. No private database is started."""
    images.docker("run", "--name=refused", "--network=none", "--read-only", "--tmpfs=/tmp", IMAGE, check=False)
    output = images.docker("logs", "refused", check=False)
    code = images.inspect("refused")["State"]["ExitCode"]
    images.docker("rm", "refused")

    assert 1 == code
    assert "DATABASE_URL is not set" in output
    assert "Traceback" not in output


def test_the_service_runs_with_the_restrictions_of_its_pod(images, network):
    """With the restrictions of the Deployment, the container is healthy, ready, and creates a row."""
    with service(images, "restricted", network) as port:
        host = images.inspect("restricted")["HostConfig"]
        answer = httpx.post(f"http://127.0.0.1:{port}{PATH}", json=BODY)
        ready = images.docker(
            "exec", "restricted", "python", "-c",
            "import urllib.request as r; print(r.urlopen('http://127.0.0.1:8001/health/ready').read().decode())",
        )  # fmt: skip
        processes = images.docker("top", "restricted", "-eo", "pid,uid").splitlines()[1:]

    assert 201 == answer.status_code
    assert "ready" == json.loads(ready)["status"]
    assert {"10001"} == {line.split()[1] for line in processes}
    assert host["ReadonlyRootfs"]
    assert ["ALL"] == host["CapDrop"]
    assert ["no-new-privileges"] == host["SecurityOpt"]
    assert (512 * 2**20, 64 * 2**20) == (host["Memory"], host["ShmSize"])
    assert any(flag.startswith("--tmpfs=/tmp") for flag in docker_flags(OVERLAY))


def test_the_image_runs_as_any_user_of_the_group_0(images, network):
    """With a user id that OpenShift gives to a namespace, the service creates a row, and `alembic` connects."""
    user = "--user=1000660000:0"
    with service(images, "arbitrary", network, user) as port:
        answer = httpx.post(f"http://127.0.0.1:{port}{PATH}", json=BODY)
        processes = images.docker("top", "arbitrary", "-eo", "pid,uid,gid").splitlines()[1:]
    revision = images.docker(
        "run", "--rm", f"--network={network}", "--read-only", "--tmpfs=/tmp", user,
        f"--env=MIGRATION_DATABASE_URL={url('items_owner')}", IMAGE, "alembic", "current",
    )  # fmt: skip

    assert 201 == answer.status_code
    assert {("1000660000", "0")} == {tuple(line.split()[1:]) for line in processes}
    assert "(head)" in revision


def test_a_request_in_flight_is_answered_during_shutdown(images, network):
    """A request whose body arrives after SIGTERM is answered 201, and the exit code is 0."""

    async def send_slowly(port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        body = json.dumps(BODY).encode()
        writer.write(
            b"POST " + PATH.encode() + b" HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n" % len(body) + body[:5]
        )
        await writer.drain()
        await asyncio.sleep(0.5)
        stopping = asyncio.create_task(asyncio.to_thread(images.docker, "stop", "stopped"))
        await asyncio.sleep(1.5)
        assert not stopping.done()
        writer.write(body[5:])
        answer = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
        writer.close()
        await stopping
        return answer

    with service(images, "stopped", network) as port:
        answer = asyncio.run(send_slowly(port))
        state = images.inspect("stopped")["State"]

    assert answer.startswith(b"HTTP/1.1 201")
    assert (0, False) == (state["ExitCode"], state["OOMKilled"])


@pytest.mark.needs("haproxy")
def test_no_request_fails_while_containers_are_replaced(images, network, tmp_path):
    """Two containers behind a proxy are replaced one after the other under load, and every request succeeds."""
    with balancer(tmp_path) as proxy, ExitStack() as stack:
        ports, codes = {}, []

        def start(name):
            ports[name] = stack.enter_context(service(images, name, network))
            proxy.add(ports[name])

        def stop(name):
            # As an orchestrator does: first the proxy stops sending connections, then the container is stopped.
            proxy.remove(ports[name])
            time.sleep(0.5)
            images.docker("stop", name)
            codes.append(images.inspect(name)["State"]["ExitCode"])

        start("first")
        start("second")
        with load(
            proxy.port, rate=200, kept=15, fresh=10,
            request=lambda n: WRITE if n % 5 == 0 else Request(target=f"{PATH}?per_page=5"),
        ) as report:  # fmt: skip
            start("third")
            stop("first")
            start("fourth")
            stop("second")
            time.sleep(1)

    assert [] == report.failures(), report
    assert {200, 201} == set(report.statuses)
    assert len(report.results) > 1000
    assert [0, 0] == codes
