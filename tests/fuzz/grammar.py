"""Makes the bytes that one connection sends: valid requests, changed in zero to three places."""

import itertools
import json
import re
from dataclasses import dataclass
from enum import StrEnum
from random import Random

from tests.fuzz.changes import CHANGES

PATH = "/samples"
"""The requests are those of the tests' own resource."""

FIRST_ID = 10**12
"""The id of the first sample that requests change. No shorter number in a changed target names a sample."""

MAX_REQUESTS = 6
"""The most requests of one connection. Each has a sample of its own."""

_MAX_BODY_BYTES = 65_536


@dataclass(frozen=True, slots=True)
class _Kind:
    """A kind of request."""

    weight: int
    method: str
    target: str
    status: int


_KINDS = (
    _Kind(35, "POST", PATH, 201),
    _Kind(30, "DELETE", PATH + "/{sample}", 204),
    _Kind(8, "PUT", PATH + "/{sample}", 200),
    _Kind(8, "PATCH", PATH + "/{sample}", 200),
    _Kind(8, "GET", PATH + "/{sample}", 200),
    _Kind(3, "GET", PATH + "?per_page=5", 200),
    _Kind(2, "HEAD", PATH + "/{sample}", 200),
    _Kind(2, "GET", "/health", 200),
    _Kind(1, "OPTIONS", PATH, 405),
    _Kind(1, "GET", "/nothing", 404),
    _Kind(1, "POST", "/nothing", 404),
)

_HARMLESS = (
    ("Accept", "*/*"),
    ("If-None-Match", '"a"'),
    ("TE", "trailers"),
    ("Cookie", "a=b; c=d"),
    ("X-Empty", ""),
    ("X-Padding", "x" * 3_000),
    ("Connection", "keep-alive"),
    ("Range", "bytes=0-10"),
    ("Traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
)


class Ending(StrEnum):
    """What the client does when it has sent everything."""

    READ = "read"
    """It reads until the server closes."""

    HALF_CLOSE = "half_close"
    """It closes its sending side, and reads until the server closes."""

    RESET = "reset"
    """It resets the connection."""

    CLOSE = "close"
    """It closes the connection without reading."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """Bytes that are sent together, after a wait."""

    wait_seconds: float
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """What one connection sends."""

    index: int
    segments: tuple[Segment, ...]
    ending: Ending
    statuses: tuple[int, ...] | None
    """The expected statuses if the bytes are valid; None if they were changed."""

    @property
    def sent(self) -> bytes:
        """All bytes."""
        return b"".join(segment.data for segment in self.segments)

    @property
    def leaves(self) -> bool:
        """Whether the client goes away without reading its answers."""
        return self.ending in {Ending.RESET, Ending.CLOSE}


def script(seed: int, index: int) -> Script:
    """The script with this index. The same seed and index always make the same script."""
    choose = Random(f"{seed}-{index}")
    count = choose.choice((1, 1, 1, 2, 2, 3, 4, MAX_REQUESTS))
    requests, statuses = [], []
    for number in range(count):
        data, status = _request(choose, index, number, last=number == count - 1)
        requests.append(data)
        statuses.append(status)
    changed = choose.random() < 0.7
    if changed:
        for _ in range(choose.choice((1, 1, 1, 2, 3))):
            number = choose.randrange(count)
            requests[number] = choose.choice(CHANGES)(choose, requests[number])
    sent = b"".join(requests)
    if choose.random() < 0.08:
        sent, changed = sent[: choose.randrange(len(sent) + 1)], True
    ending = choose.choices(list(Ending), (50, 25, 18, 7))[0]
    return Script(
        index=index,
        segments=tuple(_split(choose, sent)),
        ending=ending,
        statuses=None if changed else tuple(statuses),
    )


def request_id(index: int, number: int) -> str:
    """The id of a request, which its log line has too."""
    return f"f-{index}-{number}"


def _request(choose: Random, index: int, number: int, *, last: bool) -> tuple[bytes, int]:
    """The bytes of one valid request, and the status of its answer."""
    sample = FIRST_ID + index * MAX_REQUESTS + number
    (kind,) = choose.choices(_KINDS, [kind.weight for kind in _KINDS])
    method, target, status = kind.method, kind.target.format(sample=sample), kind.status
    body = b""
    if method in {"POST", "PUT", "PATCH"}:
        values: dict[str, object] = {"name": f"written-{index}-{number}"}
        if choose.random() < 0.1:
            values["description"] = "x" * choose.randrange(9_000)
        body = json.dumps(values).encode()
        if last and choose.random() < 0.03 and status != 404:  # an unknown path has no limit of its own
            body, status = body + b" " * choose.choice((_MAX_BODY_BYTES, 200_000)), 413
    elif choose.random() < 0.5:
        # A body that is a request itself: it must not be carried out.
        hidden = json.dumps({"name": f"hidden-{index}-{number}"}).encode()
        body = _encode(choose, "POST", PATH, [], hidden, framing="length")
    headers = [("X-Request-ID", request_id(index, number))]
    if method in {"POST", "PUT", "PATCH"}:
        headers.append(("Content-Type", "application/json"))
    if method == "POST" and choose.random() < 0.2:
        headers.append(("Idempotency-Key", f"key-{index}-{number}"))
    if body and choose.random() < 0.15:
        headers.append(("Expect", "100-continue"))
    if choose.random() < 0.3:
        headers.append(choose.choice(_HARMLESS))
    if last and choose.random() < 0.5:
        headers.append(("Connection", "close"))
    choose.shuffle(headers)
    framing = choose.choice(("length", "chunked")) if body else "none"
    return _encode(choose, method, target, headers, body, framing=framing), status


def _encode(
    choose: Random, method: str, target: str, headers: list[tuple[str, str]], body: bytes, *, framing: str
) -> bytes:
    lines = [f"{method} {target} HTTP/1.1", "Host: localhost"]
    lines += [f"{name}: {value}" for name, value in headers]
    if framing == "length":
        lines.append(f"Content-Length: {len(body)}")
    elif framing == "chunked":
        lines.append("Transfer-Encoding: chunked")
        body = _chunks(choose, body)
    return "\r\n".join([*lines, "", ""]).encode() + body


def _chunks(choose: Random, body: bytes) -> bytes:
    pieces = []
    largest = choose.choice((1, 7, 100, 5_000)) if len(body) < 2_000 else 20_000
    while body:
        size = choose.randint(1, largest)
        piece, body = body[:size], body[size:]
        number = choose.choice(("{:x}", "{:X}", "{:04x}")).format(len(piece))
        extension = choose.choice(("", "", "", ";a", ";a=b", ';a="b"'))
        pieces.append(f"{number}{extension}\r\n".encode() + piece + b"\r\n")
    trailer = choose.choice((b"", b"", b"", b"X-Trailer: a\r\n", b"Expires: 0\r\n"))
    return b"".join([*pieces, b"0\r\n", trailer, b"\r\n"])


def _split(choose: Random, sent: bytes) -> list[Segment]:
    """Cut the bytes into packets: none, every byte, or a few cuts of which most are near the end of a line."""
    kind = choose.random()
    if kind < 0.4:
        cuts = []
    elif kind < 0.45 and len(sent) < 400:
        cuts = list(range(1, len(sent)))
    else:
        places = [match.start() + choose.randrange(5) for match in re.finditer(rb"\r\n", sent)]
        places.append(choose.randrange(len(sent) + 1))
        cuts = sorted(set(choose.choices(places, k=choose.randint(1, 4))))
    edges = [0, *(cut for cut in cuts if 0 < cut < len(sent)), len(sent)]
    # A handler can begin during a long wait.
    waits = (0.001, 0.03) if len(edges) < 10 else (0.0002,)
    return [
        Segment(wait_seconds=choose.choice(waits) if start else 0, data=sent[start:end])
        for start, end in itertools.pairwise(edges)
    ]
