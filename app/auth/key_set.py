"""The public keys of an issuer, as it publishes them in a JSON Web Key Set (RFC 7517)."""

import json
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final, Self

from jwt import PyJWK
from jwt.exceptions import PyJWTError

from app.auth.strict_json import parse_object

MAX_KEYS: Final = 64

_RSA_BITS: Final = range(2048, 8193)
"""Shorter keys can be broken, and a signature by a longer one takes long to verify."""

_MAX_KEY_ID_CHARACTERS: Final = 255

_ALGORITHMS: Final[dict[tuple[str | None, str | None], str]] = {
    ("RSA", None): "RS256",
    ("EC", "P-256"): "ES256",
    ("OKP", "Ed25519"): "EdDSA",
}
"""The one algorithm of each kind of key, by `kty` and `crv`. A token cannot choose another one."""

ALGORITHM_NAMES: Final = frozenset(_ALGORITHMS.values())


@dataclass(frozen=True, slots=True)
class Key:
    """A key that verifies signatures by one algorithm."""

    key_id: str | None
    material: str
    """The published key as JSON."""
    public: PyJWK = field(compare=False, repr=False)

    @classmethod
    def read(cls, entry: Any) -> Self | None:
        """Return the key of one entry in a set. None if it is not for signatures, or cannot be used safely."""
        if not isinstance(entry, dict) or not _is_for_signatures(entry):
            return None
        algorithm = _ALGORITHMS.get((_text(entry, "kty"), _text(entry, "crv")))
        if algorithm is None or entry.get("alg", algorithm) != algorithm:
            return None
        key_id = entry.get("kid")
        if key_id is not None and not (isinstance(key_id, str) and len(key_id) <= _MAX_KEY_ID_CHARACTERS):
            return None
        try:
            public = PyJWK(entry, algorithm)
        except (PyJWTError, ValueError, TypeError, KeyError, AttributeError):
            return None
        if algorithm == "RS256" and public.key.key_size not in _RSA_BITS:
            return None
        return cls(key_id, json.dumps(entry, sort_keys=True), public)


def _text(entry: dict[str, Any], name: str) -> str | None:
    value = entry.get(name)
    return value if isinstance(value, str) else None


def _is_for_signatures(entry: dict[str, Any]) -> bool:
    """Whether the issuer means the key for verifying signatures. A private key that is published is known to all."""
    operations = entry.get("key_ops", ["verify"])
    return (
        entry.get("use", "sig") == "sig"
        and isinstance(operations, list)
        and "verify" in operations
        and "d" not in entry
    )


class KeySet:
    """The usable keys of a set."""

    def __init__(self, keys: tuple[Key, ...]) -> None:
        self.keys = keys
        # A name that two keys have names neither.
        names = Counter(key.key_id for key in keys)
        self._by_id = {key.key_id: key for key in keys if key.key_id is not None and names[key.key_id] == 1}

    @classmethod
    def parse(cls, document: bytes) -> Self:
        """Return the keys in the document.

        Raises:
            ValueError: It is not a key set, has more than MAX_KEYS keys, or none that can be used.
        """
        entries = parse_object(document).get("keys")
        if not isinstance(entries, list):
            raise ValueError("it has no list `keys`")  # noqa: TRY004  # the document is wrong, not the program
        if len(entries) > MAX_KEYS:
            raise ValueError(f"it has {len(entries)} keys, and at most {MAX_KEYS} are read")
        keys = tuple(dict.fromkeys(key for entry in entries if (key := Key.read(entry))))
        if not keys:
            raise ValueError(
                "none of its keys can be used: RSA of 2048 to 8192 bits for RS256, P-256 for ES256, Ed25519 for EdDSA"
            )
        return cls(keys)

    def find(self, key_id: str | None) -> Key | None:
        """The key with exactly this id. Without an id: the only key, or None if there are several."""
        if key_id is not None:
            return self._by_id.get(key_id)
        return self.keys[0] if len(self.keys) == 1 else None

    @property
    def key_ids(self) -> list[str]:
        """The ids of the keys, sorted."""
        return sorted(key.key_id or "" for key in self.keys)
