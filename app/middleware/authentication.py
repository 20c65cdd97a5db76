"""The middleware that lets no request in without a valid access token, unless everybody may send it."""

import asyncio
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

from app.auth.access_tokens import AccessTokens
from app.auth.principal import Principal
from app.auth.refusal import Outcome, TokenRefusedError
from app.errors import (
    AuthenticationRequiredError,
    AuthUnavailableError,
    InsufficientScopeError,
    InvalidTokenError,
    RateLimitedError,
    RequestError,
)
from app.health import paths
from app.logs.request_fields import set_principal_fields
from app.middleware.cors import is_preflight
from app.rate_limits.clients import client_of
from app.rate_limits.limits import RateLimits
from app.rate_limits.quotas import Quota
from app.rate_limits.window import Decision
from app.state_keys import FAILURE_CODE, PRINCIPAL

OPEN_PATHS: Final = paths.PROBES | {
    "/",
    "/openapi.json",
    "/docs",
    "/docs/start.js",
    "/docs/swagger-ui-bundle.js",
    "/docs/swagger-ui.css",
}
"""The paths that everybody may read: only GET and HEAD, and exactly these paths."""

_SCHEME: Final = b"bearer "

_MISSING: Final = TokenRefusedError(Outcome.MISSING, "there is no single header Authorization with a Bearer token")


class Authentication:
    """Finds out who sends a request, before it is counted. `http.scopes` says what that client may do.

    Only reading the open paths needs no token, and preflights, which `Preflights` answers. A path that does not exist
    needs one as well.

    A request without a valid token is counted against its address. While an address has used up its quota, no new token
    from it is verified, so that guessing is limited. Clients whose tokens are known go on: another client behind the
    same address cannot lock them out.
    """

    def __init__(
        self,
        app: ASGIApp,
        access_tokens: AccessTokens,
        limits: RateLimits,
        open_paths: frozenset[str],
        *,
        answers_preflights: bool,
    ) -> None:
        self._app = app
        self._access_tokens = access_tokens
        self._observer = access_tokens.observer
        self._limits = limits
        self._open_paths = open_paths
        self._answers_preflights = answers_preflights

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on with its `Principal` in the state, or raise.

        Raises:
            AuthenticationRequiredError: It has no token.
            InvalidTokenError: Its token is not valid here.
            AuthUnavailableError: No token can be verified at the moment.
            RateLimitedError: Its address has sent too many requests without a valid token.
        """
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http" or self._is_open(scope):
            await self._app(scope, receive, send)
            return
        token = _token(scope)
        principal = self._access_tokens.recall(token) if token is not None else None
        if principal is None:
            principal = await self._identify(scope, token)
        state = scope["state"]
        state[PRINCIPAL] = principal
        set_principal_fields(state, principal.log_fields)
        try:
            await self._app(scope, receive, send)
        finally:
            lacks_scope = state.get(FAILURE_CODE) == InsufficientScopeError.code
            self._observer.auth_decided(Outcome.INSUFFICIENT_SCOPE if lacks_scope else Outcome.ACCEPTED)

    def _is_open(self, scope: Scope) -> bool:
        if scope["path"] in self._open_paths and scope["method"] in {"GET", "HEAD"}:
            return True
        return self._answers_preflights and is_preflight(scope)

    async def _identify(self, scope: Scope, token: bytes | None) -> Principal:
        """Who sends a request whose token is not remembered. If its key is unknown, the next keys may have it."""
        quota, address = self._limits.quota(scope["method"]), client_of(scope["client"])
        found = self._verify(scope, token, quota, address)
        if isinstance(found, TokenRefusedError) and found.outcome is Outcome.UNKNOWN_KEY:
            try:
                may_be_known = await self._access_tokens.wait_for_keys()
            except asyncio.CancelledError:
                self._refused(scope, quota, address, found)  # a client that does not wait is counted too
                raise
            if may_be_known:
                # The quota is checked again: others of this address may have been refused meanwhile.
                found = self._verify(scope, token, quota, address)
        if isinstance(found, TokenRefusedError):
            raise self._refused(scope, quota, address, found)
        return found

    def _verify(self, scope: Scope, token: bytes | None, quota: Quota, address: str) -> Principal | TokenRefusedError:
        """Who sends the request, or why the token is refused.

        Raises:
            RateLimitedError: The address has used up the quota, so its tokens are not verified.
        """
        limits = self._limits
        if limits.enabled and (refusal := limits.refusal(quota, address)):
            raise self._limited(scope, quota, refusal)
        if token is None:
            return _MISSING
        try:
            return self._access_tokens.verify(token)
        except TokenRefusedError as refused:
            return refused

    def _refused(self, scope: Scope, quota: Quota, address: str, refused: TokenRefusedError) -> RequestError:
        """Count the request, and return the error that answers it."""
        set_principal_fields(scope["state"], {"token_refused": refused.reason})
        self._observer.auth_decided(refused.outcome)
        if self._limits.enabled:
            decision = self._limits.hit_on_host(quota, address)
            if not decision.admitted:
                return self._limited(scope, quota, decision)
            scope["state"]["rate_limit_headers"] = quota.headers(decision.remaining, decision.reset_seconds)
        if refused.outcome is Outcome.MISSING:
            return AuthenticationRequiredError()
        return AuthUnavailableError() if refused.outcome is Outcome.UNAVAILABLE else InvalidTokenError()

    @staticmethod
    def _limited(scope: Scope, quota: Quota, decision: Decision) -> RequestError:
        scope["state"]["rate_limit_headers"] = quota.headers(decision.remaining, decision.reset_seconds)
        return RateLimitedError(quota.retry_seconds(decision))


def _token(scope: Scope) -> bytes | None:
    """The token of the request. None if it has no Authorization header, several, or one of another scheme."""
    found: bytes | None = None
    for name, value in scope["headers"]:
        if name == b"authorization":
            if found is not None:
                return None
            found = value
    if found is None or found[: len(_SCHEME)].lower() != _SCHEME:
        return None
    return found[len(_SCHEME) :].strip(b" ") or None
