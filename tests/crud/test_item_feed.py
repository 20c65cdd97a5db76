import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime

import asyncpg
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from app.crud import item as items
from app.crud import item_feed
from app.database import Database
from tests.cluster import APPLICATION, OWNER, as_role
from tests.databases import connected

ROLES = (APPLICATION, OWNER, "postgres")
"""The roles of the writers beside the service: its own, the owner and a superuser."""

INSERTED = "INSERT INTO items (name) VALUES ('Inserted')"
CHANGED = """
UPDATE items SET name = 'Changed', updated_at = greatest(clock_timestamp(), updated_at + interval '1 microsecond')
WHERE id = $1
"""


Steps = Sequence[tuple[str, int]]
"""What is done, and by which writer."""


@dataclass
class Feed:
    """A reader of the feed, the service's connections, and writers beside it."""

    database: Database
    writers: list[asyncpg.Connection]
    position: tuple[datetime, int] = field(default_factory=lambda: item_feed.position_after(None))
    seen: list[tuple[datetime, int]] = field(default_factory=list)

    async def reset(self) -> None:
        """Begin with one item for each writer, and one for the service."""
        for writer in self.writers:
            await writer.reset()
        await self.writers[-1].execute("TRUNCATE items RESTART IDENTITY")
        for _ in range(len(ROLES) + 1):
            await self.writers[-1].execute(INSERTED)
        self.position, self.seen = item_feed.position_after(None), []

    async def walk(self, *, from_time: bool = False) -> None:
        """Read the feed to its end, from the last change that was read, or after its time."""
        if from_time and self.seen:
            self.position = item_feed.position_after(self.seen[-1][0])
        has_more = True
        while has_more:
            page = await item_feed.changed_after(self.database, self.position, limit=2)
            self.seen += [(item.updated_at, item.id) for item in page.items]
            self.position = self.seen[-1] if self.seen else self.position
            has_more = page.has_more

    async def step(self, action: str, number: int) -> None:
        """Do one step. Each writer changes an item of its own, so none waits for another one."""
        writer = self.writers[number]
        if action == "walk":
            await self.walk(from_time=number == 0)
        elif action == "create":
            await items.create(self.database, {"name": "Created"})
        elif action == "change":
            await items.change(self.database, len(ROLES) + 1, {"name": "Changed by the service"})
        elif action in ("COMMIT", "ROLLBACK"):
            if writer.is_in_transaction():
                await writer.execute(action)
        else:
            if not writer.is_in_transaction():
                await writer.execute("BEGIN")
            if action == "insert":
                await writer.execute(INSERTED)
            elif action == "change own":
                await writer.execute(CHANGED, number + 1)

    async def stored(self) -> set[tuple[datetime, int]]:
        """The last change of each item."""
        return {tuple(row) for row in await self.writers[0].fetch("SELECT updated_at, id FROM items")}


@asynccontextmanager
async def opened_feed(database_url: str) -> AsyncIterator[Feed]:
    """A feed, and connections of all roles."""
    writers = [await asyncpg.connect(as_role(database_url, role)) for role in ROLES]
    try:
        async with connected(database_url, wait_seconds=30.0, statement_seconds=150.0) as database:
            feed = Feed(database, writers)
            await feed.reset()
            yield feed
    finally:
        for writer in writers:
            await writer.close()


@pytest.fixture
def run(database_url) -> Iterator[Callable[[Steps], None]]:
    """Takes the steps of one example, and checks the feed after them. All examples have the same connections."""
    with asyncio.Runner() as runner:
        opened = opened_feed(database_url)
        feed = runner.run(opened.__aenter__())
        yield lambda steps: runner.run(_check(feed, steps))
        runner.run(opened.__aexit__(None, None, None))


async def _check(feed: Feed, steps: Steps) -> None:
    await feed.reset()
    for action, number in steps:
        await feed.step(action, number)
    for number in range(len(ROLES)):
        await feed.step("COMMIT", number)
    await feed.walk(from_time=True)

    assert await feed.stored() <= set(feed.seen)
    assert sorted(set(feed.seen)) == feed.seen


ACTIONS = ("begin", "insert", "change own", "COMMIT", "ROLLBACK", "create", "change", "walk")
STEPS = st.lists(st.tuples(st.sampled_from(ACTIONS), st.integers(0, len(ROLES) - 1)), min_size=4, max_size=30)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
@example(steps=[("change own", 0), ("create", 0), ("walk", 1), ("COMMIT", 0)])
@example(steps=[("begin", 2), ("create", 0), ("walk", 1), ("insert", 2), ("walk", 1), ("COMMIT", 2)])
def test_no_change_is_missed(run, steps):
    """Writers of any role begin, write, commit and roll back in any order, and the feed is read in between.

    After the last commit, a walk from the last change that was read has met the last change of each item.
    No walk goes back.
    """
    run(steps)


@pytest.mark.parametrize("role", ROLES)
async def test_a_late_commit_is_waited_for(database_url, role):
    """While a transaction that has written an item is open, what was written after its begin is withheld."""
    async with opened_feed(database_url) as feed:
        writer = feed.writers[ROLES.index(role)]
        await feed.walk()
        await writer.execute("BEGIN")
        await writer.execute(CHANGED, 1)
        later = await items.create(feed.database, {"name": "Later"})
        await feed.walk()
        assert 4 == len(feed.seen)
        await writer.execute("COMMIT")
        await feed.walk()

        assert [1, later.id] == [item_id for _, item_id in feed.seen[4:]]


async def test_a_change_is_seen_at_once(database_url):
    """Without a writer, a committed change is on the next page, also while others read and while one only began."""
    async with opened_feed(database_url) as feed:
        await feed.walk()
        for writer in feed.writers:
            await writer.execute("BEGIN")
            await writer.fetch("SELECT * FROM items")
        created = await items.create(feed.database, {"name": "Kettle"})
        await feed.walk()
        assert (created.updated_at, created.id) == feed.seen[-1]
        await feed.writers[-1].execute(INSERTED)
        await feed.writers[-1].execute("COMMIT")
        await feed.walk()

        assert created.id + 1 == feed.seen[-1][1]


async def test_a_hidden_writer_is_waited_for(database_url):
    """If the owner may not see the transactions of others, nothing is complete while one of them writes."""
    async with opened_feed(database_url) as feed:
        superuser = feed.writers[-1]
        await superuser.execute(f"REVOKE pg_read_all_stats FROM {OWNER}")
        try:
            await superuser.execute("BEGIN")
            await superuser.execute(CHANGED, 1)
            await feed.walk()
            assert [] == feed.seen
            await superuser.execute("COMMIT")
            await feed.walk()
            assert await feed.stored() == set(feed.seen)
        finally:
            await superuser.execute(f"GRANT pg_read_all_stats TO {OWNER}")
