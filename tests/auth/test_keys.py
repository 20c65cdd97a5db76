"""The issuer's keys, with an issuer that rotates and fails."""

import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace

import anyio
import pytest

from app.auth import keys as keys_module
from app.auth.authenticator import Authenticator
from app.auth.fetching import Fetched, FetchError, IssuerClient
from app.auth.key_set import KeySet
from app.auth.keys import IssuerKeys
from app.auth.refusal import TokenRefusedError
from app.auth.shared_keys import SharedKeys
from tests.issuer.server import DISCOVERY, ELSEWHERE, FAULTS, KEYS, Issuer
from tests.issuer.tokens import AUDIENCE, make_key

pytestmark = pytest.mark.anyio


class Recorder:
    """Receives what the keys report."""

    def __init__(self) -> None:
        self.outcomes: list[bool] = []
        self.reports: list[str] = []
        self.shared: list[float] = []

    def auth_opened(self, outcomes: object) -> None:
        """Requests need tokens."""

    def auth_decided(self, outcome: str) -> None:
        """A request was decided."""

    def auth_keys_fetched(self, *, succeeded: bool) -> None:
        """A fetch has ended."""
        self.outcomes.append(succeeded)

    def auth_keys_shared(self, fetched_at: float) -> None:
        """Keys of another worker are used."""
        self.shared.append(fetched_at)

    def replace(self, report: str) -> bool:
        """Every report is a new one."""
        self.reports.append(report)
        return True


def authenticator(issuer: Issuer, recorder: Recorder, folder: Path | None = None) -> Authenticator:
    """Verifies tokens of this issuer."""
    return Authenticator(
        issuer=issuer.url,
        audience=AUDIENCE,
        jwks_url=None,
        observer=recorder,
        shared_folder=folder,
        keys_report=recorder,
        fetch_report=recorder,
    )


async def eventually(condition: Callable[[], bool]) -> None:
    """Wait until it is true."""
    with anyio.fail_after(30):
        while not condition():  # noqa: ASYNC110  # nothing reports it
            await anyio.sleep(0.02)


@asynccontextmanager
async def client(issuer: str, jwks_url: str | None = None) -> AsyncIterator[IssuerClient]:
    """An open client."""
    running = IssuerClient(issuer, jwks_url)
    async with running.opened():
        yield running


async def test_keys_by_discovery_and_by_their_own_address(issuer, key):
    """Both find the same keys. Without discovery only the keys are asked for."""
    for jwks_url in (None, issuer.url + KEYS):
        issuer.asked.clear()
        async with client(issuer.url, jwks_url) as running:
            assert [key.key_id] == (await running.fetch()).keys.key_ids
        assert (jwks_url is None) == issuer.count(DISCOVERY)


@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault not in {"frozen", "dripping"}])
async def test_each_fault_of_the_issuer_is_named(issuer, fault):
    """The message says what was asked, and what came. Nothing else is asked."""
    issuer.fault = fault
    async with client(issuer.url) as running:
        with pytest.raises(FetchError, match=f"^{issuer.url}/.+ .+"):
            await running.fetch()

    assert 0 == issuer.count(ELSEWHERE)


@pytest.mark.parametrize("fault", ["frozen", "dripping"])
async def test_a_slow_issuer_is_left(issuer, fault, monkeypatch):
    """However slowly it sends, the time of the whole answer counts."""
    monkeypatch.setattr("app.auth.fetching.SECONDS", 0.3)
    issuer.fault = fault
    async with client(issuer.url) as running:
        with pytest.raises(FetchError, match="has not answered within"):
            await running.fetch()


@pytest.mark.parametrize(
    "jwks_uri",
    ["http://keys.example.com/keys", "file://keys.example.com/keys", "https://a:b@example.com/", "", None, 1],
)
async def test_an_unsafe_address_of_keys_is_refused(issuer, monkeypatch, jwks_uri):
    """Discovery may not lead to where another machine could answer."""
    document = b'{"issuer": "%s", "jwks_uri": %s}'
    written = "null" if jwks_uri is None else f'"{jwks_uri}"' if isinstance(jwks_uri, str) else str(jwks_uri)
    monkeypatch.setattr(issuer, "answer", lambda path: document % (issuer.url.encode(), written.encode()))
    async with client(issuer.url) as running:
        with pytest.raises(FetchError, match=r"jwks_uri in .* must be a URL"):
            await running.fetch()


class Source:
    """Keys that a test chooses, without a network."""

    def __init__(self, *keys: KeySet | Exception, max_age: float | None = None) -> None:
        self.answers: list[KeySet | Exception] = list(keys)
        self.max_age = max_age
        self.fetches = 0

    async def fetch(self) -> Fetched:
        """Return the next answer; the last one is repeated."""
        self.fetches += 1
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return Fetched(answer, self.max_age)


def key_set(*key_ids: str) -> KeySet:
    """A set of keys with these ids."""
    return KeySet.parse(json.dumps({"keys": [make_key(key_id, "EdDSA").jwk for key_id in key_ids]}).encode())


def issuer_keys(source: Source, recorder: Recorder, folder: Path | None = None) -> IssuerKeys:
    """The keys of this source."""
    return IssuerKeys(
        source,
        recorder,
        shared=SharedKeys(folder, issuer="https://issuer.example.com", jwks_url=None),
        keys_report=recorder,
        fetch_report=recorder,
        changed=lambda _: None,
    )


async def test_unknown_keys_cause_one_fetch_in_ten_seconds(monkeypatch):
    """However many tokens ask, and the fetch that comes finds a rotated key."""
    source, recorder = Source(key_set("a"), key_set("a", "b")), Recorder()
    keys = issuer_keys(source, recorder)
    async with keys.opened():
        for number in range(1000):
            assert keys.find(f"unknown-{number}") is None
        await anyio.sleep(0.05)
        assert 1 == source.fetches

        later = time.monotonic() + 10
        monkeypatch.setattr(keys_module, "time", SimpleNamespace(monotonic=lambda: later))
        for _ in range(1000):
            assert keys.find("b") is None
        await eventually(lambda: keys.find("b") is not None)
        for number in range(1000):
            assert keys.find(f"unknown-{number}") is None
        await anyio.sleep(0.05)

    assert 2 == source.fetches
    assert ["['a']", "['a', 'b']"] == recorder.reports


class SlowSource(Source):
    """Keys that come when the test says so."""

    def __init__(self, *keys: KeySet) -> None:
        super().__init__(*keys)
        self.answering = anyio.Event()

    async def fetch(self) -> Fetched:
        """Return the next answer, after the first one only when `answering` is set."""
        fetched = await super().fetch()
        if self.fetches > 1:
            await self.answering.wait()
        return fetched


async def test_requests_with_unknown_keys_wait_for_one_fetch():
    """Those that come before it begins and those that come while it runs. After it nobody waits."""
    source = SlowSource(key_set("a"), key_set("a", "b"))
    keys, ended = issuer_keys(source, Recorder()), []

    async def wait() -> None:
        assert keys.find("b") is None
        ended.append(await keys.wait_for_fetch())
        assert keys.find("b") is not None

    async with keys.opened():
        assert not await keys.wait_for_fetch()
        keys._last_start -= 10
        async with anyio.create_task_group() as tasks:
            for _ in range(50):
                tasks.start_soon(wait)
            await eventually(lambda: source.fetches == 2)
            for _ in range(50):
                tasks.start_soon(wait)
            await anyio.sleep(0.05)
            assert [] == ended
            source.answering.set()
        began = time.monotonic()
        assert keys.find("c") is None
        assert not await keys.wait_for_fetch()

    assert time.monotonic() - began < 0.5
    assert [True] * 100 == ended
    assert 2 == source.fetches


async def test_the_wait_for_a_fetch_is_bounded(monkeypatch):
    """A fetch that does not end is left after a second, also by those that come later."""
    monkeypatch.setattr(keys_module, "UNKNOWN_KEY_WAIT_SECONDS", 0.1)
    source = SlowSource(key_set("a"))
    keys = issuer_keys(source, Recorder())
    async with keys.opened():
        keys._last_start -= 10
        assert keys.find("b") is None
        with anyio.fail_after(5):
            assert not await keys.wait_for_fetch()
            assert not await keys.wait_for_fetch()
    assert 2 == source.fetches


async def test_keys_are_kept_for_a_day(monkeypatch, lines):
    """While the issuer fails they are used, one line says it, and after a day they are not."""
    monkeypatch.setattr(keys_module, "_FIRST_RETRY_SECONDS", 0.01)
    monkeypatch.setattr(keys_module, "SHORTEST_SECONDS", 0.01)
    source, recorder = Source(key_set("a"), max_age=0), Recorder()
    source.answers.append(FetchError("It is away."))
    keys = issuer_keys(source, recorder)
    async with keys.opened():
        await eventually(lambda: recorder.outcomes.count(False) >= 3)
        assert keys.are_usable
        assert keys.find("a") is not None
        with monkeypatch.context() as patch:
            later = time.monotonic() + 86_401
            patch.setattr(keys_module, "time", SimpleNamespace(monotonic=lambda: later))
            assert not keys.are_usable
        source.answers = [key_set("a")]
        await eventually(lambda: "ok" in recorder.reports)

    events = [(line["event"], line["level"]) for line in lines() if line["event"].startswith("auth_keys_fetch_")]
    assert [("auth_keys_fetch_failed", "warning"), ("auth_keys_fetch_recovered", "info")] == events


async def test_a_defect_does_not_end_the_fetches(monkeypatch, lines):
    """It is logged with its traceback, and the next fetch is made."""
    monkeypatch.setattr(keys_module, "_FIRST_RETRY_SECONDS", 0.01)
    source, recorder = Source(key_set("a")), Recorder()
    source.answers.insert(0, RuntimeError("broken"))
    keys = issuer_keys(source, recorder)
    async with keys.opened():
        await eventually(lambda: keys.are_usable)

    assert [False, True] == recorder.outcomes
    (crash,) = [line for line in lines() if line["event"] == "auth_keys_fetch_crashed"]
    assert "broken" in crash["exception"]


@pytest.mark.parametrize(("max_age", "seconds"), [(None, 600), (5, 60), (0, 60), (300, 300), (86_400, 600)])
async def test_the_time_to_the_next_fetch(max_age, seconds):
    """The issuer's `max-age`, at least a minute and at most ten, and a little less."""
    keys = issuer_keys(Source(key_set("a"), max_age=max_age), Recorder())

    for _ in range(20):
        assert 0.9 * seconds <= await keys._fetch() <= seconds


async def test_the_age_that_the_issuer_allows(issuer):
    """It is read from the answer with the keys."""
    issuer.max_age = 120
    async with client(issuer.url) as running:
        assert 120 == (await running.fetch()).max_age


async def test_a_token_is_verified_once_until_its_key_is_gone(issuer, key, monkeypatch):
    """It is remembered by itself alone, and forgotten with its key, although it has not expired."""
    recorder = Recorder()
    checks = authenticator(issuer, recorder)
    token = key.token(issuer.url).encode()
    async with checks.opened():
        assert checks.recall(token) is None
        principal = checks.verify(token)
        assert principal is checks.recall(token)
        assert checks.recall(token[:-1]) is None

        other = make_key("other", "EdDSA")
        issuer.keys.append(other.jwk)
        await checks._keys._fetch()
        assert principal is checks.recall(token)

        issuer.keys.pop(0)
        await checks._keys._fetch()
        assert checks.recall(token) is None
        with pytest.raises(TokenRefusedError, match="no usable key"):
            checks.verify(token)


async def test_a_remembered_token_expires(issuer, key, monkeypatch):
    """At its `exp`, and what the clocks may differ."""
    checks = authenticator(issuer, Recorder())
    token = key.token(issuer.url).encode()
    async with checks.opened():
        checks.verify(token)
        later = time.time() + 331
        for module in ("authenticator", "claims"):
            monkeypatch.setattr(f"app.auth.{module}.time", SimpleNamespace(time=lambda: later))

        assert checks.recall(token) is None
        with pytest.raises(TokenRefusedError, match="expired"):
            checks.verify(token)


async def test_a_worker_remembers_so_many_tokens(issuer, key, monkeypatch):
    """Those that were not used for the longest time are forgotten."""
    monkeypatch.setattr("app.auth.authenticator.MAX_REMEMBERED", 2)
    checks = authenticator(issuer, Recorder())
    first, second, third = (key.token(issuer.url, jti=str(number)).encode() for number in range(3))
    async with checks.opened():
        checks.verify(first)
        checks.verify(second)
        checks.recall(first)
        checks.verify(third)

        assert [True, False, True] == [checks.recall(token) is not None for token in (first, second, third)]


async def test_without_keys_nothing_is_remembered(issuer, key, monkeypatch):
    """Keys that are too old verify no new token, and none that was verified with them."""
    checks = authenticator(issuer, Recorder())
    token = key.token(issuer.url).encode()
    async with checks.opened():
        checks.verify(token)
        later = time.monotonic() + 86_401
        monkeypatch.setattr(keys_module, "time", SimpleNamespace(monotonic=lambda: later))

        assert not checks.is_available
        assert checks.recall(token) is None
        with pytest.raises(TokenRefusedError, match="too old"):
            checks.verify(token)


async def test_a_start_waits_only_briefly_for_the_issuer(issuer, monkeypatch):
    """An issuer that does not answer does not stop the start."""
    monkeypatch.setattr(keys_module, "FIRST_SECONDS", 0.1)
    issuer.fault = "frozen"
    checks = authenticator(issuer, Recorder())
    with anyio.fail_after(4):
        async with checks.opened():
            assert not checks.is_available


AWAY = FetchError("It is away.")


class NeverAnswering(Source):
    """An issuer that accepts connections and does not answer."""

    async def fetch(self) -> Fetched:
        """Wait."""
        await anyio.sleep_forever()
        raise AssertionError


@pytest.mark.parametrize("source", [Source(AWAY), NeverAnswering(AWAY)], ids=["refusing", "frozen"])
async def test_a_worker_that_starts_without_its_issuer_uses_the_keys_of_another(source, tmp_path, monkeypatch, lines):
    """They are as old as their fetch, one line says so, and the metrics get the time of the fetch."""
    monkeypatch.setattr(keys_module, "FIRST_SECONDS", 0.1)
    began, keys = time.time(), key_set("a", "b")
    async with issuer_keys(Source(keys), Recorder(), tmp_path).opened():
        pass
    an_hour_later = time.time() + 3600
    monkeypatch.setattr("app.auth.shared_keys.time", SimpleNamespace(time=lambda: an_hour_later))
    recorder = Recorder()
    starting = issuer_keys(source, recorder, tmp_path)
    async with starting.opened():
        assert starting.are_usable
        assert keys.keys[1] == starting.find("b")
        for hours, are_usable in [(22.9, True), (23.1, False)]:
            with monkeypatch.context() as patch:
                later = time.monotonic() + hours * 3600
                patch.setattr(keys_module, "time", SimpleNamespace(monotonic=lambda later=later: later))
                assert are_usable == starting.are_usable

    assert 1 == len(recorder.shared)
    assert began <= recorder.shared[0] <= time.time()
    (line,) = [line for line in lines() if line["event"] == "auth_keys_shared"]
    assert ("info", ["a", "b"], 3600) == (line["level"], line["key_ids"], line["age_seconds"])


async def test_own_keys_replace_those_of_another_worker(tmp_path, monkeypatch):
    """As soon as the issuer answers. Keys that stay are the same objects, so that their tokens stay remembered."""
    monkeypatch.setattr(keys_module, "_FIRST_RETRY_SECONDS", 0.01)
    before, now = key_set("a", "b"), key_set("c")
    async with issuer_keys(Source(before), Recorder(), tmp_path).opened():
        pass
    source, recorder = Source(AWAY), Recorder()
    starting = issuer_keys(source, recorder, tmp_path)
    async with starting.opened():
        kept = starting.find("a")
        assert kept is not None
        source.answers = [KeySet((*before.keys[:1], *now.keys))]
        await eventually(lambda: starting.find("c") is not None)
        assert kept is starting.find("a")
        assert starting.find("b") is None

    assert 1 == len(recorder.shared)
    assert "ok" in recorder.reports


async def test_keys_that_another_worker_gets_later_are_used(tmp_path, monkeypatch):
    """An issuer that answers one worker serves them all."""
    monkeypatch.setattr(keys_module, "_FIRST_RETRY_SECONDS", 0.01)
    starting = issuer_keys(Source(AWAY), Recorder(), tmp_path)
    async with starting.opened():
        assert not starting.are_usable
        async with issuer_keys(Source(key_set("a")), Recorder(), tmp_path).opened():
            await eventually(lambda: starting.are_usable)


async def test_keys_of_another_worker_that_are_too_old(tmp_path, monkeypatch):
    """A day after their fetch nobody uses them."""
    async with issuer_keys(Source(key_set("a")), Recorder(), tmp_path).opened():
        pass
    tomorrow, recorder = time.time() + 86_401, Recorder()
    monkeypatch.setattr("app.auth.shared_keys.time", SimpleNamespace(time=lambda: tomorrow))
    starting = issuer_keys(Source(AWAY), recorder, tmp_path)
    async with starting.opened():
        assert not starting.are_usable
        assert starting.find("a") is None

    assert [] == recorder.shared


async def test_a_worker_whose_issuer_answers_uses_no_shared_keys(tmp_path, issuer, key, lines):
    """Its first keys are its own: a key that was removed at the issuer is gone after a reload."""
    removed = make_key("removed", "EdDSA")
    issuer.keys.append(removed.jwk)
    async with authenticator(issuer, Recorder(), tmp_path).opened():
        pass
    issuer.keys.pop()
    recorder = Recorder()
    starting = authenticator(issuer, recorder, tmp_path)
    async with starting.opened():
        starting.verify(key.token(issuer.url).encode())
        with pytest.raises(TokenRefusedError, match="no usable key"):
            starting.verify(removed.token(issuer.url).encode())

    assert [] == recorder.shared
    assert "auth_keys_shared" not in {line["event"] for line in lines()}
