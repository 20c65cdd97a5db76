"""The headers that every response has: its id, the quota, caching, and no guessing of content types."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

_Headers = list[tuple[bytes, bytes]]

_NO_SNIFF: Final = (b"x-content-type-options", b"nosniff")
_PRIVATE: Final[_Headers] = [_NO_SNIFF, (b"cache-control", b"private, no-cache")]
_NO_STORE: Final[_Headers] = [_NO_SNIFF, (b"cache-control", b"no-store")]
_CACHED_AS_SET: Final[_Headers] = [_NO_SNIFF]


class ResponseHeaders:
    """Chooses the headers for a response.

    A client may keep what a resource has answered, and must ask whether it is still current. All other responses are
    not stored, unless a route sets `Cache-Control` itself.
    """

    def __init__(self, resources: Sequence[str]) -> None:
        """Take the paths of the resources' lists."""
        self._lists = frozenset(resources)
        self._below = tuple(f"{path}/" for path in resources if path)

    def complete(self, path: str, headers: Iterable[tuple[bytes, bytes]], state: Mapping[str, Any]) -> _Headers:
        """Return all headers of a response to this path, for a request with this state."""
        request_id = (b"x-request-id", state["request_id"].encode())
        return [*headers, request_id, *state.get("rate_limit_headers", ()), *self._missing(path, headers)]

    def _missing(self, path: str, headers: Iterable[tuple[bytes, bytes]]) -> _Headers:
        """Return what a response to this path lacks. The list is shared."""
        for name, _ in headers:
            if name == b"cache-control":
                return _CACHED_AS_SET
        is_resource = path in self._lists or path.startswith(self._below)
        return _PRIVATE if is_resource else _NO_STORE
