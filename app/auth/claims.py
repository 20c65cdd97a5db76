"""What the claims of an access token must say, once its signature is verified."""

import time
from typing import Any, Final

from app.auth.principal import Principal
from app.auth.refusal import Outcome, TokenRefusedError

LEEWAY_SECONDS: Final = 30.0
"""How much the clocks of the issuer and of this machine may differ."""

_MAX_NAME_CHARACTERS: Final = 255
_MAX_SHOWN_CHARACTERS: Final = 100
_MAX_SCOPES: Final = 128

_OF_OTHER_TOKENS: Final = ("at_hash", "c_hash", "events")
"""Claims that only ID tokens and logout tokens have (OpenID Connect Core 3.1.3.6 and 3.3.2.11, RFC 8417)."""

_OTHER_KINDS: Final = {"typ": {"id", "refresh", "offline", "logout"}, "token_use": {"id"}}
"""How Keycloak (`typ`) and Cognito (`token_use`) mark tokens that are no access tokens."""


class Rules:
    """The issuer and the audience that tokens must have."""

    def __init__(self, *, issuer: str, audience: str) -> None:
        self._issuer = issuer
        self._audience = audience

    def apply(self, claims: dict[str, Any]) -> tuple[Principal, float]:
        """Return who the token is about, and the Unix time at which it is no longer accepted.

        Raises:
            TokenRefusedError: A claim is missing or malformed, or says that the token is not for this service, or not
                for this time.
        """
        if (issuer := claims.get("iss")) != self._issuer:
            raise TokenRefusedError(Outcome.WRONG_ISSUER, f"iss is {_shown(issuer)}, not AUTH_ISSUER")
        audience = claims.get("aud")
        if self._audience not in _texts("aud", [audience] if isinstance(audience, str) else audience):
            raise TokenRefusedError(Outcome.WRONG_AUDIENCE, f"aud is {_shown(audience)}, without AUTH_AUDIENCE")
        accepted_until = _check_times(claims)
        _check_kind(claims)
        subject, client_id = _name(claims, "sub"), _name(claims, "client_id") or _name(claims, "azp")
        if subject is None and client_id is None:
            raise _bad("it has neither sub nor client_id")
        principal = Principal.of(issuer=self._issuer, subject=subject, client_id=client_id, scopes=_scopes(claims))
        return principal, accepted_until


def _check_times(claims: dict[str, Any]) -> float:
    now = time.time()
    expires = _time(claims, "exp")
    if expires is None:
        raise _bad("it has no exp")
    if expires + LEEWAY_SECONDS <= now:
        raise TokenRefusedError(Outcome.EXPIRED, f"it expired {now - expires:.0f} s ago")
    for name in ("nbf", "iat"):
        begins = _time(claims, name)
        if begins is not None and begins - LEEWAY_SECONDS > now:
            raise TokenRefusedError(Outcome.NOT_YET_VALID, f"{name} is {begins - now:.0f} s in the future")
    return expires + LEEWAY_SECONDS


def _check_kind(claims: dict[str, Any]) -> None:
    """Refuse a token that is not a bearer's access token, as far as its claims tell."""
    for name in _OF_OTHER_TOKENS:
        if name in claims:
            raise _bad(f"it has {name}, so it is no access token")
    for name, kinds in _OTHER_KINDS.items():
        kind = claims.get(name)
        if isinstance(kind, str) and kind.lower() in kinds:
            raise _bad(f"{name} is {_shown(kind)}, so it is no access token")
    if "cnf" in claims:
        # A thief must not be able to use such a token, and this service cannot check the proof.
        raise _bad("it is bound to a key of its client (cnf), which a bearer token cannot prove")


def _scopes(claims: dict[str, Any]) -> frozenset[str]:
    """The scopes: `scope` as one text (RFC 9068), or `scp` as a text or a list."""
    name = "scope" if "scope" in claims else "scp"
    value = claims.get(name, "")
    if name == "scope" and not isinstance(value, str):
        raise _bad("scope is not a text")
    scopes = frozenset(value.split(" ") if isinstance(value, str) else _texts(name, value)) - {""}
    if len(scopes) > _MAX_SCOPES:
        raise _bad(f"it has more than {_MAX_SCOPES} scopes")
    return scopes


def _texts(name: str, value: Any) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(entry, str) for entry in value):
        raise _bad(f"{name} is missing, or neither a text nor a list of texts")
    return value


def _time(claims: dict[str, Any], name: str) -> float | None:
    value = claims.get(name)
    if value is None and name not in claims:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _bad(f"{name} is not a number")
    try:
        return float(value)
    except OverflowError:
        raise _bad(f"{name} is too large") from None


def _name(claims: dict[str, Any], name: str) -> str | None:
    value = claims.get(name)
    if value is None and name not in claims:
        return None
    if not isinstance(value, str) or not 0 < len(value) <= _MAX_NAME_CHARACTERS or not value.isprintable():
        raise _bad(f"{name} is not a text of 1 to {_MAX_NAME_CHARACTERS} printable characters")
    return value


def _shown(value: Any) -> str:
    """The value for the log. The issuer has signed it, so it is no text of an attacker."""
    return repr(value)[:_MAX_SHOWN_CHARACTERS]


def _bad(reason: str) -> TokenRefusedError:
    return TokenRefusedError(Outcome.BAD_CLAIMS, reason)
