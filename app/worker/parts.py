"""Where a request ends in what a client sends: the parser does not say it."""

from collections.abc import Iterable, Iterator

_HEAD_END = b"\r\n\r\n"
_KEPT = len(_HEAD_END) - 1


class RequestParts:
    """Splits what arrives on one connection, so that no part has bytes of two requests.

    A head ends with the first empty line, a body with Content-Length after so many bytes, and a chunked body with
    an empty line, before which the chunks may contain others. So a part ends with an empty line, with the body of a
    known length, or with the data.
    """

    def __init__(self) -> None:
        self._body_bytes_left = 0
        self._last = b""
        """The last bytes of a part that is not whole: an empty line may begin in them."""

    def expect_body(self, size: int) -> None:
        """The part that was read last is a head, and a body of this many bytes follows. 0: none, or a chunked one."""
        self._body_bytes_left = size

    def split(self, data: bytes) -> Iterable[bytes]:
        """Return the parts in order. `expect_body` may be called after each."""
        is_new = not self._last and not self._body_bytes_left
        if is_new and 0 <= data.find(_HEAD_END) == len(data) - len(_HEAD_END):
            return (data,)  # a head alone, as most requests are
        return self._split(data)

    def _split(self, data: bytes) -> Iterator[bytes]:
        start, is_whole = 0, False
        while start < len(data):
            if self._body_bytes_left:
                end = min(len(data), start + self._body_bytes_left)
                self._body_bytes_left -= end - start
                is_whole = not self._body_bytes_left
            else:
                found = self._after_empty_line(data, start)
                is_whole = found is not None
                end = len(data) if found is None else found
            yield data[start:end]
            start = end
        self._last = b"" if is_whole else (self._last + data[-_KEPT:])[-_KEPT:]

    def _after_empty_line(self, data: bytes, start: int) -> int | None:
        if not start:
            found = (self._last + data[:_KEPT]).find(_HEAD_END)
            if found >= 0:
                return found + len(_HEAD_END) - len(self._last)
        found = data.find(_HEAD_END, max(0, start - _KEPT))
        return found + len(_HEAD_END) if found >= 0 else None
