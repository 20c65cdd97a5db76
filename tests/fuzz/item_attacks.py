"""Attacks on the real service by one client, and what they do to another one: `python -m tests.fuzz.item_attacks`.

docs/operations/abuse.md has the results. Each attack is bounded in time, and only uses the loopback interface.
"""

import argparse
import asyncio
import contextlib
import json
import multiprocessing
import os
import re
import signal
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
import psutil

from app.http import cursors
from tests.cluster import as_role, create_database, execute, migrate_as_owner, throw_away_cluster
from tests.processes.load import Request, send_load
from tests.processes.raw import statuses
from tests.processes.scrape import scrape, total
from tests.processes.server import Server, without_coverage

PATH = "/items"
TABLE = "items"
LARGE_ROWS = 1_000_000
_JSON = b"Content-Type: application/json\r\n"
_RUNNING = """
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND state = 'active' AND pid <> pg_backend_pid() AND backend_type = 'client backend'
"""


@dataclass(slots=True)
class Attack:
    """One run of an attack: the server, its database, and what the attack opens and finds out."""

    server: Server
    url: str
    open: ExitStack = field(default_factory=ExitStack)
    notes: dict[str, object] = field(default_factory=dict)

    def connect(self, *, seconds: float = 20) -> socket.socket:
        """A connection that stays open until the attack ends."""
        client = socket.create_connection(("127.0.0.1", self.server.port), timeout=seconds)
        return self.open.enter_context(client)

    def sum(self, name: str, **labels: str) -> int:
        """The sum of the counters with this name."""
        return int(total(scrape(self.server.port), name, labels))

    def count_5xx(self) -> int:
        """The answers that the metrics count as failures of the service."""
        return sum(self.sum("http_requests_total", status=str(status)) for status in (500, 502, 503, 504))


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """An attack, and the state that it needs."""

    run: Callable[[Attack], None]
    rows: str = "few"
    settings: dict[str, str] = field(default_factory=dict)
    prefix: tuple[str, ...] = ()
    others: bool = True
    """Whether another client sends requests meanwhile."""


def unread_pages_then_nul(attack: Attack) -> None:
    """100 connections ask for the largest page twice, read nothing, and send a zero byte."""
    clients = [_without_buffer(attack) for _ in range(100)]
    for client in clients:
        client.sendall(_get(_LARGE_PAGE) * 2)
    time.sleep(2)
    for client in clients:
        _send(client, b"\0")
    time.sleep(20)


def idle_connections(attack: Attack) -> None:
    """8,000 connections stay idle after one request."""
    for _ in range(8_000):
        client = attack.connect()
        _send(client, _get("/health"))
    time.sleep(8)


def unfinished_heads(attack: Attack) -> None:
    """3,000 connections send a head of 60 kB without its end."""
    for _ in range(3_000):
        _send(attack.connect(), b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 60_000)
    time.sleep(5)


def unread_pages(attack: Attack) -> None:
    """120 connections ask for the largest page and read nothing."""
    for _ in range(120):
        _send(_without_buffer(attack), _get(_LARGE_PAGE))
    time.sleep(8)


def searches_12(attack: Attack) -> None:
    """12 connections search for two short words, again and again."""
    _search(attack, connections=12)


def searches_60(attack: Attack) -> None:
    """60 connections search for two short words, again and again."""
    _search(attack, connections=60)


def vanishing_searches(attack: Attack) -> None:
    """20 clients a second search for two short words, and reset their connections after 50 ms."""
    running: list[int] = []
    for number in range(200):
        client = attack.connect()
        _send(client, _get(f"{PATH}?q=e+z"))
        time.sleep(0.05)
        _reset(client)
        if number % 20 == 19:
            running.append(_statements(attack.url))
    time.sleep(1)
    attack.notes |= {"statements running": max(running), "and 1 s after the end": _statements(attack.url)}


def expect_and_bad_chunk(attack: Attack) -> None:
    """100 creations with `Expect: 100-continue` have a malformed chunk."""
    crashes = attack.server.output().count("request_crashed")
    for _ in range(100):
        client = attack.connect()
        head = b"POST %s HTTP/1.1\r\nHost: a\r\n%sExpect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n"
        client.sendall(head % (PATH.encode(), _JSON) + b"2\r\n{}\r\n0\r\nX Y\r\n\r\n")
        _read(client)
    time.sleep(1)
    attack.notes |= {
        "5xx counted": attack.count_5xx(),
        "tracebacks": attack.server.output().count("request_crashed") - crashes,
    }


def pipelined_pair_and_reset(attack: Attack) -> None:
    """100 clients send two creations at once and reset the connection."""
    for number in range(100):
        client = attack.connect()
        client.sendall(b"".join(_create(f"pair-{number}-{one}") for one in range(2)))
        _reset(client)
        time.sleep(0.02)
    time.sleep(1)
    attack.notes |= {
        "5xx counted": attack.count_5xx(),
        "rows": _count(attack.url, f"SELECT count(*) FROM {TABLE} WHERE name LIKE 'pair-%'"),
    }


def refused_deletions(attack: Attack) -> None:
    """100 deletions have a malformed chunk, in the same packet or in a later one."""
    execute(attack.url, f"INSERT INTO {TABLE} (name) SELECT 'victim' FROM generate_series(1, 100)")
    refused = 0
    for item in asyncio.run(_ids(attack.url)):
        client = attack.connect()
        head = b"DELETE %s/%d?permanent=true HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        client.sendall(head % (PATH.encode(), item))
        if item % 2:
            time.sleep(0.01)
        client.sendall(b"5\r\nhello\r\nnonsense\r\n\r\n")
        refused += statuses(_read(client)) == [400]
    left = _count(attack.url, f"SELECT count(*) FROM {TABLE} WHERE name = 'victim'")
    attack.notes |= {"refused": refused, "and carried out": 100 - left}


def scrapers(attack: Attack) -> None:
    """16 clients read `/metrics` as fast as they can."""
    answered = [0] * 16
    end = time.monotonic() + 12

    def read(number: int) -> None:
        while time.monotonic() < end:
            with contextlib.suppress(OSError, AssertionError):
                scrape(attack.server.port)
                answered[number] += 1

    _in_threads([lambda number=number: read(number) for number in range(16)])  # type: ignore[misc]
    attack.notes["scrapes a second"] = round(sum(answered) / 12)


def damaged_counters(attack: Attack) -> None:
    """The file of the rate limit counters is overwritten with random bytes. The limit is 20 reads a minute."""
    files = {
        mapped.path
        for pid in attack.server.workers()
        for mapped in psutil.Process(pid).memory_maps()
        if mapped.path.endswith("/counters")
    }
    for file in files:
        with Path(file).open("r+b") as counters:
            size = counters.seek(0, os.SEEK_END)
            counters.seek(0)
            counters.write(os.urandom(size))
    admitted = 0
    for _ in range(160):
        client = attack.connect()
        client.sendall(_get(PATH, close=True))
        admitted += statuses(_read(client)) == [200]
    degraded = attack.sum("rate_limit_storage_degraded")
    attack.notes |= {"files": len(files), "admitted of 160": admitted, "degraded": degraded}


def stopped_holder_of_the_counters(attack: Attack) -> None:
    """Another process holds the lock of the rate limit counters. The limit is 20 reads a minute."""
    maps = psutil.Process(attack.server.workers()[0]).memory_maps()
    (file,) = {mapped.path for mapped in maps if mapped.path.endswith("/counters")}
    holder = subprocess.Popen(["flock", str(Path(file).with_name("lock")), "sleep", "60"], start_new_session=True)
    attack.open.callback(os.killpg, holder.pid, signal.SIGKILL)
    time.sleep(0.5)
    admitted, slowest = 0, 0.0
    for _ in range(160):
        client = attack.connect()
        started = time.monotonic()
        client.sendall(_get(PATH, close=True))
        admitted += statuses(_read(client)) == [200]
        slowest = max(slowest, time.monotonic() - started)
    degraded = attack.sum("rate_limit_storage_degraded")
    attack.notes |= {"admitted of 160": admitted, "slowest answer, ms": round(slowest * 1000), "degraded": degraded}


def few_descriptors(attack: Attack) -> None:
    """The server may open 64 files, and 200 connections stay idle."""
    for _ in range(200):
        with contextlib.suppress(OSError):
            _send(attack.connect(seconds=2), _get("/health"))
    time.sleep(8)


KINDS = {
    "no attack": Kind(run=lambda _: time.sleep(10)),
    "unread pages, then a zero byte": Kind(run=unread_pages_then_nul),
    "8,000 idle connections": Kind(run=idle_connections),
    "3,000 unfinished heads of 60 kB": Kind(run=unfinished_heads),
    "120 unread pages": Kind(run=unread_pages),
    "searches on 12 connections": Kind(run=searches_12, rows="many"),
    "searches on 60 connections": Kind(run=searches_60, rows="many"),
    "searches of vanishing clients": Kind(run=vanishing_searches, rows="many"),
    "Expect and a malformed chunk": Kind(run=expect_and_bad_chunk),
    "two creations and a reset": Kind(run=pipelined_pair_and_reset),
    "refused deletions": Kind(run=refused_deletions),
    "16 scrapers": Kind(run=scrapers),
    "damaged rate limit counters": Kind(run=damaged_counters, settings={"RATE_LIMIT_READ": "20/minute"}, others=False),
    "a stranger holds the counters": Kind(
        run=stopped_holder_of_the_counters, settings={"RATE_LIMIT_READ": "20/minute"}, others=False
    ),
    "64 file descriptors": Kind(run=few_descriptors, prefix=("prlimit", "--nofile=64")),
}


def measure(kind: Kind, url: str) -> dict[str, object]:
    """Run an attack against a new server, and measure what it did."""
    settings = {"DATABASE_URL": url, "WEB_CONCURRENCY": "2", "LOG_LEVEL": "info", **kind.settings}
    server = without_coverage(Server(environment=settings))
    if kind.prefix:
        server.started_by(*kind.prefix)
    attack = Attack(server, url)
    with server:
        server.serving(workers=2)
        time.sleep(1)
        idle = _memory(server)
        with _sampled(server) as sampled, attack.open:
            with _other_client(server.port, active=kind.others) as other:
                time.sleep(1)
                kind.run(attack)
                still_open = _connections(server)
            seconds = _stop(server)
    return {
        **attack.notes,
        "memory, MB": f"{round(idle / 1e6)} to {round(max(sampled.memory) / 1e6)}",
        "connections": f"at most {max(sampled.connections)}, {still_open} at the end",
        **other,
        "seconds until TERM ended": round(seconds, 1),
    }


@contextmanager
def _other_client(port: int, *, active: bool) -> Iterator[dict[str, object]]:
    """The requests of another client, from a process of its own: the attack does not delay them on its side."""
    figures: dict[str, object] = {}
    if not active:
        yield figures
        return
    context = multiprocessing.get_context("spawn")
    stop, results = context.Event(), context.Queue()
    process = context.Process(target=_send_other_requests, args=(port, stop, results), daemon=True)
    process.start()
    try:
        yield figures
    finally:
        stop.set()
        figures.update(results.get(timeout=60))
        process.join(10)


def _send_other_requests(port: int, stop: Any, results: Any) -> None:
    report = asyncio.run(
        send_load(
            port, rate=40, seconds=120, kept=4, fresh=2, request=_other_request, timeout_seconds=10, stopped=stop.is_set
        )
    )
    failed = report.failures()
    results.put(
        {
            "others' requests": len(report.results),
            "failed": len(failed),
            "503": report.statuses[503],
            "p99, ms": round(1000 * report.seconds(0.99)),
        }
    )


@dataclass(slots=True)
class _Samples:
    memory: list[int] = field(default_factory=list)
    connections: list[int] = field(default_factory=list)


@contextmanager
def _sampled(server: Server) -> Iterator[_Samples]:
    """What the processes of the server have, four times a second until the block ends."""
    samples, done = _Samples(), threading.Event()

    def run() -> None:
        while not done.wait(0.25):
            samples.memory.append(_memory(server))
            samples.connections.append(_connections(server))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield samples
    finally:
        done.set()
        thread.join()


def _memory(server: Server) -> int:
    """The proportional set size of the master and the workers, in bytes."""
    found = 0
    for pid in (server.process.pid, *server.workers()):
        with contextlib.suppress(OSError):
            text = Path(f"/proc/{pid}/smaps_rollup").read_text()
            found += 1024 * sum(int(size) for size in re.findall(r"^Pss:\s+(\d+) kB", text, re.MULTILINE))
    return found


def _connections(server: Server) -> int:
    """The sockets of the workers, among them a few that are not clients'."""
    found = 0
    for pid in server.workers():
        with contextlib.suppress(OSError):
            for file in Path(f"/proc/{pid}/fd").iterdir():
                with contextlib.suppress(OSError):
                    found += str(file.readlink()).startswith("socket:")
    return found


def _stop(server: Server) -> float:
    started = time.monotonic()
    with contextlib.suppress(subprocess.TimeoutExpired):
        server.stop(seconds=45)
    return time.monotonic() - started


def _other_request(number: int) -> Request:
    """A request of another client: a read, a page or a creation."""
    client = ("X-Forwarded-For", "203.0.113.7")
    if number % 6 == 0:
        body = json.dumps({"name": f"other {number}"}).encode()
        return Request(method="POST", target=PATH, headers=(client, ("Content-Type", "application/json")), body=body)
    return Request(
        target=f"{PATH}/{101 + number % 1_000}" if number % 3 else f"{PATH}?cursor={_CURSOR}", headers=(client,)
    )


_LARGE_PAGE = f"{PATH}?per_page=100&cursor={cursors.encode(0)}"
"""The largest page that a client gets: 2 MiB, and 4 MB before pages had a limit."""

_CURSOR = cursors.encode(100)
"""After the items with long texts."""


def _get(target: str, *, close: bool = False) -> bytes:
    return f"GET {target} HTTP/1.1\r\nHost: a\r\n{'Connection: close' if close else 'X: a'}\r\n\r\n".encode()


def _create(name: str) -> bytes:
    body = json.dumps({"name": name}).encode()
    return b"POST %s HTTP/1.1\r\nHost: a\r\n%sContent-Length: %d\r\n\r\n%s" % (PATH.encode(), _JSON, len(body), body)


def _without_buffer(attack: Attack) -> socket.socket:
    """A connection whose receive buffer takes little."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.settimeout(20)
    client.connect(("127.0.0.1", attack.server.port))
    return attack.open.enter_context(client)


def _send(client: socket.socket, sent: bytes) -> None:
    """Send, unless the server has closed the connection."""
    with contextlib.suppress(OSError):
        client.sendall(sent)


def _read(client: socket.socket) -> bytes:
    received = b""
    with contextlib.suppress(OSError):
        while piece := client.recv(65_536):
            received += piece
    return received


def _reset(client: socket.socket) -> None:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


def _search(attack: Attack, *, connections: int) -> None:
    found: list[int] = []
    end = time.monotonic() + 15

    def work() -> None:
        while time.monotonic() < end:
            with (
                contextlib.suppress(OSError),
                socket.create_connection(("127.0.0.1", attack.server.port), 10) as client,
            ):
                client.sendall(_get(f"{PATH}?q=e+z", close=True))
                found.extend(statuses(_read(client)))
            time.sleep(2)  # at most six a second on twelve connections

    _in_threads([work] * connections)
    attack.notes["searches answered"] = {status: found.count(status) for status in sorted(set(found))}


def _in_threads(work: list[Callable[[], None]]) -> None:
    threads = [threading.Thread(target=one, daemon=True) for one in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _statements(url: str) -> int:
    return _count(url, _RUNNING)


def _count(url: str, query: str) -> int:
    async def fetch() -> int:
        connection = await asyncpg.connect(url, user="postgres")
        try:
            return int(await connection.fetchval(query))
        finally:
            await connection.close()

    return asyncio.run(fetch())


async def _ids(url: str) -> list[int]:
    connection = await asyncpg.connect(url, user="postgres")
    try:
        return [row["id"] for row in await connection.fetch(f"SELECT id FROM {TABLE} WHERE name = 'victim'")]
    finally:
        await connection.close()


def _fill(url: str, rows: int) -> None:
    """Insert 100 items with long texts, for a page of 4 MB, and so many more with names of English words."""
    long = "repeat(chr(128512), 10000)"
    words = "ARRAY['red','blue','steel','large','bronze','copper','kettle','table','lamp','chair','size','glaze','of']"
    parts = " || ' ' || ".join(f"({words})[1 + (random() * 12)::int]" for _ in range(4))
    # Indexes are built faster after the insert.
    indexes = asyncio.run(_indexes(url))
    for name in indexes:
        execute(url, f"DROP INDEX {name}")
    execute(url, f"INSERT INTO {TABLE} (name, description) SELECT 'long', {long} FROM generate_series(1, 100)")
    execute(url, f"INSERT INTO {TABLE} (name) SELECT {parts} || ' ' || n FROM generate_series(1, {rows}) AS n")
    for definition in indexes.values():
        execute(url, definition)
    execute(url, f"VACUUM ANALYZE {TABLE}")


async def _indexes(url: str) -> dict[str, str]:
    connection = await asyncpg.connect(url)
    try:
        query = "SELECT indexname, indexdef FROM pg_indexes WHERE tablename = $1 AND indexname LIKE 'ix%'"
        return {row["indexname"]: row["indexdef"] for row in await connection.fetch(query, TABLE)}
    finally:
        await connection.close()


def main() -> None:
    """Run the named attacks, or all, and print the results as JSON lines."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.item_attacks", description=__doc__)
    parser.add_argument("attacks", nargs="*", metavar="attack", help=f"some of: {', '.join(KINDS)}")
    chosen = {name: KINDS[name] for name in parser.parse_args().attacks or KINDS}
    with throw_away_cluster(
        {"max_connections": "100", "shared_buffers": "512MB", "maintenance_work_mem": "512MB"}
    ) as cluster:
        urls: dict[str, str] = {}
        for rows, number in (("few", 10_000), ("many", LARGE_ROWS)):
            if any(kind.rows == rows for kind in chosen.values()):
                owner = create_database(cluster, rows)
                migrate_as_owner(owner)
                _fill(owner, number)
                urls[rows] = as_role(owner, "items_app")
        for name, kind in chosen.items():
            print(json.dumps({"attack": name, **measure(kind, urls[kind.rows])}), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
