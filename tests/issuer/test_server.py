"""The issuer of the tests answers as it should, and fails as it is told to."""

import json
import time

import httpx
import pytest

from tests.issuer.server import DISCOVERY, ELSEWHERE, FAULTS, KEYS, issuer

KEY = {"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo", "kid": "one"}


def test_the_issuer_publishes_its_keys():
    """Discovery names the issuer and the address of the keys."""
    with issuer([KEY], max_age=90) as running:
        discovered = httpx.get(f"{running.url}{DISCOVERY}").json()
        answer = httpx.get(discovered["jwks_uri"])

    assert running.url == discovered["issuer"]
    assert {"keys": [KEY]} == answer.json()
    assert "public, max-age=90" == answer.headers["Cache-Control"]
    assert (1, 1) == (running.count(DISCOVERY), running.count(KEYS))


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_lasts_until_it_is_removed(fault):
    """With the fault no client gets the keys of the issuer alone. Without it, every client does."""
    with issuer([KEY], fault=fault) as running:
        assert [KEY] != keys(running.url)
        running.fault = None
        assert [KEY] == keys(running.url)
        with running.failing(fault):
            assert [KEY] != keys(running.url)
        assert [KEY] == keys(running.url)


def keys(url):
    """The keys that a client gets which verifies the issuer, reads 10,000 bytes at most, and waits briefly."""
    try:
        discovered = httpx.get(f"{url}{DISCOVERY}", timeout=0.5)
        if discovered.raise_for_status().json()["issuer"] != url:
            return None
        end, body = time.monotonic() + 0.5, b""
        with httpx.stream("GET", f"{url}{KEYS}", timeout=0.5) as answer:
            for part in answer.raise_for_status().iter_bytes():
                body += part
                if time.monotonic() > end or len(body) > 10_000:
                    return None
        return json.loads(body)["keys"]
    except (httpx.HTTPError, ValueError):
        return None


def test_a_redirect_leads_to_other_keys():
    """A client that follows it gets the keys of an attacker."""
    with issuer([KEY], fault="redirect") as running:
        running.keys_of_attacker = [{**KEY, "kid": "attacker"}]
        followed = httpx.get(f"{running.url}{KEYS}", follow_redirects=True).json()["keys"]

    assert ["attacker"] == [key["kid"] for key in followed]
    assert 1 == running.count(ELSEWHERE)
