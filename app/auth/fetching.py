"""Asks the issuer for its keys, over HTTP, with limits on all that it may answer."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import httpx

from app.auth.key_set import KeySet
from app.auth.strict_json import parse_object
from app.settings.addresses import check_issuer_url

MAX_ANSWER_BYTES: Final = 256 * 1024

SECONDS: Final = 5.0
"""How long one request may take in all, however slowly the issuer sends."""

_DISCOVERY: Final = "/.well-known/openid-configuration"
_MAX_AGE: Final = re.compile(r'(?:^|[\s,])max-age\s*=\s*"?(\d{1,9})', re.IGNORECASE)
_NOT_CACHED: Final = re.compile(r"(?:^|[\s,])no-(?:store|cache)(?:$|[\s,])", re.IGNORECASE)


class FetchError(Exception):
    """The issuer did not answer with its keys. The message says what it did instead."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """The keys of the issuer."""

    keys: KeySet
    max_age: float | None
    """How long they may be kept, in seconds. None if the issuer does not say it."""


class IssuerClient:
    """Fetches the keys of one issuer: from the place that its discovery document names, or from AUTH_JWKS_URL."""

    def __init__(self, issuer: str, jwks_url: str | None) -> None:
        self._issuer = issuer
        self._jwks_url = jwks_url
        self._http: httpx.AsyncClient | None = None

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """Open the HTTP client of this worker. A proxy between this machine and the issuer is read from HTTPS_PROXY."""
        async with httpx.AsyncClient(
            timeout=SECONDS,
            follow_redirects=False,
            trust_env=self._issuer.startswith("https:"),  # an issuer on this machine is not behind a proxy
            headers={"Accept": "application/json", "Accept-Encoding": "identity"},
            limits=httpx.Limits(max_connections=1, max_keepalive_connections=0),
        ) as self._http:
            yield

    async def fetch(self) -> Fetched:
        """Return the keys that the issuer publishes now.

        Raises:
            FetchError: It cannot be reached, or does not answer with keys.
        """
        url = self._jwks_url or await self._discover()
        document, max_age = await self._get(url)
        try:
            return Fetched(KeySet.parse(document), max_age)
        except ValueError as error:
            raise FetchError(f"{url} does not answer with a key set: {error}.") from None

    async def _discover(self) -> str:
        url = self._issuer.removesuffix("/") + _DISCOVERY
        document, _ = await self._get(url)
        try:
            found = parse_object(document)
        except ValueError as error:
            raise FetchError(f"{url} does not answer with a discovery document: {error}.") from None
        if found.get("issuer") != self._issuer:
            raise FetchError(f"{url} is the document of another issuer: AUTH_ISSUER must be exactly its `issuer`.")
        return self._checked_jwks_url(found.get("jwks_uri"), url)

    def _checked_jwks_url(self, value: Any, source: str) -> str:
        try:
            return check_issuer_url(value if isinstance(value, str) else "", with_query=True)
        except ValueError as error:
            raise FetchError(f"jwks_uri in {source} {error}.") from None

    async def _get(self, url: str) -> tuple[bytes, float | None]:
        """Return the body of the answer, and how long it may be kept, in seconds."""
        if self._http is None:
            raise RuntimeError("The client of the issuer is not open. Enter the application's lifespan first.")
        try:
            async with asyncio.timeout(SECONDS), self._http.stream("GET", url) as response:
                if response.status_code != httpx.codes.OK:
                    raise FetchError(f"{url} answers with status {response.status_code} instead of 200.")
                if response.headers.get("Content-Encoding", "identity").lower() != "identity":
                    raise FetchError(f"{url} answers compressed, although it was asked not to.")
                body = bytearray()
                async for part in response.aiter_raw():
                    body += part
                    if len(body) > MAX_ANSWER_BYTES:
                        raise FetchError(f"{url} answers with more than {MAX_ANSWER_BYTES} bytes.")
                return bytes(body), _max_age(response.headers.get("Cache-Control", ""))
        except TimeoutError:
            raise FetchError(f"{url} has not answered within {SECONDS:g} s.") from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise FetchError(f"{url} cannot be read: {str(error) or type(error).__name__}.") from None


def _max_age(cache_control: str) -> float | None:
    if _NOT_CACHED.search(cache_control):
        return 0.0
    found = _MAX_AGE.search(cache_control)
    return float(found[1]) if found else None
