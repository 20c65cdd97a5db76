"""Makes keys as an issuer has them, and signs access tokens with them."""

import json
import time
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import Algorithm, get_default_algorithms

Kind = Literal["RS256", "ES256", "EdDSA"]

AUDIENCE = "https://api.example.com"
SUBJECT = "user-1"


@dataclass(frozen=True)
class SigningKey:
    """A private key."""

    key_id: str
    algorithm: str
    private: Any

    @property
    def jwk(self) -> dict[str, Any]:
        """The public key, as an issuer publishes it."""
        public = dict(_algorithm(self.algorithm).to_jwk(self.private.public_key(), as_dict=True))
        public.pop("key_ops", None)
        return public | {"kid": self.key_id, "use": "sig", "alg": self.algorithm}

    def sign(self, header: bytes, payload: bytes) -> str:
        """Return a token with this header and these claims, as bytes, so that a test can send any."""
        signed = f"{encoded(header)}.{encoded(payload)}"
        return f"{signed}.{encoded(_algorithm(self.algorithm).sign(signed.encode(), self.private))}"

    def token(self, issuer: str, *, header: Mapping[str, Any] | None = None, **claims: Any) -> str:
        """Return a valid access token, with other members of the header and other claims where given.

        A claim that is None is left out. The service accepts a difference of 30 s between the clocks.
        """
        now = int(time.time())
        members = {"typ": "at+jwt", "alg": self.algorithm, "kid": self.key_id} | dict(header or {})
        payload = {
            "iss": issuer,
            "aud": AUDIENCE,
            "sub": SUBJECT,
            "client_id": "client-1",
            "iat": now,
            "exp": now + 300,
            "jti": f"{time.time_ns()}",
        } | claims
        return self.sign(_json(members), _json(payload))


def make_key(key_id: str = "key-1", kind: Kind = "RS256", *, rsa_bits: int = 2048) -> SigningKey:
    """Return a new key."""
    private: Any
    match kind:
        case "RS256":
            private = rsa.generate_private_key(public_exponent=65537, key_size=rsa_bits)
        case "ES256":
            private = ec.generate_private_key(ec.SECP256R1())
        case "EdDSA":
            private = ed25519.Ed25519PrivateKey.generate()
    return SigningKey(key_id, kind, private)


def encoded(part: bytes) -> str:
    """Return a part of a token: base64url without padding."""
    return urlsafe_b64encode(part).rstrip(b"=").decode()


def _json(members: Mapping[str, Any]) -> bytes:
    return json.dumps({name: value for name, value in members.items() if value is not None}).encode()


def _algorithm(name: str) -> Algorithm:
    return get_default_algorithms()[name]
