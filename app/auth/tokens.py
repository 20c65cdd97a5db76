"""Verifies one access token: its form, its header and its signature. `claims` says what it must contain."""

import re
from base64 import urlsafe_b64decode
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from jwt.api_jws import PyJWS
from jwt.exceptions import PyJWTError

from app.auth.claims import Rules
from app.auth.key_set import ALGORITHM_NAMES, Key
from app.auth.principal import Principal
from app.auth.refusal import Outcome, TokenRefusedError
from app.auth.strict_json import parse_object

MAX_TOKEN_BYTES: Final = 8192

_FORM: Final = re.compile(rb"([A-Za-z0-9_-]+)\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")

_TYPES: Final = frozenset({"jwt", "at+jwt", "application/at+jwt"})
"""What `typ` may be, in lower case. Tokens for other purposes name another type (RFC 8725)."""

_SIGNATURES: Final = PyJWS(algorithms=sorted(ALGORITHM_NAMES))


@dataclass(frozen=True, slots=True)
class VerifiedToken:
    """What a token says, until when it is accepted, and which key has signed it."""

    principal: Principal
    accepted_until: float
    """In Unix time."""
    key: Key


def verify(token: bytes, find_key: Callable[[str | None], Key | None], rules: Rules) -> VerifiedToken:
    """Return what a token says. It takes about 0.1 ms.

    Args:
        token: What the client sent.
        find_key: Returns the key with an id, or the only key for None.
        rules: What the claims must be.

    Raises:
        TokenRefusedError: It is not a valid access token for this service.
    """
    header = _header(token)
    key = find_key(header.get("kid"))
    if key is None:
        raise TokenRefusedError(Outcome.UNKNOWN_KEY, "kid names no usable key of the issuer")
    if header.get("alg") != key.public.algorithm_name:
        raise TokenRefusedError(Outcome.BAD_SIGNATURE, f"alg is not {key.public.algorithm_name}, as its key needs")
    try:
        payload = _SIGNATURES.decode(token, key.public)
    except PyJWTError:
        raise TokenRefusedError(Outcome.BAD_SIGNATURE, "its signature is not one of this key") from None
    try:
        claims = parse_object(payload)
    except ValueError as error:
        raise TokenRefusedError(Outcome.BAD_CLAIMS, f"its claims cannot be read: {error}") from None
    principal, accepted_until = rules.apply(claims)
    return VerifiedToken(principal, accepted_until, key)


def _header(token: bytes) -> dict[str, Any]:
    """The header of a token. Members that point to keys (`jku`, `jwk`, `x5u`, `x5c`) are never used.

    Raises:
        TokenRefusedError: The token or its header is malformed, or it needs an extension that is not known here.
    """
    if len(token) > MAX_TOKEN_BYTES:
        raise _malformed(f"it has more than {MAX_TOKEN_BYTES} bytes")
    form = _FORM.fullmatch(token)
    if form is None:
        raise _malformed("it is not a signed JWT in its compact form")
    try:
        header = parse_object(urlsafe_b64decode(form[1] + b"=="))
    except ValueError as error:
        raise _malformed(f"its header cannot be read: {error}") from None
    if "crit" in header or "b64" in header:
        raise _malformed("it needs an extension that is not known here (crit)")
    if not isinstance(header.get("kid", ""), str):
        raise _malformed("kid is not a text")
    kind = header.get("typ", "JWT")
    if not isinstance(kind, str) or kind.lower() not in _TYPES:
        raise _malformed("typ says that it is no access token")
    return header


def _malformed(reason: str) -> TokenRefusedError:
    return TokenRefusedError(Outcome.MALFORMED, reason)
