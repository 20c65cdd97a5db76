"""Sends random reads and writes of a few items at the same time, and checks what must hold for their answers."""

import asyncio
import itertools
import json
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.fuzz import item_values as values
from tests.processes.load import Client, Request, RequestResult
from tests.processes.scrape import Samples, scrape, total

PATH = "/items"

_CLIENTS = 8
_SHARED = 6
"""Items that all clients change."""

_JSON = ("Content-Type", "application/json")
_BY_THE_PARSER = {400, 413, 414, 431}
"""Statuses of malformed or oversized heads, whose answer may be plain text."""

_ORDERS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "id": lambda item: item["id"],
    "-id": lambda item: -item["id"],
    "updated_at": lambda item: (item["updated_at"], item["id"]),
}
"""The key by which a list is sorted, by the value of `sort`."""

_PROBLEM = {"type", "title", "status", "detail", "code", "request_id"}


@dataclass(slots=True)
class ApplicationFuzzer:
    """Clients of one server, and what they know of its items."""

    port: int
    seed: int
    findings: dict[str, str] = field(default_factory=dict)
    """An example of each kind."""

    counts: Counter[str] = field(default_factory=Counter)
    shared: list[int] = field(default_factory=list)
    tags: list[str] = field(default_factory=list)
    """The newest ETags."""

    cursors: list[str] = field(default_factory=list)
    _versions: dict[str, dict[str, Any]] = field(default_factory=dict)
    """The item that each ETag stands for."""

    _used: dict[str, RequestResult] = field(default_factory=dict)
    """The write that each ETag in an If-Match has permitted."""

    _keys: dict[str, tuple[int, Any]] = field(default_factory=dict)
    """The item and the content of each Idempotency-Key."""

    _deleted: dict[int, float] = field(default_factory=dict)
    """When the permanent deletion of an item was acknowledged."""

    _created: set[int] = field(default_factory=set)
    _numbers: Any = field(default_factory=itertools.count)

    def run(self, seconds: float) -> None:
        """Send requests for this time, then compare all items with what is known of them."""
        before = scrape(self.port)
        asyncio.run(self._run(seconds))
        after = scrape(self.port)
        self._compare_metrics(before, after)

    async def _run(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        async with asyncio.TaskGroup() as group:
            for number in range(_CLIENTS):
                group.create_task(self._client(Random(f"{self.seed}-{number}"), end))
        await self._walk()

    async def _client(self, choose: Random, end: float) -> None:
        client = Client(self.port, timeout_seconds=30)
        while time.monotonic() < end:
            if len(self.shared) < _SHARED:
                request, valid = self._create(choose, valid=True), True
            else:
                request, valid = self._request(choose)
            await self._send(client, request, valid=valid)
        client.close()

    async def _send(self, client: Client, request: Request, *, valid: bool) -> RequestResult:
        result = await client.send(next(self._numbers), request)
        self._check(result, valid=valid)
        return result

    def _request(self, choose: Random) -> tuple[Request, bool]:
        """A request, and whether it must succeed if no other client is in its way."""
        valid = choose.random() < 0.6
        item = (
            choose.choice(self.shared)
            if choose.random() < 0.95
            else choose.choice((0, 1, 2**63 - 1, 2**63, 10**30, -1))
        )
        kind = choose.choices(("create", "read", "change", "delete", "list", "other"), (15, 20, 30, 8, 20, 7))[0]
        if kind == "create":
            return self._create(choose, valid=valid), valid
        if kind == "read":
            headers = (("If-None-Match", values.tag_list(choose, self.tags)),) if choose.random() < 0.5 else ()
            return Request(
                method=choose.choice(("GET", "GET", "HEAD")), target=f"{PATH}/{item}", headers=headers
            ), False
        if kind == "change":
            return self._change(choose, item, valid=valid), False
        if kind == "delete":
            headers = (("If-Match", values.tag_list(choose, self.tags)),) if choose.random() < 0.5 else ()
            permanent = choose.choice(("", "", "?permanent=true", "?permanent=false", "?permanent=1"))
            return Request(method="DELETE", target=f"{PATH}/{item}{permanent}", headers=headers), False
        if kind == "list":
            target = f"{PATH}?{values.query(choose, self.cursors, self.tags)}"
            return Request(method=choose.choice(("GET", "GET", "GET", "HEAD")), target=target), False
        return self._other(choose, item), False

    @staticmethod
    def _create(choose: Random, *, valid: bool) -> Request:
        body = json.dumps(values.valid_item(choose)).encode() if valid else values.body(choose)
        headers = [_JSON]
        if choose.random() < 0.5:
            # Few keys for some time, so that retries and conflicts are frequent.
            headers.append(("Idempotency-Key", f"key-{choose.randrange(4)}-{int(time.monotonic() / 2)}"))
            if choose.random() < 0.7:
                body = b'{"name": "the same"}'
        return Request(method="POST", target=PATH, headers=tuple(headers), body=body)

    def _change(self, choose: Random, item: int, *, valid: bool) -> Request:
        content = values.valid_item(choose)
        method = choose.choice(("PUT", "PATCH"))
        if method == "PATCH":
            content = {name: content[name] for name in choose.sample(sorted(content), choose.randint(1, 3))}
        body = json.dumps(content).encode() if valid else values.body(choose)
        headers = [_JSON]
        if choose.random() < 0.7:
            own = [tag for tag in self.tags if self._versions[tag]["id"] == item][-2:]
            headers.append(("If-Match", values.tag_list(choose, own or self.tags)))
        return Request(method=method, target=f"{PATH}/{item}", headers=tuple(headers), body=body)

    @staticmethod
    def _other(choose: Random, item: int) -> Request:
        method = choose.choice(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))
        target = choose.choice(
            ("/", "/health", "/health/ready", "/nothing", f"{PATH}/", f"{PATH}/{item}/", f"{PATH}/{item}/x",
             f"{PATH}/%ff", f"{PATH}/1_0", f"{PATH}/+1", f"{PATH}/%201", f"{PATH}/a", "/docs",
             "/openapi.json", f"/{PATH}", "/..")
        )  # fmt: skip
        headers = choose.choice(
            ((), (_JSON,), (("Content-Type", "text/plain"),), (_JSON, ("Content-Encoding", "gzip")),
             (("Range", "bytes=0-"),), (("Range", "bytes=5-1"),), (("X-Request-ID", values.MARKER + "!"),),
             (("Origin", "http://a"),), (("Accept", "text/html"),))
        )  # fmt: skip
        return Request(method=method, target=target, headers=headers, body=values.body(choose)[:20_000])

    def _report(self, kind: str, result: RequestResult, detail: object = "") -> None:
        self.counts[f"finding: {kind}"] += 1
        if kind not in self.findings:
            answer = result.answer
            shown = f"{answer.status} {answer.headers} {answer.body[:600]!r}" if answer else result.failure
            self.findings[kind] = f"{result.request.encode(keep=True)[:1_500]!r}\n  {shown}\n  {detail}"

    def _check(self, result: RequestResult, *, valid: bool) -> None:
        answer, request = result.answer, result.request
        self.counts["requests"] += 1
        if answer is None:
            self._report(f"no answer: {result.failure}", result)
            return
        self.counts[f"answered {answer.status}"] += 1
        if "x-request-id" not in answer.headers:
            self._report("an answer has no request id", result)
        if answer.status >= 500 and not (request.target == "/health/ready" and answer.status == 503):
            self._report(f"answered {answer.status}", result)
        elif answer.status >= 400:
            self._check_problem(result)
            key = dict(request.headers).get("Idempotency-Key")
            if valid and not (answer.status == 422 and key is not None):
                self._report("a valid request was refused", result)
        elif request.target.startswith(PATH):
            self._check_success(result)

    def _check_problem(self, result: RequestResult) -> None:
        answer = result.answer
        assert answer
        if result.request.method == "HEAD":
            return
        shown = answer.body.decode() + str(
            {name: text for name, text in answer.headers.items() if name != "x-request-id"}
        )
        if values.MARKER in shown or "Traceback" in shown or "x-evil" in answer.headers:
            self._report("an error repeats the input", result)
        if (
            answer.status in _BY_THE_PARSER
            and answer.closes
            and answer.headers["content-type"].startswith("text/plain")
        ):
            return
        try:
            problem = json.loads(answer.body)
        except ValueError:
            self._report("an error is no problem document", result)
            return
        if not problem.keys() >= _PROBLEM or "application/problem+json" not in answer.headers["content-type"]:
            self._report("an error is no problem document", result)
        elif problem["request_id"] != answer.headers.get("x-request-id") or problem["status"] != answer.status:
            self._report("a problem has another id or status", result)
        if answer.status == 412 and "If-Match" not in dict(result.request.headers):
            self._report("412 without If-Match", result)

    def _check_success(self, result: RequestResult) -> None:
        answer, request, headers = result.answer, result.request, dict(result.request.headers)
        assert answer
        path = urlsplit(request.target).path
        tag = answer.headers.get("etag")
        if answer.status == 304:
            if tag is None or (tag not in headers["If-None-Match"] and "*" not in headers["If-None-Match"]):
                self._report("304 for another version", result)
            return
        if request.method == "HEAD":
            return
        if answer.status == 204:
            if request.target.endswith("permanent=true"):
                self._gone(int(path.removeprefix(f"{PATH}/")), result)
            return
        body = json.loads(answer.body)
        if path == PATH and request.method == "GET":
            self._check_list(result, body)
            return
        self._learn(result, body, tag)
        if answer.status == 201:
            self._check_creation(result, body)
        elif request.method == "GET" and result.started > self._deleted.get(body["id"], result.started):
            self._report("a deleted item is read", result)
        if request.method in {"PUT", "PATCH"}:
            self._check_change(result, body, tag)

    def _learn(self, result: RequestResult, body: dict[str, Any], tag: str | None) -> None:
        """Remember the version. The same ETag must always stand for the same item."""
        if tag is None:
            self._report("an item has no ETag", result)
        elif self._versions.setdefault(tag, body) != body:
            self._report("one ETag for two versions", result, self._versions[tag])
        else:
            self.tags = [*self.tags[-40:], tag]

    def _check_creation(self, result: RequestResult, body: dict[str, Any]) -> None:
        assert result.answer
        key = dict(result.request.headers).get("Idempotency-Key")
        content = body["name"], body["description"], body["price"], body["is_active"]
        if result.answer.headers.get("location") != f"{PATH}/{body['id']}":
            self._report("a wrong Location", result)
        if key is not None:
            known = self._keys.setdefault(key, (body["id"], content))
            if known != (body["id"], content):
                self._report("two items for one Idempotency-Key", result, known)
        elif body["id"] in self._created:
            self._report("one item for two creations", result)
        self._created.add(body["id"])
        if len(self.shared) < _SHARED and body["id"] not in self.shared and body["id"] not in self._deleted:
            self.shared.append(body["id"])
        sent = json.loads(result.request.body)
        if isinstance(sent["name"], str) and sent["name"].strip() != body["name"].strip():
            self._report("an item is stored with another name", result)

    def _check_change(self, result: RequestResult, body: dict[str, Any], tag: str | None) -> None:
        condition = dict(result.request.headers).get("If-Match")
        if condition == tag:
            self._report("a write keeps the ETag", result)
        if condition in self._versions:
            if condition in self._used:
                self._report("two writes after one version", result, self._used[condition])
            if self._versions[condition]["id"] != body["id"]:
                self._report("the ETag of another item permits a write", result)
            self._used[condition] = result
        sent = json.loads(result.request.body)
        for name in ("price", "is_active"):
            if name in sent and (sent[name] or 0) != (body[name] or 0):
                self._report("a change was not carried out", result)

    def _check_list(self, result: RequestResult, body: dict[str, Any]) -> None:
        query = {
            name: texts[-1]
            for name, texts in parse_qs(urlsplit(result.request.target).query, keep_blank_values=True).items()
        }
        ids = [item["id"] for item in body["items"]]
        if len(ids) != len(set(ids)) or body["items"] != sorted(body["items"], key=_ORDERS[query.get("sort", "id")]):
            self._report("a list is not in order", result)
        if len(ids) > int(query.get("per_page", "20")) and "ids" not in query:
            self._report("a page is too long", result)
        if query.get("is_active") in {"true", "false"} and any(
            item["is_active"] != (query["is_active"] == "true") for item in body["items"]
        ):
            self._report("a list has an item that its filter excludes", result)
        text = query.get("q", "")
        names = [f"{item['name'].lower()} {item['name'].casefold()}" for item in body["items"]]
        if text.isascii() and any(text.lower() not in name for name in names):
            self._report("a list has an item that its search excludes", result)
        if body["next_cursor"] is not None:
            self.cursors = [*self.cursors[-20:], body["next_cursor"]]

    def _gone(self, item: int, result: RequestResult) -> None:
        if item in self._deleted:
            self._report("one item was deleted twice", result)
        self._deleted[item] = result.started + result.seconds
        self.shared = [one for one in self.shared if one != item]

    async def _walk(self) -> None:
        """Read all items with cursors: each creation that was not deleted is there once, in its newest version."""
        client = Client(self.port)
        found: list[int] = []
        target: str | None = f"{PATH}?per_page=100"
        while target:
            result = await self._send(client, Request(target=target), valid=True)
            if result.answer is None or result.answer.status != 200:
                break
            body = json.loads(result.answer.body)
            found += [item["id"] for item in body["items"]]
            cursor = body["next_cursor"]
            target = f"{PATH}?per_page=100&cursor={cursor}" if cursor else None
            if self._created - self._deleted.keys() != set(found) and target is None:
                missing = self._created - self._deleted.keys() - set(found)
                more = set(found) - (self._created - self._deleted.keys())
                self._report("the items are not those that were created", result, f"missing {missing}, more {more}")
            if len(found) != len(set(found)):
                self._report("a walk meets an item twice", result)
        self.counts["items"] = len(found)
        for item in found[-200:]:
            await self._send(client, Request(target=f"{PATH}/{item}"), valid=True)
        client.close()

    def _compare_metrics(self, before: Samples, after: Samples) -> None:
        for status in {int(name.split()[1]) for name in self.counts if name.startswith("answered ")}:
            labels = {"status": str(status)}
            counted = total(after, "http_requests_total", labels) - total(before, "http_requests_total", labels)
            # Each scrape after the first is counted by the next one.
            expected = self.counts[f"answered {status}"] + (1 if status == 200 else 0)
            if counted != expected:
                self.findings[f"metrics count another number of {status}"] = f"{counted}, not {expected}"
