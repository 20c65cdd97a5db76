"""A real server with a replica: while its primary fails, and while the replica lags behind."""

import asyncio
import itertools
import json
import random
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field

import asyncpg
import httpx
import pytest

from tests.processes.history import History
from tests.processes.load import load
from tests.processes.scrape import fetch, scrape, total
from tests.processes.server import eventually, service
from tests.processes.test_faults_database import after, counted, succeeded
from tests.processes.watch import print_figures
from tests.replication import frozen, primary_and_standby, url_of

pytestmark = pytest.mark.slow

LAG_SECONDS = 1.0
"""DATABASE_REPLICA_LAG_SECONDS."""

WALK_SECONDS = 12


@contextmanager
def replicated_service():
    """A server of two workers that reads from the replica, and its primary and standby."""
    with (
        primary_and_standby() as (primary, standby),
        service(url_of(primary), workers=2, DATABASE_REPLICA_URL=url_of(standby)) as server,
    ):
        server.serving(workers=2)
        eventually(lambda: usable(server) == 2, seconds=20, what="both workers use the replica")
        yield server, primary, standby


def usable(server):
    """How many workers use the replica."""
    return total(scrape(server.port), "database_replica_usable")


def reads(server):
    """The reads of all workers by reason."""
    return {
        dict(labels)["reason"]: int(value)
        for (name, labels), value in scrape(server.port).items()
        if name == "database_reads_total" and value
    }


def test_the_pools_of_a_replica_are_added_up():
    """The two workers together may open as many connections to the replica as to the primary, and have opened some."""
    with replicated_service() as (server, _, _):
        found = scrape(server.port)
        of_replica = {
            part: total(found, f"database_replica_pool_{part}", {"replica": "1"})
            for part in ("size", "open", "waiting")
        }

    assert total(found, "database_pool_size") == of_replica["size"] == 20
    assert 2 <= of_replica["open"] <= 20
    assert 0 == of_replica["waiting"]


@pytest.mark.parametrize("seconds_frozen", [0, 4], ids=["killed", "frozen"])
def test_reads_go_on_without_the_primary(seconds_frozen):
    """The primary is killed under load, or frozen and killed later. The workers stay ready, and are read-only."""
    with replicated_service() as (server, primary, _):
        history = History(primary.url)
        time.sleep(2)
        with load(server.port, rate=150, request=history.request) as report:
            time.sleep(2)
            with frozen(primary) as began:
                time.sleep(seconds_frozen)
            time.sleep(4)
            status, body = fetch(server.port, "/health/ready")
        assert (200, "read_only") == (status, json.loads(body)["checks"]["database"])
        assert 2 == total(scrape(server.port), "worker_read_only")
        assert 0 == total(scrape(server.port), "worker_database_reachable")
        answered = [e.started + e.seconds for e in report.results if e.request.method == "GET" and succeeded(e)]
        without = max(later - earlier for earlier, later in itertools.pairwise(sorted(answered)) if later > began)
        late = [e for e in after(report, began + 2) if e.request.method == "GET"]
        failed = [e for e in after(report, began) if e.request.method == "GET" and not succeeded(e)]
        print_figures(without_a_read_seconds=without, reads_failed=len(failed), **counted(report))
        assert len(late) > 30
        assert all(map(succeeded, late))
        assert without < 2
        assert not [e for e in after(report, began + 1) if e.request.method != "GET" and succeeded(e)]


@dataclass(slots=True)
class Walk:
    """What the clients of a random walk have seen."""

    contradictions: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    async def run(self, client, seed):
        """One client: it creates and changes rows of its own, and reads them."""
        choose = random.Random(seed)
        rows: dict[str, list[tuple[float, int, str]]] = {}
        ends = time.monotonic() + WALK_SECONDS
        while time.monotonic() < ends:
            step = choose.choice(("create", "change", "read", "read", "current"))
            if step == "create" or not rows:
                made = await client.post("/samples", json={"name": "created"})
                path = made.headers["location"]
                rows[path] = [(time.monotonic(), *version(made))]
                self.expect(200 == (await client.get(path)).status_code, "a created row is missing")
                self.counts["created and read"] += 1
                continue
            path = choose.choice(list(rows)[-3:])
            if step == "change":
                changed = await client.patch(path, json={"name": f"changed-{choose.random()}"})
                rows[path].append((time.monotonic(), *version(changed)))
                again = await client.get(path, headers={"If-None-Match": changed.headers["etag"]})
                self.expect(304 == again.status_code, "the version before is the answer to If-None-Match")
                self.counts["changed and compared"] += 1
            else:
                headers = {"Cache-Control": "no-cache"} if step == "current" else {}
                started = time.monotonic()
                found, _ = version(await client.get(path, headers=headers))
                bound = 0.0 if step == "current" else LAG_SECONDS
                needed = max((v for at, v, _ in rows[path] if at < started - bound), default=0)
                self.expect(found >= needed, f"{step}: a version older than {bound} s")
                self.counts["read, as old as allowed"] += found < rows[path][-1][1]
                self.counts["read"] += 1

    def expect(self, is_met, what):
        """Keep a contradiction."""
        if not is_met:
            self.contradictions.append(what)


def version(response):
    """The version in the tag of a response, and the tag."""
    assert response.status_code in {200, 201}, response.text
    tag = response.headers["etag"]
    return int(tag.strip('"').partition("-")[2]), tag


async def delay(standby_url):
    """Stop the replay for 0 to 3 s again and again."""
    connection = await asyncpg.connect(standby_url)
    choose = random.Random(7)
    try:
        while True:
            await connection.execute("SELECT pg_wal_replay_pause()")
            await asyncio.sleep(choose.uniform(0, 3))
            await connection.execute("SELECT pg_wal_replay_resume()")
            await asyncio.sleep(choose.uniform(0, 1))
    finally:
        await connection.close()


def test_no_answer_contradicts_another():
    """Created rows are found, no version is older than If-None-Match names, and none older than the lag allows."""

    async def walk():
        delaying = asyncio.create_task(delay(standby.url))
        walk = Walk()
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}", timeout=30) as client:
            await asyncio.gather(*(walk.run(client, seed) for seed in range(6)))
        delaying.cancel()
        return walk

    with replicated_service() as (server, _, standby):
        found = asyncio.run(walk())
        by_reason = reads(server)
        print_figures(**{name.replace(" ", "_"): n for name, n in (found.counts | by_reason).items()})
        assert [] == found.contradictions
        assert found.counts["read, as old as allowed"] > 0
        assert {"fresh", "lagging", "empty", "older", "no_cache"} <= by_reason.keys()
