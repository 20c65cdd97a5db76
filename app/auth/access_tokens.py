"""What the application may ask of the part that verifies tokens. That part is imported only where it is used."""

from collections.abc import Iterable
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from app.auth.principal import Principal


class AuthenticationObserver(Protocol):
    """Receives what became of the requests and of the fetches of keys, for the metrics."""

    def auth_opened(self, outcomes: Iterable[str]) -> None:
        """Requests need access tokens from now on, and have one of these outcomes."""

    def auth_decided(self, outcome: str) -> None:
        """A request was accepted or refused: an `Outcome`."""

    def auth_keys_fetched(self, *, succeeded: bool) -> None:
        """The issuer was asked for its keys just now."""

    def auth_keys_shared(self, fetched_at: float) -> None:
        """This worker uses keys that another one has fetched, at this Unix time."""


class AccessTokens(Protocol):
    """Verifies access tokens."""

    observer: AuthenticationObserver

    @property
    def is_available(self) -> bool:
        """Whether tokens can be verified: there are keys that are not too old."""

    def opened(self) -> AbstractAsyncContextManager[None]:
        """Keep the issuer's keys until the block ends."""

    def recall(self, token: bytes) -> Principal | None:
        """Who sent this token, if it was verified before and is still accepted."""

    def verify(self, token: bytes) -> Principal:
        """Who sent this token. Its signature is checked, and it is remembered.

        Raises:
            TokenRefusedError: It is not valid, or there are no keys to tell.
        """

    async def wait_for_keys(self) -> bool:
        """Wait for the fetch of keys that an unknown key has caused, or for the one that is under way.

        Returns:
            Whether it has ended, so that another `verify` may know the key. False at once if there is no fetch, and
            after a second if it goes on.
        """
