"""The issuer's keys, as this worker knows them: fetched in the background. Only a token with an unknown key waits."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from random import uniform
from typing import Final, Protocol

import structlog

from app.auth.fetching import Fetched, FetchError
from app.auth.key_set import Key, KeySet
from app.auth.shared_keys import FetchedBefore

log = structlog.get_logger(__name__)

SHORTEST_SECONDS: Final = 60.0
LONGEST_SECONDS: Final = 600.0
"""Keys are fetched again after the issuer's `max-age`, bounded by these two. Without one, after the longer one."""

UNKNOWN_KEY_SECONDS: Final = 10.0
"""Tokens with unknown keys cause at most one fetch in this time, however many they are."""

UNKNOWN_KEY_WAIT_SECONDS: Final = 1.0
"""How long a request whose token names an unknown key waits for a fetch, which may bring that key."""

KEPT_SECONDS: Final = 86_400.0
"""Keys are used for so long after the last successful fetch."""

FIRST_SECONDS: Final = 2.0
"""How long a starting worker waits for its first keys."""

_FIRST_RETRY_SECONDS: Final = 1.0
_LONGEST_RETRY_SECONDS: Final = 60.0
_LONGEST_RETRY_WITHOUT_KEYS_SECONDS: Final = 5.0

_ADVICE: Final = (
    "Check AUTH_ISSUER and AUTH_JWKS_URL, and that this machine can reach the issuer. "
    "Known keys are used for a day after the last fetch; without keys requests are answered 503."
)


class KeySource(Protocol):
    """Where keys come from."""

    async def fetch(self) -> Fetched:
        """Return the present keys.

        Raises:
            FetchError: They cannot be had now.
        """


class KeysObserver(Protocol):
    """Receives the results of the fetches, for the metrics."""

    def auth_keys_fetched(self, *, succeeded: bool) -> None:
        """The issuer was asked for its keys just now."""

    def auth_keys_shared(self, fetched_at: float) -> None:
        """This worker uses keys that another one has fetched, at this Unix time."""


class KeysOfWorkers(Protocol):
    """The keys that the workers of an instance have fetched last."""

    def read(self) -> FetchedBefore | None:
        """Return them, if there are any that can be trusted."""

    def write(self, keys: KeySet) -> None:
        """Keep these, which were fetched just now."""


class SharedReport(Protocol):
    """What the workers of an instance have logged last."""

    def replace(self, report: str) -> bool:
        """Make this the last report. False if it is already."""


class IssuerKeys:
    """The keys of one issuer. Only one fetch runs at a time."""

    def __init__(
        self,
        source: KeySource,
        observer: KeysObserver,
        *,
        shared: KeysOfWorkers,
        keys_report: SharedReport,
        fetch_report: SharedReport,
        changed: Callable[[KeySet], None],
    ) -> None:
        """Fetch nothing yet.

        Args:
            source: Where the keys come from.
            observer: Receives the results.
            shared: Used while this worker has no keys of its own.
            keys_report: Shared by the workers, so that a change of the keys is one line at info.
            fetch_report: The same for failures.
            changed: Called with the new keys before they are used.
        """
        self._source = source
        self._observer = observer
        self._shared = shared
        self._keys_report = keys_report
        self._fetch_report = fetch_report
        self._changed = changed
        self._keys: KeySet | None = None
        self._usable_until = 0.0
        self._last_start = float("-inf")
        self._failures = 0
        self._wanted = asyncio.Event()
        self._idle = asyncio.Event()  # set while no fetch is wanted or under way

    @property
    def are_usable(self) -> bool:
        """Whether there are keys, and they are not too old."""
        return time.monotonic() < self._usable_until

    def find(self, key_id: str | None) -> Key | None:
        """The key with this id, or the only one for None. If there is none, the issuer is asked in the background."""
        key = self._keys.find(key_id) if self._keys is not None else None
        if key is None and time.monotonic() - self._last_start >= UNKNOWN_KEY_SECONDS:
            self._wanted.set()
            self._idle.clear()
        return key

    async def wait_for_fetch(self) -> bool:
        """Wait for the fetch that is wanted or under way, at most UNKNOWN_KEY_WAIT_SECONDS. Whether one has ended."""
        if self._idle.is_set():
            return False
        try:
            async with asyncio.timeout(UNKNOWN_KEY_WAIT_SECONDS):
                return await self._idle.wait()
        except TimeoutError:
            return False

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """Keep the keys fresh until the block ends. The block begins after the first fetch, or FIRST_SECONDS."""
        task = asyncio.create_task(self._fetch_repeatedly())
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(FIRST_SECONDS):
                    await self._idle.wait()
            if not self.are_usable:
                self._use_shared()
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _fetch_repeatedly(self) -> None:
        while True:
            self._idle.clear()
            pause = await self._fetch()
            self._idle.set()
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._wanted.wait()

    async def _fetch(self) -> float:
        """Fetch the keys, and return the seconds until the next fetch. They vary, so that workers take turns."""
        self._wanted.clear()
        self._last_start = time.monotonic()
        try:
            fetched = await self._source.fetch()
        except FetchError as error:
            return self._failed(str(error))
        except Exception as error:
            if not self._failures:
                log.exception("auth_keys_fetch_crashed")
            return self._failed(f"{type(error).__qualname__} in this service.")
        self._succeeded(fetched)
        age = LONGEST_SECONDS if fetched.max_age is None else fetched.max_age
        return min(max(age, SHORTEST_SECONDS), LONGEST_SECONDS) * uniform(0.9, 1.0)  # noqa: S311  # nosec B311

    def _succeeded(self, fetched: Fetched) -> None:
        self._use(fetched.keys, age_seconds=0)
        self._shared.write(fetched.keys)
        self._observer.auth_keys_fetched(succeeded=True)
        if self._failures:
            self._failures = 0
            write = log.info if self._fetch_report.replace("ok") else log.debug
            write("auth_keys_fetch_recovered")

    def _use_shared(self) -> None:
        """Use the keys of another worker of this instance, if there are any, until this one has fetched its own."""
        shared = self._shared.read()
        if shared is None or shared.age_seconds >= KEPT_SECONDS:
            return
        self._use(shared.keys, age_seconds=shared.age_seconds)
        self._observer.auth_keys_shared(shared.fetched_at)
        log.info("auth_keys_shared", key_ids=shared.keys.key_ids, age_seconds=round(shared.age_seconds))

    def _use(self, keys: KeySet, *, age_seconds: float) -> None:
        known = self._keys.keys if self._keys is not None else ()
        if set(known) != set(keys.keys):
            # A key that stays is the same object, so that tokens that it has signed stay remembered.
            kept = {key: key for key in known}
            self._replace(KeySet(tuple(kept.get(key, key) for key in keys.keys)))
        self._usable_until = time.monotonic() + KEPT_SECONDS - age_seconds

    def _replace(self, keys: KeySet) -> None:
        self._changed(keys)
        self._keys = keys
        write = log.info if self._keys_report.replace(repr(keys.key_ids)) else log.debug
        write("auth_keys_changed", key_ids=keys.key_ids)

    def _failed(self, cause: str) -> float:
        self._observer.auth_keys_fetched(succeeded=False)
        if not self._failures:
            write = log.warning if self._fetch_report.replace("failed") else log.debug
            write("auth_keys_fetch_failed", cause=cause, advice=_ADVICE)
        if not self.are_usable:
            self._use_shared()
        longest = _LONGEST_RETRY_SECONDS if self.are_usable else _LONGEST_RETRY_WITHOUT_KEYS_SECONDS
        pause = min(_FIRST_RETRY_SECONDS * 2.0 ** min(self._failures, 10), longest)
        self._failures += 1
        return pause * uniform(0.9, 1.0)  # noqa: S311  # nosec B311
