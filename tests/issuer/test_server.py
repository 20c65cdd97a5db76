"""The issuer of the tests answers as it should, and fails as it is told to."""

import json
import time

import httpx
import pytest

from tests.issuer.server import DISCOVERY, ELSEWHERE, FAULTS, KEYS, issuer

KEY = {"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo", "kid": "one"}


@pytest.mark.parametrize("path", ["", "/", "/realms/one"])
def test_the_issuer_publishes_its_keys(path):
    """Discovery is below the path of the issuer, and names the issuer and the address of the keys."""
    with issuer([KEY], path=path, max_age=90) as running:
        discovered = httpx.get(running.url.removesuffix("/") + DISCOVERY).json()
        answer = httpx.get(discovered["jwks_uri"])

    assert running.url == discovered["issuer"]
    assert {"keys": [KEY]} == answer.json()
    assert "public, max-age=90" == answer.headers["Cache-Control"]
    assert (1, 1) == (running.count(DISCOVERY), running.count(KEYS))


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_lasts_until_it_is_removed(fault):
    """With the fault no client gets the keys of the issuer alone. Without it, every client does."""
    with issuer([KEY], fault=fault) as running:
        assert [KEY] != keys(running, seconds=0.3)
        running.fault = None
        assert [KEY] == keys(running, seconds=30)
        with running.failing(fault):
            assert [KEY] != keys(running, seconds=0.3)
        assert [KEY] == keys(running, seconds=30)


def keys(running, *, seconds):
    """The keys that a client gets which compares the issuer, reads 10,000 bytes at most, and waits for so long."""
    end, body = time.monotonic() + seconds, b""
    try:
        with httpx.Client(timeout=seconds, verify=False) as client:
            discovered = client.get(running.address(DISCOVERY))
            if discovered.raise_for_status().json()["issuer"] != running.url:
                return None
            with client.stream("GET", discovered.json()["jwks_uri"]) as answer:
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
