"""Tokens that a service must not accept, although their sender knows all that is public."""

import hashlib
import hmac
import json
import time
from collections.abc import Iterator
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.issuer.tokens import AUDIENCE, SigningKey, encoded, make_key

Attack = tuple[str, str]
"""What is wrong with a token, and the token."""


class Attacker:
    """Makes tokens from an issuer's public keys, and tokens that the issuer has signed for others or by mistake."""

    def __init__(self, issuer: str, rsa: SigningKey, ec: SigningKey, elsewhere: str) -> None:
        """Know an issuer.

        Args:
            issuer: Its address.
            rsa: Its key for RS256.
            ec: Its key for ES256.
            elsewhere: An address at which a service that trusts the header of a token would ask for keys.
        """
        self._issuer = issuer
        self._rsa = rsa
        self._ec = ec
        self._elsewhere = elsewhere
        self._valid = rsa.token(issuer, scope="samples:read samples:write")
        self._head = {"alg": "RS256", "typ": "at+jwt", "kid": rsa.key_id}
        self._claims = {
            "iss": issuer, "aud": AUDIENCE, "sub": "user-1", "scope": "samples:read", "exp": int(time.time()) + 300,
        }  # fmt: skip

    def all(self) -> list[Attack]:
        """All of them."""
        return [
            *self._without_signature(),
            *self._with_symmetric_signature(),
            *self._with_another_algorithm(),
            *self._with_another_key(),
            *self._with_a_key_in_the_header(),
            *self._with_names_of_keys(),
            *self._with_other_headers(),
            *self._with_ambiguous_json(),
            *self._with_times(),
            *self._with_other_claims(),
            *self._malformed(),
        ]

    def controls(self) -> list[Attack]:
        """Tokens that must be accepted. They show that the others are refused for what is wrong with them."""
        now = int(time.time())
        head = {name: value for name, value in self._head.items() if name != "typ"}
        ec = self._head | {"alg": "ES256", "kid": self._ec.key_id}
        return [
            ("the claims of the others", self._signed(self._head, self._claims)),
            ("the other key", self._signed(ec, self._claims, self._ec)),
            ("the type JWT", self._signed(self._head | {"typ": "JWT"}, self._claims)),
            ("the type in full", self._signed(self._head | {"typ": "application/at+jwt"}, self._claims)),
            ("no type", self._signed(head, self._claims)),
            ("keys in the header that are not needed", self._signed(head | {"jku": self._elsewhere}, self._claims)),
            ("several audiences", self._signed(head, self._claims | {"aud": ["https://x.example.com", AUDIENCE]})),
            ("scp as a text", self._signed(head, self._without("scope") | {"scp": "x samples:read"})),
            ("scp as a list", self._signed(head, self._without("scope") | {"scp": ["x", "samples:read"]})),
            ("no subject", self._signed(head, self._without("sub") | {"client_id": "client-1"})),
            (
                "times with fractions",
                self._signed(head, self._claims | {"exp": now + 9.5, "nbf": now + 9.5, "iat": now}),
            ),
            ("a clock that is 20 s off", self._signed(head, self._claims | {"exp": now - 20, "iat": now - 90})),
            ("unknown claims", self._signed(head, self._claims | {"typ": "Bearer", "token_use": "access", "x": [{}]})),
        ]

    def _without(self, name: str) -> dict[str, Any]:
        return {other: value for other, value in self._claims.items() if other != name}

    def _signed(self, header: Any, claims: Any, key: SigningKey | None = None) -> str:
        """A token with this header and these claims, either of which may be exact bytes, with a good signature."""
        return (key or self._rsa).sign(_bytes(header), _bytes(claims))

    def _without_signature(self) -> Iterator[Attack]:
        first, second, third = self._valid.split(".")
        for name in ("none", "None", "nOnE", "NONE", ""):
            head = _part(self._head | {"alg": name})
            yield f"the algorithm {name!r} without a signature", f"{head}.{second}."
            yield f"the algorithm {name!r} with a signature", f"{head}.{second}.{third}"
        yield "the signature is missing", f"{first}.{second}."
        yield "a changed claim", f"{first}.{_part(self._claims | {'scope': 'admin'})}.{third}"
        head = _part(self._head | {"alg": "ES256", "kid": self._ec.key_id})
        for size in (0, 63, 64, 65, 128):
            yield f"a signature of {size} zeros", f"{head}.{_part(self._claims)}.{encoded(bytes(size))}"

    def _with_symmetric_signature(self) -> Iterator[Attack]:
        public = self._rsa.private.public_key()
        secrets = {
            "PEM": public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
            "PKCS1": public.public_bytes(Encoding.PEM, PublicFormat.PKCS1),
            "DER": public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
            "JWK": json.dumps(self._rsa.jwk).encode(),
            "modulus": self._rsa.jwk["n"].encode(),
            "name of the key": self._rsa.key_id.encode(),
            "nothing": b"",
        }
        secrets["PEM without its last line break"] = secrets["PEM"].strip()
        for name, secret in secrets.items():
            for head in (self._head | {"alg": "HS256"}, {"alg": "HS256"}, self._head):
                text = f"{_part(head)}.{_part(self._claims)}"
                signature = encoded(hmac.new(secret, text.encode(), hashlib.sha256).digest())
                yield f"a symmetric signature by the {name}, {head}", f"{text}.{signature}"

    def _with_another_algorithm(self) -> Iterator[Attack]:
        for algorithm in ("RS384", "RS512", "PS256", "ES256", "ES384", "EdDSA", "HS256", "rs256", "RS256 ", "A128KW"):
            header = self._head | {"alg": algorithm}
            by_name = SigningKey(self._rsa.key_id, algorithm, self._rsa.private)
            key = by_name if algorithm[:2] in {"RS", "PS"} and algorithm.endswith(("84", "12")) else self._rsa
            yield f"the algorithm {algorithm!r}", self._signed(header, self._claims, key)
        yield "no algorithm", self._signed({"kid": self._rsa.key_id}, self._claims)
        for value in (None, 256, ["RS256"], {"RS256": 1}):
            yield f"the algorithm {value!r}", self._signed(self._head | {"alg": value}, self._claims)

    def _with_another_key(self) -> Iterator[Attack]:
        yield "another RSA key of this name", make_key(self._rsa.key_id, "RS256").token(self._issuer)
        yield "another EC key of this name", make_key(self._ec.key_id, "ES256").token(self._issuer)
        yield "a key of another kind with this name", make_key(self._rsa.key_id, "EdDSA").token(self._issuer)
        yield "the name of the other key", self._signed(self._head | {"kid": self._ec.key_id}, self._claims)
        yield "no name, and two keys", self._signed({"alg": "RS256", "typ": "at+jwt"}, self._claims)
        yield "an unknown name", make_key("unknown", "RS256").token(self._issuer)

    def _with_a_key_in_the_header(self) -> Iterator[Attack]:
        members = {
            "jwk": make_key("rsa", "RS256").jwk,
            "jku": self._elsewhere,
            "x5u": self._elsewhere,
            "x5c": ["MIIB"],
            "x5t": "abc",
            "url": self._elsewhere,
            "keys": self._elsewhere,
        }
        for kid in (self._rsa.key_id, "unknown"):
            stranger = make_key(kid, "RS256")
            for name, value in members.items():
                yield f"{name} in the header of {kid!r}", stranger.token(self._issuer, header={name: value})
            yield f"all in the header of {kid!r}", stranger.token(self._issuer, header=members)

    def _with_names_of_keys(self) -> Iterator[Attack]:
        stranger = make_key("stranger", "RS256")
        names: list[Any] = [
            "../../../../dev/null",
            "/dev/null",
            "' OR '1'='1",
            "\0",
            "\n",
            "",
            "\ud800",
            self._elsewhere,
        ]
        names += [f"{self._rsa.key_id}\0", self._rsa.key_id.upper(), f" {self._rsa.key_id}", "n" * 3000, "{}", "$(id)"]
        names += [1, 1.5, True, [self._rsa.key_id], {self._rsa.key_id: 1}]
        for name in names:
            yield f"the name {name!r:.30}", stranger.sign(_bytes(self._head | {"kid": name}), _bytes(self._claims))
        for name in (None, 1, True, [self._rsa.key_id]):
            yield f"the name {name!r} and a good signature", self._signed(self._head | {"kid": name}, self._claims)

    def _with_other_headers(self) -> Iterator[Attack]:
        for crit in (["exp"], ["b64"], ["http://example.com/x"], [], None, "exp"):
            yield f"crit {crit!r}", self._signed(self._head | {"crit": crit, "exp": 1}, self._claims)
        yield "b64", self._signed(self._head | {"b64": False, "crit": ["b64"]}, self._claims)
        yield "compressed claims", self._signed(self._head | {"zip": "DEF"}, b"\x78\x9c\x03\x00\x00\x00\x00\x01")
        kinds: list[Any] = [
            "id_token+jwt",
            "logout+jwt",
            "dpop+jwt",
            "secevent+jwt",
            "JWE",
            "",
            " JWT",
            1,
            None,
            ["JWT"],
        ]
        for kind in kinds:
            yield f"the type {kind!r}", self._signed(self._head | {"typ": kind}, self._claims)

    def _with_ambiguous_json(self) -> Iterator[Attack]:
        kid = self._rsa.key_id.encode()
        yield "two algorithms", self._signed(b'{"alg":"none","alg":"RS256","kid":"%b"}' % kid, self._claims)
        yield "two names of keys", self._signed(b'{"alg":"RS256","kid":"x","kid":"%b"}' % kid, self._claims)
        claims = _bytes(self._claims)[:-1]
        for name, member in {
            "two subjects": b'"sub": "admin"',
            "two times of expiry": b'"exp": 99999999999',
            "two audiences, one escaped": rb'"\u0061ud": "x"',
            "two scopes": b'"scope": "admin"',
            "two members inside of a claim": b'"act": {"sub": "a", "sub": "b"}',
            "two members inside of a list": b'"act": [{"sub": "a", "sub": "b"}]',
            "a number that is infinite": b'"x": 1e999',
            "NaN": b'"x": NaN',
            "Infinity": b'"x": -Infinity',
        }.items():
            yield name, self._signed(self._head, claims + b", " + member + b"}")

    def _with_times(self) -> Iterator[Attack]:
        now = int(time.time())
        claims = _bytes(self._without("exp"))[:-1]
        values = [
            "NaN",
            "Infinity",
            "1e999",
            "9" * 5000,
            '"99999999999"',
            "null",
            "true",
            "[99999999999]",
            "{}",
            "-1",
            "0",
        ]
        for value in values:
            yield f"exp {value:.20}", self._signed(self._head, claims + b', "exp": ' + value.encode() + b"}")
        yield "no exp", self._signed(self._head, claims + b"}")
        times: dict[str, list[Any]] = {"exp": [now - 31], "nbf": [now + 90, "0", True, None], "iat": [now + 90, [0]]}
        for name, moments in times.items():
            for moment in moments:
                yield f"{name} {moment!r}", self._signed(self._head, self._claims | {name: moment})

    def _with_other_claims(self) -> Iterator[Attack]:
        wrong: dict[str, list[Any]] = {
            "iss": ["https://another.example.com", f"{self._issuer}/", self._issuer.upper(), [self._issuer], None, 1],
            "aud": ["https://another.example.com", f"{AUDIENCE}/", AUDIENCE[:-1], AUDIENCE.upper(), f"{AUDIENCE} x",
                    None, [], "", 1, [[AUDIENCE]], {AUDIENCE: True}, [AUDIENCE, 1], [None]],
            "sub": ["", "a\nb", "a\0b", "\u202e", "s" * 256, 7, None, ["user-1"], {"id": 1}, True],
            "client_id": ["", "a\r\nb", 7, ["a"]],
            "scope": [["samples:read"], {"samples:read": True}, 1, None],
            "at_hash": ["x"],
            "typ": ["ID", "Refresh", "Offline", "Logout"],
            "token_use": ["id"],
            "cnf": [{"jkt": "x"}, {"x5t#S256": "x"}],
            "events": [{"http://schemas.openid.net/event/backchannel-logout": {}}],
        }  # fmt: skip
        for name, claim_values in wrong.items():
            for value in claim_values:
                yield f"the claim {name} {value!r:.40}", self._signed(self._head, self._claims | {name: value})
        for name in ("iss", "aud", "sub"):
            yield f"no {name}", self._signed(self._head, self._without(name))
        for name, claims in {
            "a list": b"[]", "a text": b'"text"', "a number": b"1", "nothing": b"", "null": b"null", "not JSON": b"{",
            "two documents": _bytes(self._claims) * 2, "JSON in UTF-16": json.dumps(self._claims).encode("utf-16"),
            "JSON with a byte order mark": b"\xef\xbb\xbf" + _bytes(self._claims),
            "deep": b'{"a":' * 900 + b"1" + b"}" * 900, "lists": b"[" * 5000, "bytes": b"\xff\xfe\xfd",
        }.items():  # fmt: skip
            yield f"claims that are {name}", self._signed(self._head, claims)

    def _malformed(self) -> Iterator[Attack]:
        first, second, third = self._valid.split(".")
        yield "two parts", f"{first}.{second}"
        yield "four parts", f"{self._valid}.{third}"
        yield "five parts, as if it were encrypted", f"{first}.{second}.{third}.{second}.{third}"
        yield "two tokens with a comma", f"{self._valid},{self._valid}"
        yield "two tokens with a space", f"{self._valid} {self._valid}"
        yield "a space inside", f"{first} .{second}.{third}"
        yield "padded parts", f"{first}==.{second}.{third}="
        yield "the other alphabet", f"{first}.{second}.+/{third[2:]}"
        yield "quoted", f'"{self._valid}"'
        yield "JSON", json.dumps({"protected": first, "payload": second, "signature": third})
        yield "dots", ".."
        yield "a letter", "x"
        yield "bytes that are no ASCII", "\xe4\xf6\xfc.\xe4.\xf6"
        yield "too long", self._rsa.token(self._issuer, padding="x" * 8192)
        for header in (b"[]", b"{}", b"1", b"{", b'"alg"', b"\xff", b'{"alg":' * 900):
            yield f"the header {header[:10]!r}", self._signed(header, self._claims)


def _bytes(content: Any) -> bytes:
    return content if isinstance(content, bytes) else json.dumps(content).encode()


def _part(content: Any) -> str:
    return encoded(_bytes(content))
