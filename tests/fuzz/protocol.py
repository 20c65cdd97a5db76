"""Sends changed HTTP requests to the real service, and compares what it answered, did, logged and counted."""

import asyncio
import json
import os
import re
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import psutil

from tests.fuzz import parsing
from tests.fuzz.exchange import LEAVING_ADDRESS, Exchange, run_all
from tests.fuzz.findings import Findings
from tests.fuzz.grammar import FIRST_ID, MAX_REQUESTS, PATH, script
from tests.fuzz.parsing import Answer, Parsed, Requests
from tests.processes.scrape import fetch, scrape
from tests.processes.server import Server, eventually

_SCRIPTS_PER_ROUND = 300
_CONNECTIONS = 48
_RECEIVE_SECONDS = 5
_QUIET_SECONDS = 60.0
"""Longer than any timeout of the server below."""
_VALID_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
_STATEMENTS = """
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND state <> 'idle' AND pid <> pg_backend_pid() AND backend_type = 'client backend'
"""


def server(url: str) -> Server:
    """The service with two workers and short timeouts. Waits for the database are long: the load is no fault."""
    environment = {
        "DATABASE_URL": url,
        "WEB_CONCURRENCY": "2",
        "RATE_LIMIT_ENABLED": "false",
        "REQUEST_RECEIVE_SECONDS": str(_RECEIVE_SECONDS),
        "KEEP_ALIVE_SECONDS": "0.5",
        "DATABASE_WAIT_SECONDS": "20",
        "DATABASE_STATEMENT_SECONDS": "20",
        "WORKER_TIMEOUT_SECONDS": "120",
        "LOG_LEVEL": "debug",
    }
    return Server(app="tests.sample.app:create_app()", environment=environment)


@dataclass(frozen=True, slots=True)
class Judged:
    """A whole request as h11 found it, its answer if there was one, and the exchange that it belongs to."""

    request: Parsed
    answer: Answer | None
    exchange: Exchange

    @property
    def may_have_happened(self) -> bool:
        """Whether a write may be in the database: it was acknowledged, or its client left."""
        return self.exchange.script.leaves or (self.answer is not None and self.answer.status < 300)


class ProtocolFuzzer:
    """Rounds of scripts against one server."""

    def __init__(self, running: Server, url: str, seed: int) -> None:
        self.server = running
        self.seed = seed
        self.findings = Findings()
        self.counts: Counter[str] = Counter()
        self._url = url
        self._read_bytes = 0

    def run(self, seconds: float) -> None:
        """Run rounds until the time is over."""
        workers = self.server.serving_workers()
        end, first = time.monotonic() + seconds, 0
        while time.monotonic() < end:
            self._round(first)
            first += _SCRIPTS_PER_ROUND
        if self.server.serving_workers() != workers:
            self.findings.add("a worker was replaced", None, f"{workers}, then {self.server.serving_workers()}")
        if fetch(self.server.port, "/health")[0] != 200:
            self.findings.add("the service does not answer", None, "GET /health")

    def _round(self, first: int) -> None:
        """Run the scripts from this index on, and judge them."""
        count = _SCRIPTS_PER_ROUND
        asyncio.run(self._execute("DELETE FROM samples"))
        asyncio.run(
            self._execute(
                f"INSERT INTO samples (id, name) OVERRIDING SYSTEM VALUE "
                f"SELECT {FIRST_ID + first * MAX_REQUESTS} + n, 'untouched' "
                f"FROM generate_series(0, {count * MAX_REQUESTS - 1}) AS n"
            )
        )
        self._lines()
        before = self._counted()
        scripts = [script(self.seed, index) for index in range(first, first + count)]
        exchanges = asyncio.run(run_all(self.server.port, scripts, connections=_CONNECTIONS))
        self._wait_until_quiet()
        judged = [one for exchange in exchanges for one in self._judge_answers(exchange)]
        self._judge_rows(judged, first)
        self._judge_records(exchanges, judged, before)
        self.counts["connections"] += len(exchanges)
        self.counts["requests"] += len(judged)
        self.counts["answers"] += sum(one.answer is not None for one in judged)

    def _judge_answers(self, exchange: Exchange) -> Iterator[Judged]:
        """Compare the answers on one connection with the requests on it."""
        found = parsing.requests(exchange.script.sent)
        if exchange.script.leaves:
            yield from (Judged(request, None, exchange) for request in found.whole)
            return
        answers, rest = parsing.answers(exchange.received, [request.method for request in found.whole])
        # What follows a request that says `Connection: close` may be met by a reset.
        if exchange.end != "closed" and not (exchange.end == "reset" and found.end == "closed"):
            self.findings.add(f"the connection was {exchange.end}", exchange, f"after {exchange.seconds:.1f} s")
        if rest:
            self.findings.add("the client received a part of an answer", exchange, repr(rest[:200]))
        for answer in answers:
            self.counts[f"answered {answer.status}"] += 1
            if answer.status >= 500 and answer.status != 505:
                self.findings.add(
                    f"the client made the service answer {answer.status}", exchange, repr(answer.body[:200])
                )
        self._judge_order(exchange, found, answers)
        for number, request in enumerate(found.whole):
            yield Judged(request, answers[number] if number < len(answers) else None, exchange)

    def _judge_order(self, exchange: Exchange, found: Requests, answers: list[Answer]) -> None:
        statuses = [answer.status for answer in answers]
        for request, answer in zip(found.whole, answers, strict=False):
            wanted = request.headers.get("x-request-id", "")
            if _VALID_ID.fullmatch(wanted) and answer.status < 400 and answer.request_id != wanted:
                self.findings.add("an answer belongs to another request", exchange, f"{wanted}: {answer}")
        if any(answer.closes for answer in answers[:-1]):
            self.findings.add("there is an answer after the last one", exchange, f"{statuses}")
        extra = answers[len(found.whole) :]
        if len(extra) > 1 or any(answer.status < 400 for answer in extra):
            self.findings.add("a request was answered that another parser does not find", exchange, f"{statuses}")
        if len(answers) < len(found.whole) and not (answers and answers[-1].closes):
            self.findings.add("a whole request was not answered", exchange, f"{statuses} for {len(found.whole)}")
        was_slow = 408 in statuses and exchange.seconds >= _RECEIVE_SECONDS  # on a busy machine
        if exchange.script.statuses is not None and statuses != list(exchange.script.statuses) and not was_slow:
            self.findings.add("a valid request was not served", exchange, f"{statuses}, not {exchange.script.statuses}")

    def _judge_rows(self, judged: list[Judged], first: int) -> None:
        """Compare the writes with the database: none refused and carried out, none acknowledged and lost."""
        rows = {row["id"]: row for row in asyncio.run(self._fetch("SELECT id, name FROM samples"))}
        writes: dict[int, list[Judged]] = defaultdict(list)
        created: list[Judged] = []
        for one in judged:
            path = urlsplit(one.request.target).path
            if one.request.method == "POST":
                created.append(one)
            elif match := re.fullmatch(PATH + r"/(\d+)", path):
                writes[int(match[1])].append(one)
        scripts = {one.exchange.script.index: one.exchange for one in judged}
        for index in range(first, first + _SCRIPTS_PER_ROUND):
            for number in range(MAX_REQUESTS):
                sample = FIRST_ID + index * MAX_REQUESTS + number
                self._judge_row(rows.pop(sample, None), writes[sample], scripts.get(index), sample)
        self._judge_created(rows, created, writes)

    def _judge_row(
        self, row: asyncpg.Record | None, writes: list[Judged], exchange: Exchange | None, sample: int
    ) -> None:
        changed = row is None or row["name"] != "untouched"
        self.counts["changed"] += changed
        if changed and not any(one.may_have_happened for one in writes):
            self.findings.add("a refused request was carried out", exchange, f"sample {sample} is now {row}")
        for one in writes:
            if one.answer is None or one.answer.status >= 300 or one.request.method not in {"PUT", "PATCH", "DELETE"}:
                continue
            if not changed or (row is not None and one.request.method == "DELETE"):
                self.findings.add(
                    "an acknowledged request was not carried out", one.exchange, f"sample {sample}: {row}"
                )

    def _judge_created(
        self, rows: dict[int, asyncpg.Record], created: list[Judged], writes: dict[int, list[Judged]]
    ) -> None:
        """Compare the creations with the rows that are not among those that the round began with."""
        owners = self._acknowledged(created)
        self.counts["created"] += len(owners)
        for sample, one in owners.items():
            row = rows.get(sample)
            if writes[sample]:
                continue  # A changed request has named it by chance.
            if row is None:
                self.findings.add("an acknowledged creation is not stored", one.exchange, f"sample {sample}")
            elif row["name"] != parsing.name_in(one.request.body):
                self.findings.add("a sample is stored with another name", one.exchange, f"{row}")
        unknown = Counter(parsing.name_in(one.request.body) for one in created if one.exchange.script.leaves)
        exchanges = {one.exchange.script.index: one.exchange for one in created}
        for sample, row in rows.items():
            if sample in owners:
                continue
            unknown[row["name"]] -= 1
            if unknown[row["name"]] < 0:
                index = re.fullmatch(r"\w+-(\d+)-\d+", row["name"])
                exchange = exchanges.get(int(index[1])) if index else None
                self.findings.add("a refused creation was carried out", exchange, f"{row}")

    def _acknowledged(self, created: list[Judged]) -> dict[int, Judged]:
        """The creation that each acknowledged sample belongs to."""
        owners: dict[int, Judged] = {}
        for one in created:
            if one.answer is None or one.answer.status != 201:
                continue
            sample = int(json.loads(one.answer.body)["id"])
            key = one.request.headers.get("idempotency-key")
            if sample in owners and (key is None or key != owners[sample].request.headers.get("idempotency-key")):
                self.findings.add("one row for two creations", one.exchange, f"sample {sample}")
            owners[sample] = one
        return owners

    def _judge_records(self, exchanges: list[Exchange], judged: list[Judged], before: Counter[tuple[str, str]]) -> None:
        """Compare the answers with the log lines, and the log lines with the metrics."""
        lines = self._lines()
        served = [line for line in lines if line.get("event") == "request_served" and line["path"] != "/metrics"]
        for line in lines:
            if (
                line.get("event") == "request_crashed"
                or line.get("level") in {"error", "critical"}
                or "exception" in line
            ):
                self.findings.add("the log has an error", self._exchange(exchanges, line), json.dumps(line)[:1_000])
        logged = Counter((line["route"], str(line["status"])) for line in served)
        counted = self._counted()
        counted.subtract(before)
        for key in sorted(logged.keys() | counted.keys()):
            if logged[key] != counted[key]:
                self.findings.add(
                    "metrics and log differ", None, f"{key}: {counted[key]} counted, {logged[key]} logged"
                )
        for (_, status), count in logged.items():
            if status.startswith("5") and status != "505" and count:
                examples = [line for line in served if str(line["status"]) == status]
                self.findings.add(
                    f"the client made the service log {status}",
                    self._exchange(exchanges, examples[0]),
                    f"{examples[0]}",
                )
        # The address of a client that left before the server accepted it is not known.
        self._judge_lines(exchanges, [line for line in served if line["client"] not in {None, LEAVING_ADDRESS}])

    def _judge_lines(self, exchanges: list[Exchange], lines: list[dict[str, Any]]) -> None:
        written = Counter((line["request_id"], line["status"]) for line in lines)
        owners: dict[tuple[str | None, int], Exchange] = {}
        answered: Counter[tuple[str | None, int]] = Counter()
        for exchange in exchanges:
            if exchange.script.leaves:
                continue
            methods = [request.method for request in parsing.requests(exchange.script.sent).whole]
            for answer in parsing.answers(exchange.received, methods)[0]:
                key = answer.request_id, answer.status
                answered[key] += 1
                owners[key] = exchange
        for answered_key, count in answered.items():
            request_id, status = answered_key
            if request_id is None:
                self.findings.add("an answer has no request id", owners[answered_key], f"{status}", count=count)
            elif written[request_id, status] != count:
                self.findings.add(
                    "an answer has no log line of its own", owners[answered_key], f"{request_id}: {status}"
                )
        for (written_id, status), count in written.items():
            if status == 499:
                continue  # The client closed its side before the request was whole.
            if answered[written_id, status] != count:
                line = next(line for line in lines if line["request_id"] == written_id)
                self.findings.add("a log line has no answer", self._exchange(exchanges, line), f"{line}")

    @staticmethod
    def _exchange(exchanges: list[Exchange], line: dict[str, Any]) -> Exchange | None:
        match = re.fullmatch(r"f-(\d+)-\d+", str(line.get("request_id")))
        return next((one for one in exchanges if match and one.script.index == int(match[1])), None)

    def _counted(self) -> Counter[tuple[str, str]]:
        """The requests that the metrics count, by route and status."""
        found: Counter[tuple[str, str]] = Counter()
        for (name, labels), value in scrape(self.server.port).items():
            have = dict(labels)
            if name == "http_requests_total" and have["handler"] != "/metrics":
                found[have["handler"], have["status"]] += int(value)
        return found

    def _lines(self) -> list[dict[str, Any]]:
        """The log lines since the last call."""
        descriptor = self.server._output.fileno()
        written = os.pread(descriptor, 200_000_000, self._read_bytes)
        whole = written[: written.rfind(b"\n") + 1]
        self._read_bytes += len(whole)
        found = []
        for line in whole.splitlines():
            try:
                found.append(json.loads(line))
            except json.JSONDecodeError:
                self.findings.add("a line of the output is no JSON", None, repr(line[:300]))
        return found

    def _wait_until_quiet(self) -> None:
        """Wait until no connection is open, no statement runs, and the log is written."""

        def open_connections() -> int:
            return sum(
                connection.status == psutil.CONN_ESTABLISHED and connection.laddr.port == self.server.port
                for pid in self.server.workers()
                for connection in psutil.Process(pid).net_connections("tcp")
            )

        try:
            eventually(lambda: open_connections() == 0, seconds=_QUIET_SECONDS, what="all connections closed")
        except AssertionError:
            self.findings.add("a connection stays open", None, f"{open_connections()} connections")
        for _ in range(2):
            eventually(
                lambda: asyncio.run(self._fetch(_STATEMENTS))[0]["count"] == 0,
                seconds=_QUIET_SECONDS,
                what="no statement runs",
            )
            time.sleep(0.2)

    async def _execute(self, statement: str) -> None:
        connection = await asyncpg.connect(self._url, user="postgres")
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    async def _fetch(self, query: str) -> list[asyncpg.Record]:
        connection = await asyncpg.connect(self._url, user="postgres")
        try:
            return list(await connection.fetch(query))
        finally:
            await connection.close()
