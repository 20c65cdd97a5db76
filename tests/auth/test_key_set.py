import json
from typing import Any

import pytest

from app.auth.key_set import MAX_KEYS, KeySet
from tests.issuer.tokens import make_key


def parsed(*entries: Any) -> KeySet:
    """The key set with these entries."""
    return KeySet.parse(json.dumps({"keys": entries}).encode())


@pytest.mark.parametrize("kind", ["RS256", "ES256", "EdDSA"])
def test_a_key_has_the_algorithm_of_its_kind(kind):
    """It is the same with and without `alg`, `use` and `key_ops`."""
    jwk = make_key("a", kind).jwk
    bare = {name: value for name, value in jwk.items() if name not in {"alg", "use"}}

    for entry in (jwk, bare, bare | {"key_ops": ["verify"]}):
        key = parsed(entry).find("a")
        assert key is not None
        assert kind == key.public.algorithm_name


def unusable() -> dict[str, dict[str, Any]]:
    """Entries that must not be used, by what is wrong with them."""
    rsa, p256, ed = (make_key("a", kind).jwk for kind in ("RS256", "ES256", "EdDSA"))
    return {
        "a symmetric key": {"kty": "oct", "kid": "a", "k": "c2VjcmV0", "alg": "HS256"},
        "another algorithm": rsa | {"alg": "PS256"},
        "a symmetric algorithm": rsa | {"alg": "HS256"},
        "the algorithm none": rsa | {"alg": "none"},
        "a key for encryption": rsa | {"use": "enc"},
        "operations without verify": p256 | {"key_ops": ["sign"]},
        "operations that are no list": p256 | {"key_ops": "verify"},
        "a short RSA key": make_key("a", rsa_bits=1024).jwk,
        "a private key": ed | {"d": "AAAA"},
        "another curve": p256 | {"crv": "P-384"},
        "a point that is not on its curve": p256 | {"x": ed["x"]},
        "an id that is no text": rsa | {"kid": 1},
        "a type that is no text": rsa | {"kty": ["RSA"]},
        "a modulus that is no text": rsa | {"n": 1},
        "no modulus": {name: value for name, value in rsa.items() if name != "n"},
    }


@pytest.mark.parametrize("wrong", unusable())
def test_an_unusable_entry_is_left_out(wrong):
    """The other entries of the set are used."""
    good = make_key("good", "ES256").jwk
    keys = parsed(unusable()[wrong], good)

    assert ["good"] == keys.key_ids
    assert keys.find("a") is None
    with pytest.raises(ValueError, match="none of its keys can be used"):
        parsed(unusable()[wrong])


def test_an_id_of_two_keys_names_neither():
    """The service cannot know which one is meant. A repeated key is one key."""
    first, second, third = (make_key(key_id, "EdDSA").jwk for key_id in ("a", "a", "b"))
    keys = parsed(first, second, third)

    assert keys.find("a") is None
    assert keys.find("b") is not None
    assert parsed(first, first).find("a") is not None


def test_without_an_id_only_a_single_key_is_found():
    """With two keys the token must say which."""
    first, second = (make_key(key_id, "EdDSA").jwk for key_id in ("a", "b"))

    assert parsed(first).find(None) is not None
    assert parsed(first, second).find(None) is None


@pytest.mark.parametrize(
    "document", [b"{}", b'{"keys": {}}', b'{"keys": []}', b"[]", b"<html>", b'{"keys": [1, null]}']
)
def test_another_document_is_refused(document):
    """The error says what is wrong."""
    with pytest.raises(ValueError, match=r"^(it|none) "):
        KeySet.parse(document)


def test_the_number_of_keys_is_limited():
    """A set with too many entries is not used at all."""
    entry = make_key("a", "EdDSA").jwk
    entries = [entry | {"kid": str(number)} for number in range(MAX_KEYS + 1)]

    assert MAX_KEYS == len(parsed(*entries[1:]).keys)
    with pytest.raises(ValueError, match="65 keys"):
        parsed(*entries)
