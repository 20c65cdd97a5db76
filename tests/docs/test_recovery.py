"""The commands of recovery.md restore every write that was acknowledged before the point, and no later one."""

import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.embedded_postgres.cluster import Cluster
from app.embedded_postgres.programs import find_binaries, run
from app.settings import Settings
from tests.application import opened
from tests.cluster import as_role, create_database, create_samples, migrate_as_owner, throw_away_cluster
from tests.docs.documents import COMMANDS, blocks
from tests.docs.shell import Reader, reader
from tests.paths import ROOT

PAGE = ROOT / "docs" / "operations" / "recovery.md"


@pytest.fixture
def old_server() -> Iterator[Cluster]:
    """A server that writes its WAL as in production. Its database `shop` is migrated."""
    with throw_away_cluster({"synchronous_commit": "on", "full_page_writes": "on"}) as running:
        url = create_database(running, "shop")
        migrate_as_owner(url)
        create_samples(as_role(url, "items_owner"))
        yield running


@pytest.fixture
def restored(old_server: Cluster) -> Iterator[Path]:
    """The data folder of the restored server, which is stopped at the end."""
    folder = old_server.folder / "restored"
    yield folder
    if (log := Path(f"{folder}.log")).exists():
        sys.stdout.write(log.read_text())
    if (folder / "postmaster.pid").exists():
        run([str(find_binaries() / "pg_ctl"), "stop", "--mode=immediate", f"--pgdata={folder}"])


@pytest.fixture
def shell(old_server: Cluster, restored: Path) -> Iterator[Reader]:
    """A shell of PostgreSQL's user, with the variables that the page names."""
    old = old_server.url.replace("/postgres?", "/shop?")
    backups = old_server.folder / "backups"
    environment = {
        "ADMIN_DATABASE_URL": old,
        "RESTORED_DATABASE_URL": f"postgresql://postgres@/shop?host={backups}/socket",
        "BACKUPS": str(backups),
        "RESTORED": str(restored),
        "HOME": str(old_server.folder),
    }
    with reader(environment, as_postgresql=True) as running:
        yield running


async def follow(shell: Reader, section: str, which: slice = slice(None)) -> None:
    """Run the commands of a section of the page."""
    found = [block for block in blocks(PAGE) if block.section == section and block.kind == COMMANDS][which]
    assert found, section
    for block in found:
        sys.stdout.write(f"## {section}\n{await asyncio.to_thread(shell.run, block)}")


def served(url: str) -> Settings:
    """The settings of the service at this server."""
    return Settings.load(database_url=as_role(url, "items_app"), rate_limit_enabled=False, _env_file=None)


async def create(client: httpx.AsyncClient, key: str) -> httpx.Response:
    """Create a sample with this name and this Idempotency-Key."""
    return await client.post("/samples", json={"name": key}, headers={"Idempotency-Key": key})


async def change(client: httpx.AsyncClient, sample: dict[str, Any], etag: str) -> httpx.Response:
    """Change a sample if it still has this ETag."""
    return await client.patch(f"/samples/{sample['id']}", json={"description": "Changed"}, headers={"If-Match": etag})


async def read(client: httpx.AsyncClient, written: httpx.Response) -> httpx.Response:
    """Read what a write has answered."""
    return await client.get(f"/samples/{written.json()['id']}")


async def answered(*requests: Any) -> list[int]:
    """The statuses of the answers, one request after the other."""
    return [(await request).status_code for request in requests]


@pytest.mark.slow
@pytest.mark.needs("bash", "postgresql")
async def test_a_restore_has_all_writes_up_to_the_point_and_no_later_one(old_server, shell):
    """The service reads each earlier write with its ETag. Of later ones it knows neither rows nor keys nor ETags."""
    await follow(shell, "Archive the WAL")
    await asyncio.to_thread(old_server.stop)
    await asyncio.to_thread(old_server.start)
    async with opened(served(shell.environment["ADMIN_DATABASE_URL"])) as client:
        earlier = [await create(client, f"before-the-backup-{n}") for n in range(20)]
        await follow(shell, "Base backup")
        earlier += [await create(client, f"after-the-backup-{n}") for n in range(20)]
        earlier[0] = await change(client, earlier[0].json(), earlier[0].headers["ETag"])
        await follow(shell, "The point")
        later = [await create(client, f"later-{n}") for n in range(20)]
        changed = await change(client, earlier[1].json(), earlier[1].headers["ETag"])
        deleted = await client.delete(f"/samples/{earlier[2].json()['id']}")
        assert {200, 201, 204} == {answer.status_code for answer in (*earlier, *later, changed, deleted)}
        await follow(shell, "Restore")

    async with opened(served(shell.environment["RESTORED_DATABASE_URL"])) as client:
        await follow(shell, "Check")
        for written in earlier:
            found = await read(client, written)
            assert (written.json(), written.headers["ETag"]) == (found.json(), found.headers["ETag"])
        assert {404} == {(await read(client, written)).status_code for written in later}
        assert 503 == (await create(client, "while-it-is-paused")).status_code
        await follow(shell, "Promote", slice(0, 1))

        replay, again = await create(client, "after-the-backup-7"), await create(client, "later-7")
        assert (201, "true") == (replay.status_code, replay.headers["Idempotency-Replayed"])
        assert earlier[27].json() == replay.json()
        assert 201 == again.status_code
        assert "Idempotency-Replayed" not in again.headers
        assert again.headers["ETag"] not in {written.headers["ETag"] for written in later}
        lost = changed.headers["ETag"]
        newer = await client.get(f"/samples/{changed.json()['id']}", headers={"If-None-Match": lost})
        assert (200, earlier[1].json()) == (newer.status_code, newer.json())
        assert [412, 404, 200] == await answered(
            change(client, changed.json(), lost),
            change(client, {"id": max(written.json()["id"] for written in later) + 1000}, lost),
            change(client, earlier[1].json(), earlier[1].headers["ETag"]),
        )
    await follow(shell, "Promote", slice(1, 2))
