import json
import time
from base64 import urlsafe_b64encode
from typing import Any

import jwt
import pytest

from app.auth.claims import Rules
from app.auth.key_set import KeySet
from app.auth.refusal import TokenRefusedError
from app.auth.tokens import VerifiedToken, verify
from tests.issuer.tokens import AUDIENCE, encoded, make_key

ISSUER = "https://issuer.example.com"
RULES = Rules(issuer=ISSUER, audience=AUDIENCE)

KEYS = {kind: make_key(kind, kind) for kind in ("RS256", "ES256", "EdDSA")}
PUBLISHED = KeySet.parse(json.dumps({"keys": [key.jwk for key in KEYS.values()]}).encode())

KEY = KEYS["EdDSA"]


def verified(token: str) -> VerifiedToken:
    """What a token says, with all keys published."""
    return verify(token.encode(), PUBLISHED.find, RULES)


def outcome(token: str) -> str:
    """Why a token is refused."""
    with pytest.raises(TokenRefusedError) as refused:
        verified(token)
    assert refused.value.reason
    return refused.value.outcome


@pytest.mark.parametrize("kind", KEYS)
def test_a_good_token_is_accepted(kind):
    """For each kind of key."""
    found = verified(KEYS[kind].token(ISSUER, scope="samples:read samples:write"))

    assert ("user-1", "client-1") == (found.principal.subject, found.principal.client_id)
    assert {"samples:read", "samples:write"} == found.principal.scopes


@pytest.mark.parametrize("kind", KEYS)
def test_an_altered_token_is_refused(kind):
    """One other byte in the claims, or another key's signature."""
    token = KEYS[kind].token(ISSUER)
    header, payload, signature = token.split(".")
    altered = payload.replace(payload[10], "A" if payload[10] != "A" else "B", 1)

    assert "bad_signature" == outcome(f"{header}.{altered}.{signature}")
    assert "bad_signature" == outcome(make_key(kind, kind).token(ISSUER))


def test_the_key_chooses_the_algorithm():
    """`none`, a signature with the public key as a secret, and the algorithm of another key are refused."""
    unsigned = jwt.encode({"iss": ISSUER}, "", algorithm="none", headers={"kid": "RS256"})
    secret = json.dumps(KEYS["RS256"].jwk)
    confused = jwt.encode({"iss": ISSUER}, secret.replace("{", "("), algorithm="HS256", headers={"kid": "RS256"})

    assert "malformed" == outcome(unsigned)
    assert "bad_signature" == outcome(unsigned + "AAAA")
    assert "bad_signature" == outcome(confused)
    for name in ("none", "HS256", "RS256", "PS256", "ES256", "", None, 1):
        assert "bad_signature" == outcome(KEY.token(ISSUER, header={"alg": name}))


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ({"kid": "other"}, "unknown_key"),
        ({"kid": None}, "unknown_key"),
        ({"kid": ""}, "unknown_key"),
        ({"kid": "../../etc/passwd"}, "unknown_key"),
        ({"kid": "x' OR 'a'='a"}, "unknown_key"),
        ({"kid": 1}, "malformed"),
        ({"kid": ["EdDSA"]}, "malformed"),
        ({"crit": ["exp"]}, "malformed"),
        ({"crit": []}, "malformed"),
        ({"b64": False}, "malformed"),
        ({"b64": True}, "malformed"),
        ({"typ": "logout+jwt"}, "malformed"),
        ({"typ": "dpop+jwt"}, "malformed"),
        ({"typ": 1}, "malformed"),
    ],
)
def test_a_header_that_does_not_fit_is_refused(header, expected):
    """Before anything else is done for the token."""
    assert expected == outcome(KEY.token(ISSUER, header=header))


@pytest.mark.parametrize("typ", [None, "JWT", "jwt", "at+jwt", "AT+JWT", "application/at+jwt"])
def test_the_types_of_access_tokens(typ):
    """With and without `application/`, in any case, or none at all."""
    assert "user-1" == verified(KEY.token(ISSUER, header={"typ": typ})).principal.subject


def test_keys_in_the_token_are_not_used():
    """`jwk`, `jku`, `x5u` and `x5c` change nothing: the issuer's own key is used."""
    attacker = make_key("EdDSA", "EdDSA")
    pointing = {"jwk": attacker.jwk, "jku": "https://attacker.example.com", "x5u": "https://a.example", "x5c": ["A"]}

    assert "bad_signature" == outcome(attacker.token(ISSUER, header=pointing))
    assert "user-1" == verified(KEY.token(ISSUER, header=pointing)).principal.subject


def test_the_form_of_a_token():
    """Three parts of base64url without padding, of at most 8192 bytes."""
    header, payload, signature = KEY.token(ISSUER).split(".")

    for token in (
        "", ".", "..", "a.b", f"{header}.{payload}", f"{header}.{payload}.", f"{header}..{signature}",
        f"{header}.{payload}.{signature}=", f"{header}.{payload}.{signature}.{signature}",
        f"{header}.{payload}.{signature}\n", f" {header}.{payload}.{signature}", f"{header}.{payload}.+/{signature}",
        f"a.{payload}.{signature}", f"{encoded(b'[]')}.{payload}.{signature}",
        f"{encoded(b'{')}.{payload}.{signature}", f"{header}.{'A' * 8192}.{signature}",
    ):  # fmt: skip
        assert "malformed" == outcome(token), token
    assert "bad_signature" == outcome(f"{header}.{payload}.{signature[:-1]}")
    assert "user-1" == verified(KEY.token(ISSUER, padding="x" * 5000)).principal.subject
    assert "malformed" == outcome(KEY.token(ISSUER, padding="x" * 8000))


@pytest.mark.parametrize(
    ("header", "payload", "expected"),
    [
        (b'{"alg":"EdDSA","kid":"RS256","kid":"EdDSA"}', b"{}", "malformed"),
        (b'{"alg":"none","alg":"EdDSA","kid":"EdDSA"}', b"{}", "malformed"),
        (b'{"alg":"EdDSA","kid":"EdDSA"}', b'{"aud":"a","aud":"b"}', "bad_claims"),
        (b'{"alg":"EdDSA","kid":"EdDSA"}', b'{"exp":1e999}', "bad_claims"),
        (b'{"alg":"EdDSA","kid":"EdDSA"}', b'{"exp":NaN}', "bad_claims"),
        (b'{"alg":"EdDSA","kid":"EdDSA"}', b"[]", "bad_claims"),
        (b'{"alg":"EdDSA","kid":"EdDSA"}', b"\xff", "bad_claims"),
        (b'{"alg":"EdDSA","kid":"EdDSA"}', b"[" * 5000, "bad_claims"),
    ],
)
def test_json_with_two_readings_is_refused(header, payload, expected):
    """In the header and in the claims, although the signature is good."""
    assert expected == outcome(KEY.sign(header, payload))


NOW = time.time()
"""When the tests were collected. A test may run minutes later."""


@pytest.mark.parametrize(
    ("claims", "expected"),
    [
        ({"iss": "https://other.example.com"}, "wrong_issuer"),
        ({"iss": ISSUER + "/"}, "wrong_issuer"),
        ({"iss": None}, "wrong_issuer"),
        ({"iss": [ISSUER]}, "wrong_issuer"),
        ({"aud": "other"}, "wrong_audience"),
        ({"aud": []}, "wrong_audience"),
        ({"aud": ["other", AUDIENCE.upper()]}, "wrong_audience"),
        ({"aud": None}, "bad_claims"),
        ({"aud": {AUDIENCE: 1}}, "bad_claims"),
        ({"aud": [AUDIENCE, 1]}, "bad_claims"),
        ({"exp": None}, "bad_claims"),
        ({"exp": str(int(NOW) + 300)}, "bad_claims"),
        ({"exp": True}, "bad_claims"),
        ({"exp": 10**400}, "bad_claims"),
        ({"exp": NOW - 31}, "expired"),
        ({"exp": 0}, "expired"),
        ({"exp": -(10**300)}, "expired"),
        ({"nbf": NOW + 86_400}, "not_yet_valid"),
        ({"iat": NOW + 86_400}, "not_yet_valid"),
        ({"nbf": "now"}, "bad_claims"),
        ({"sub": None, "client_id": None}, "bad_claims"),
        ({"sub": ""}, "bad_claims"),
        ({"sub": 7}, "bad_claims"),
        ({"sub": "a" * 256}, "bad_claims"),
        ({"sub": "a\n{}"}, "bad_claims"),
        ({"sub": "a\ud800"}, "bad_claims"),
        ({"client_id": "a\0"}, "bad_claims"),
        ({"scope": ["samples:read"]}, "bad_claims"),
        ({"scp": [1]}, "bad_claims"),
        ({"scp": {"samples:read": True}}, "bad_claims"),
        ({"scope": " ".join(map(str, range(129)))}, "bad_claims"),
        ({"at_hash": "a"}, "bad_claims"),
        ({"c_hash": "a"}, "bad_claims"),
        ({"events": {}}, "bad_claims"),
        ({"typ": "ID"}, "bad_claims"),
        ({"typ": "Refresh"}, "bad_claims"),
        ({"token_use": "id"}, "bad_claims"),
        ({"cnf": {"jkt": "a"}}, "bad_claims"),
    ],
)
def test_claims_that_do_not_fit_are_refused(claims, expected):
    """Each has the outcome that an operator looks for."""
    assert expected == outcome(KEY.token(ISSUER, **claims))


@pytest.mark.parametrize(
    "claims",
    [
        {"aud": [AUDIENCE]},
        {"aud": ["other", AUDIENCE]},
        {"iat": None},
        {"typ": "Bearer"},
        {"token_use": "access"},
        {"nonce": "a"},
    ],
)
def test_claims_that_fit_are_accepted(claims):
    """The audience may be one of several."""
    assert "user-1" == verified(KEY.token(ISSUER, **claims)).principal.subject


@pytest.mark.parametrize("seconds", [{"exp": -5}, {"exp": 300.5}, {"nbf": 20, "iat": 20}], ids=str)
def test_times_that_fit_are_accepted(seconds):
    """The clocks may differ by 30 s."""
    claims = {name: time.time() + after for name, after in seconds.items()}

    assert "user-1" == verified(KEY.token(ISSUER, **claims)).principal.subject


@pytest.mark.parametrize(
    ("claims", "scopes"),
    [
        ({}, set()),
        ({"scope": "a  b "}, {"a", "b"}),
        ({"scp": "a b"}, {"a", "b"}),
        ({"scp": ["a", "b"]}, {"a", "b"}),
        ({"scope": "a", "scp": ["b"]}, {"a"}),
    ],
)
def test_where_scopes_are(claims, scopes):
    """In `scope`, or else in `scp`."""
    assert scopes == verified(KEY.token(ISSUER, **claims)).principal.scopes


def test_whose_a_request_is():
    """The key belongs to `sub`, else to the client; it differs for each, and between issuers."""

    def key(**claims: Any) -> str:
        return verified(KEY.token(ISSUER, **claims)).principal.key

    other = Rules(issuer="https://other.example.com", audience=AUDIENCE)
    elsewhere = verify(KEY.token("https://other.example.com").encode(), PUBLISHED.find, other).principal.key
    keys = [key(), key(sub="user-2"), key(sub=None), key(sub="client-1"), key(sub=None, client_id="user-1"), elsewhere]

    assert len(keys) == len(set(keys))
    assert key() == key(client_id="client-2")
    assert key(sub=None) == key(sub=None, client_id=None, azp="client-1")
    assert all(len(key) < 64 and " " not in key for key in keys)


def test_the_time_until_which_a_token_is_accepted():
    """Its `exp`, and what the clocks may differ."""
    expires = int(time.time()) + 100
    assert expires + 30 == verified(KEY.token(ISSUER, exp=expires)).accepted_until


def test_the_reason_has_nothing_of_an_unverified_token():
    """Only the claims of a good signature are shown, and shortened."""
    header = urlsafe_b64encode(b'{"kid":"attack","alg":"attack","typ":"attack"}').decode()
    with pytest.raises(TokenRefusedError) as malformed:
        verified(f"{header}.attack.attack")
    with pytest.raises(TokenRefusedError) as wrong:
        verified(KEY.token(ISSUER, iss="https://" + "x" * 5000))

    assert "attack" not in malformed.value.reason
    assert "https://xxx" in wrong.value.reason
    assert len(wrong.value.reason) < 200
