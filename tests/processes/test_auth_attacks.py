"""What a hostile client tries with its tokens, against a real server."""

import asyncio
import json
import time

import pytest

from tests.issuer.attacks import Attacker
from tests.issuer.server import ELSEWHERE, KEYS, issuer
from tests.issuer.tokens import encoded, make_key
from tests.processes.authenticated import ask, authenticated, bearer, code, token, wait_until_ready
from tests.processes.load import Request, load, send_load
from tests.processes.scrape import scrape, total
from tests.processes.watch import print_figures

pytestmark = pytest.mark.slow

RSA = make_key("rsa", "RS256")
EC = make_key("ec", "ES256")


@pytest.fixture(scope="module")
def trusted():
    """The issuer, with two keys."""
    with issuer([RSA.jwk, EC.jwk]) as running:
        yield running


@pytest.fixture
def server(database_url, trusted):
    """A server without rate limits."""
    with authenticated(database_url, trusted) as running:
        running.serving()
        wait_until_ready(running)
        yield running


def asked_with(server, tokens):
    """The answer to a request with each of the tokens."""
    for name, text in tokens:
        yield name, ask(server, (bearer(text),))


def test_no_forged_token_is_accepted(server, trusted):
    """Each is answered 401 with the same words, and no address that a token names is asked for anything."""
    asked = trusted.count(KEYS)
    attacker = Attacker(trusted.url, RSA, EC, trusted.address(ELSEWHERE))
    attacks = attacker.all()
    assert {} == {
        name: code(answer) for name, answer in asked_with(server, attacker.controls()) if answer.status != 200
    }
    answers = dict(asked_with(server, attacks))

    print_figures(attacks=len(answers), accepted=sum(answer.status < 400 for answer in answers.values()))
    assert len(attacks) == len(answers)
    assert {} == {name: answer.status for name, answer in answers.items() if code(answer) != (401, "invalid_token")}
    assert 1 == len({answer.headers["www-authenticate"] for answer in answers.values()})
    assert 1 == len({json.loads(answer.body)["detail"] for answer in answers.values()})
    assert 0 == trusted.count(ELSEWHERE)
    assert trusted.count(KEYS) - asked <= 2
    assert 0 == server.stop()
    output = server.output()
    assert [] == [name for name, text in attacks if any(len(part) > 20 and part in output for part in text.split("."))]


OPEN = ("/health", "/", "/metrics", "/openapi.json", "/docs")
OUTSIDE = (
    "/samples/1",
    "/nothing",
    "/health/../samples",
    "/docs/%2e%2e/samples",
    "//samples",
    "/health;/samples",
    "/docs/",
)


def test_only_a_token_in_one_header_admits(server, trusted):
    """A token elsewhere is not read. Open paths are open for reading only, and unknown paths need a token."""
    good = token(trusted, RSA)
    others = {
        "no token": (),
        "an empty token": (("Authorization", "Bearer "),),
        "another scheme": (("Authorization", f"Basic {good}"),),
        "a token bound to a key": (("Authorization", f"DPoP {good}"),),
        "no scheme": (("Authorization", good),),
        "no space": (("Authorization", f"Bearer{good}"),),
        "a tab": (("Authorization", f"Bearer\t{good}"),),
        "two headers": (bearer(good), bearer(good)),
        "two headers, one of another scheme": (bearer(good), ("Authorization", "Basic eDp5")),
        "a cookie": (("Cookie", f"access_token={good}"),),
        "the header of a proxy": (("Proxy-Authorization", f"Bearer {good}"),),
        "a forwarded header": (("X-Forwarded-Authorization", f"Bearer {good}"),),
    }
    refused = {name: ask(server, headers) for name, headers in others.items()}
    refused["the query"] = ask(server, target=f"/samples?access_token={good}")
    body = f"access_token={good}".encode()
    form = (("Content-Type", "application/x-www-form-urlencoded"), ("Content-Length", str(len(body))))
    refused["the body"] = ask(server, form, method="POST", body=body)
    refused |= {target: ask(server, target=target) for target in OUTSIDE}
    methods = ("POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE")
    refused |= {f"{method} {path}": ask(server, method=method, target=path) for method in methods for path in OPEN}

    assert {} == {name: answer.status for name, answer in refused.items() if answer.status != 401}
    assert {"Bearer"} == {
        answer.headers["www-authenticate"] for name, answer in refused.items() if name != "an empty token"
    }
    assert {200} == {ask(server, target=path).status for path in OPEN}
    assert {200} == {ask(server, (("Authorization", f"{name} {good}"),)).status for name in ("bearer", "BEARER")}
    assert 0 == server.stop()
    assert good not in server.output()


def test_a_flood_of_bad_tokens_harms_nobody_else(database_url, trusted):
    """Thousands of bad tokens, no two alike, are limited by their address. Another client is served meanwhile.

    The issuer is asked at most once in ten seconds by each worker, whatever the tokens name.
    """
    workers = 2
    settings = {"RATE_LIMIT_READ": "600/minute", "FORWARDED_ALLOW_IPS": "127.0.0.1"}
    with authenticated(database_url, trusted, workers=workers, **settings) as server:
        server.serving(workers=workers)
        wait_until_ready(server)
        asked, began = trusted.count(KEYS), time.monotonic()
        stranger = make_key("ec", "EdDSA")
        valid = token(trusted, RSA).rpartition(".")[0]
        tokens = [
            text
            for number in range(2000)
            for text in (
                token(trusted, stranger, header={"kid": f"unknown-{number}"}),
                f"{valid}.{encoded(b'%256d' % number)}",
            )
        ]

        def bad(number):
            return Request(
                target="/samples", headers=(bearer(tokens[number % len(tokens)]), ("X-Forwarded-For", "192.0.2.1"))
            )

        def good(number):
            return Request(
                target="/samples",
                headers=(bearer(token(trusted, EC, jti=str(number // 2))), ("X-Forwarded-For", "192.0.2.2")),
            )

        with load(server.port, rate=40, kept=4, fresh=0, request=good) as served:
            time.sleep(0.5)
            flood = asyncio.run(send_load(server.port, rate=5_000, seconds=60, kept=20, request=bad, count=len(tokens)))
        seconds = time.monotonic() - began
        refused = total(scrape(server.port), "rate_limit_decisions_total", {"outcome": "refused"})

    print_figures(
        bad_tokens_a_second=len(flood.results) / seconds,
        refused_by_limit=flood.statuses[429],
        refused_by_signature=flood.statuses[401],
        fetches=trusted.count(KEYS) - asked,
        slowest_of_another_client=served.seconds(1.0),
    )
    assert len(tokens) == flood.statuses[401] + flood.statuses[429], str(flood)
    assert flood.statuses[401] <= 600 + 600 * seconds / 60
    assert refused >= flood.statuses[429] > 2000
    assert {200} == set(served.statuses), str(served)
    assert [] == served.failures()
    assert trusted.count(KEYS) - asked <= workers * (1 + seconds / 10)
