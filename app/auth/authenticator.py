"""Says who sends a request: verifies its token once, and remembers it until it expires."""

import time
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from hashlib import sha256
from pathlib import Path
from typing import Final

from app.auth.access_tokens import AuthenticationObserver
from app.auth.claims import Rules
from app.auth.fetching import IssuerClient
from app.auth.key_set import KeySet
from app.auth.keys import IssuerKeys, SharedReport
from app.auth.principal import Principal
from app.auth.refusal import Outcome, TokenRefusedError
from app.auth.shared_keys import SharedKeys
from app.auth.tokens import VerifiedToken, verify

MAX_REMEMBERED: Final = 4096
"""Verified tokens that a worker remembers. Those that were not used for the longest time are forgotten first."""


class Authenticator:
    """Verifies the access tokens of one issuer for one audience."""

    def __init__(
        self,
        *,
        issuer: str,
        audience: str,
        jwks_url: str | None,
        observer: AuthenticationObserver,
        shared_folder: Path | None,
        keys_report: SharedReport,
        fetch_report: SharedReport,
    ) -> None:
        """Open nothing yet.

        The arguments are the settings AUTH_ISSUER, AUTH_AUDIENCE and AUTH_JWKS_URL, the folder that the workers of this
        instance share, if there is one, and those of `IssuerKeys`.
        """
        self._rules = Rules(issuer=issuer, audience=audience)
        self._client = IssuerClient(issuer, jwks_url)
        self._keys = IssuerKeys(
            self._client,
            observer,
            shared=SharedKeys(shared_folder, issuer=issuer, jwks_url=jwks_url),
            keys_report=keys_report,
            fetch_report=fetch_report,
            changed=self._forget_removed,
        )
        self._remembered = OrderedDict[bytes, VerifiedToken]()
        self.observer: AuthenticationObserver = observer

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """Keep the issuer's keys until the block ends."""
        self.observer.auth_opened(Outcome)
        async with self._client.opened(), self._keys.opened():
            yield

    @property
    def is_available(self) -> bool:
        """Whether tokens can be verified: there are keys that are not too old."""
        return self._keys.are_usable

    def recall(self, token: bytes) -> Principal | None:
        """Who sent this token, if it was verified before and is still accepted."""
        digest = sha256(token).digest()
        remembered = self._remembered.get(digest)
        if remembered is None or not self._keys.are_usable:
            return None
        if time.time() >= remembered.accepted_until:
            del self._remembered[digest]
            return None
        self._remembered.move_to_end(digest)
        return remembered.principal

    def verify(self, token: bytes) -> Principal:
        """Who sent this token. Its signature is checked, and it is remembered.

        Raises:
            TokenRefusedError: It is not valid, or there are no keys to tell.
        """
        if not self._keys.are_usable:
            raise TokenRefusedError(Outcome.UNAVAILABLE, "there are no keys of the issuer that are not too old")
        verified = verify(token, self._keys.find, self._rules)
        self._remembered[sha256(token).digest()] = verified
        if len(self._remembered) > MAX_REMEMBERED:
            self._remembered.popitem(last=False)
        return verified.principal

    async def wait_for_keys(self) -> bool:
        """Wait for the fetch of keys that `verify` has caused, or another one. False if none has ended in time."""
        return await self._keys.wait_for_fetch()

    def _forget_removed(self, keys: KeySet) -> None:
        """Forget the tokens whose keys the issuer no longer publishes."""
        kept = set(keys.keys)
        for digest in [digest for digest, token in self._remembered.items() if token.key not in kept]:
            del self._remembered[digest]
