"""Real servers keep their issuer's keys while it rotates them, and whatever happens to it."""

import subprocess
import time
from collections import Counter
from contextlib import ExitStack
from statistics import median

import pytest

from tests.issuer.server import DISCOVERY, ELSEWHERE, FAULTS, KEYS, issuer
from tests.issuer.tokens import make_key
from tests.processes.authenticated import (
    SHORT_FETCHES,
    ask,
    authenticated,
    bearer,
    code,
    token,
    wait_until_ready,
)
from tests.processes.load import Request, load
from tests.processes.scrape import scrape, total
from tests.processes.server import Server, eventually
from tests.processes.watch import print_figures
from tests.programs import find

pytestmark = pytest.mark.slow

FETCHED = "auth_keys_fetched_timestamp_seconds"


@pytest.fixture(scope="module")
def key():
    """A key of the issuer."""
    return make_key("first", "ES256")


def with_short_fetches(database_url, trusted, *, workers=1) -> Server:
    """A server that asks its issuer more often than in production."""
    server = authenticated(database_url, trusted, workers=workers)
    server.command[-1] = SHORT_FETCHES
    return server


def accepted(server, text):
    """Whether a token is accepted."""
    return ask(server, (bearer(text),)).status == 200


def wait_until_all_have_fetched(server, cause):
    """Wait until each worker has begun and ended a fetch. `cause` sends a token with an unknown key to some worker."""
    for _ in range(2):  # the first fetch may have begun before
        since = time.time()

        def read(since=since):
            cause()
            found = [value for (name, _), value in scrape(server.port).items() if name == FETCHED]
            return len(found) == 2 and min(found) > since

        eventually(read, seconds=60, what="a fetch of each worker")


def test_no_request_fails_while_keys_are_rotated(database_url, key):
    """The issuer publishes a second key, signs with it, and removes the first one. Clients with valid tokens get 200.

    Afterwards the first key is not accepted, not even in tokens that were accepted before.
    """
    second, unknown = make_key("second", "EdDSA"), make_key("unknown", "EdDSA")
    with issuer([key.jwk]) as trusted, with_short_fetches(database_url, trusted, workers=2) as server:
        server.serving(workers=2)
        wait_until_ready(server)
        signing, sent = [key], []

        def request(number):
            sent.append(number)
            # Half of the tokens are new, the others are repeated.
            return Request(target="/samples", headers=(bearer(token(trusted, signing[0], jti=str(number // 2))),))

        def cause():
            accepted(server, token(trusted, unknown))

        with load(server.port, rate=100, request=request) as report:
            old = token(trusted, key)
            assert all(accepted(server, old) for _ in range(20))
            trusted.keys = [key.jwk, second.jwk]
            wait_until_all_have_fetched(server, cause)
            signing[0] = second
            time.sleep(0.1)  # a request whose token is being made is among those that were sent
            with_first = set(sent)
            eventually(
                lambda: with_first <= {result.number for result in report.results}, seconds=60, what="their answers"
            )
            trusted.keys = [second.jwk]
            wait_until_all_have_fetched(server, cause)
            assert not any(accepted(server, old) for _ in range(20))
            time.sleep(0.5)

    print_figures(requests=len(report.results), fetches=trusted.count(KEYS), slowest=report.seconds(1.0))
    assert len(report.results) > 50
    assert {200} == set(report.statuses), str(report)
    assert [] == report.failures()


def test_a_token_of_a_key_that_was_just_published_is_accepted(database_url, key):
    """By each worker, with the first request that it gets."""
    second, statuses = make_key("second", "EdDSA"), []
    with issuer([key.jwk]) as trusted, with_short_fetches(database_url, trusted, workers=2) as server:
        server.serving(workers=2)
        wait_until_ready(server)
        time.sleep(0.1)
        trusted.keys = [key.jwk, second.jwk]

        def each_has_fetched():
            statuses.append(ask(server, (bearer(token(trusted, second)),)).status)
            return trusted.count(KEYS) == 4

        eventually(each_has_fetched, seconds=60, what="a fetch of each worker", every=0)
    assert {200} == set(statuses)


def fetches(server, outcome):
    """How many fetches had this outcome."""
    return total(scrape(server.port), "auth_key_fetches_total", {"outcome": outcome})


def test_known_keys_are_used_whatever_the_issuer_does(database_url, key):
    """With every fault of the issuer, tokens that are new or known get 200 at once, and unknown keys get 401.

    Each outage is one event, and so is its end. A redirect is not followed.
    """
    attacker = make_key("attacker", "ES256")
    served: Counter[str] = Counter()
    waits: list[float] = []
    with issuer([key.jwk]) as trusted, with_short_fetches(database_url, trusted) as server:
        trusted.keys_of_attacker = [attacker.jwk]
        server.serving()
        wait_until_ready(server)
        known = token(trusted, key)

        def is_refused():
            return (401, "invalid_token") == code(ask(server, (bearer(token(trusted, attacker)),)))

        def recovers():
            return is_refused() and fetches(server, "ok") > recovered

        for fault in FAULTS:
            failed, recovered = fetches(server, "failed"), fetches(server, "ok")
            with trusted.failing(fault):
                while fetches(server, "failed") == failed:
                    assert is_refused(), fault  # the unknown key causes a fetch, and waits for it
                    began = time.monotonic()
                    assert accepted(server, known), fault
                    assert accepted(server, token(trusted, key)), fault
                    waits.append(time.monotonic() - began)
                    served[fault] += 1
                assert accepted(server, known), fault
                assert 200 == ask(server, target="/health/ready").status
            eventually(recovers, seconds=60, what=f"keys after {fault}")
        assert 0 == server.stop()
        output = server.output()

    print_figures(**served, slowest=max(waits))
    assert median(waits) < 0.5  # half of the wait for a fetch
    assert served["frozen"] > 1  # requests are answered while the fetch waits
    assert served["dripping"] > 1
    assert 0 == trusted.count(ELSEWHERE)
    assert len(FAULTS) == output.count('"auth_keys_fetch_failed"')
    assert len(FAULTS) == output.count('"auth_keys_fetch_recovered"')


def test_a_server_without_keys_becomes_ready_when_the_issuer_answers(database_url, key):
    """Until then it lives, is not ready, and answers 503. It needs no restart."""
    with ExitStack() as stack:
        trusted = [stack.enter_context(issuer([key.jwk], fault=fault)) for fault in ("refusing", "frozen")]
        servers = [stack.enter_context(authenticated(database_url, one)) for one in trusted]
        for one, server in zip(trusted, servers, strict=True):
            server.serving()
            refused = ask(server, (bearer(token(one, key)),))
            assert (503, "auth_unavailable") == code(refused)
            assert int(refused.headers["retry-after"]) > 0
            assert 503 == ask(server, target="/health/ready").status
            assert (200, 200) == (ask(server, target="/health").status, ask(server, target="/docs").status)
        for one, server in zip(trusted, servers, strict=True):
            workers = server.workers()
            one.fault = None
            began = time.monotonic()
            wait_until_ready(server)
            print_figures(ready_after=time.monotonic() - began)
            assert accepted(server, token(one, key))
            assert workers == server.workers()


@pytest.mark.parametrize("fault", ["refusing", "frozen"])
def test_workers_that_start_while_the_issuer_is_away(database_url, key, fault, tmp_path):
    """After a reload and a killed worker they accept tokens by the keys of the workers before, and they are ready.

    No request is refused meanwhile. A new master has no keys, and when the issuer is back all workers have its own.
    """
    second = make_key("second", "EdDSA")
    with issuer([key.jwk]) as trusted:
        server = authenticated(database_url, trusted, workers=2, METRICS_DIRECTORY=str(tmp_path))
        with server:
            server.serving(workers=2)
            wait_until_ready(server)
            known = token(trusted, key)
            assert accepted(server, known)
            fetched = read_fetched(server)
            trusted.fault = fault

            def request(number):
                return Request(target="/samples", headers=(bearer(token(trusted, key, jti=str(number // 2))),))

            with load(server.port, rate=50, request=request) as report:
                server.reload()
                server.kill_worker(seconds=30)
                for text in [known, *(token(trusted, key) for _ in range(20))]:
                    assert accepted(server, text)
                assert {200} == {ask(server, target="/health/ready").status for _ in range(10)}
            assert {200} == set(report.statuses), str(report)
            assert 0 < read_fetched(server) <= fetched + 5  # seconds: the workers have fetched one after the other
            assert 3 == server.output().count('"auth_keys_shared"')

            trusted.keys = [key.jwk, second.jwk]
            trusted.fault = None
            eventually(lambda: server.output().count('"auth_keys_fetch_recovered"'), seconds=60, what="its own keys")
            eventually(lambda: read_fetched(server) > fetched, seconds=60, what="its own keys in each worker")
            assert all(accepted(server, token(trusted, second)) for _ in range(20))
            assert 0 == server.stop()

        trusted.fault = fault
        with authenticated(database_url, trusted, METRICS_DIRECTORY=str(tmp_path)) as fresh:
            fresh.serving()
            assert (503, "auth_unavailable") == code(ask(fresh, (bearer(known),)))
            assert 503 == ask(fresh, target="/health/ready").status


def read_fetched(server):
    """When the oldest keys of its workers were fetched, or 0 if a worker has none."""
    return min(value for (name, _), value in scrape(server.port).items() if name == FETCHED)


def test_the_keys_of_an_issuer_are_found(database_url, key):
    """The discovery document is below the path of the issuer, without a slash at its end, or AUTH_JWKS_URL says it all.

    The issuer of a token keeps its slash.
    """
    with ExitStack() as stack:
        trusted = [stack.enter_context(issuer([key.jwk], path=path)) for path in ("/", "/realms/one/", "")]
        servers = [authenticated(database_url, one) for one in trusted]
        servers[2].environment["AUTH_JWKS_URL"] = trusted[2].address(KEYS)
        for server in servers:
            stack.enter_context(server)
        for one, server in zip(trusted, servers, strict=True):
            server.serving()
            wait_until_ready(server)
            other = one.url.removesuffix("/") if one.url.endswith("/") else f"{one.url}/"
            assert accepted(server, token(one, key)), one.url
            assert not accepted(server, token(one, key, iss=other)), one.url

    assert [True, True, False] == [one.count(DISCOVERY) > 0 for one in trusted]
    assert all(one.count(DISCOVERY) + one.count(KEYS) == len(one.asked) for one in trusted)


@pytest.mark.needs("openssl")
def test_the_certificate_of_the_issuer_is_verified(database_url, key, tmp_path):
    """An authority that is not the system's is trusted if SSL_CERT_FILE names its certificate, and else never."""
    file = tmp_path / "issuer.pem"
    subprocess.run(
        [find("openssl"), "req", "-new", "-x509", "-days", "2", "-nodes", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=DNS:localhost", "-keyout", file, "-out", tmp_path / "root.pem"],
        check=True, capture_output=True,
    )  # fmt: skip
    file.write_text(file.read_text() + (tmp_path / "root.pem").read_text())
    with ExitStack() as stack:
        trusted = stack.enter_context(issuer([key.jwk], certificate=file))
        knowing = authenticated(database_url, trusted, SSL_CERT_FILE=str(tmp_path / "root.pem"))
        knowing, ignorant = (stack.enter_context(one) for one in (knowing, authenticated(database_url, trusted)))
        knowing.serving()
        wait_until_ready(knowing)
        assert accepted(knowing, token(trusted, key))
        ignorant.serving()
        eventually(lambda: "certificate verify failed" in ignorant.output(), seconds=30, what="a failed fetch")
        assert (503, "auth_unavailable") == code(ask(ignorant, (bearer(token(trusted, key)),)))
