"""Changes to the bytes of a request, most of which make it malformed or ambiguous."""

import re
from collections.abc import Callable, Sequence
from random import Random

Change = Callable[[Random, bytes], bytes]

_LINE_ENDS = (
    b"\n", b"\r", b"\r\r\n", b"\n\r", b"", b" \r\n", b"\t\r\n", b"\r\n ", b"\r\n\t", b"\r\n\r\n", b"\0\r\n",
    b"\x0b\r\n", b"\r\n\0",
)  # fmt: skip
_COLONS = (b" : ", b":", b":\t", b": \t ", b":  ", b"\t: ", b" ", b"", b"::", b":\x0b", b":\0", b"\xa0: ", b"; ")
_VERSIONS = (
    b"  HTTP/1.1", b" HTTP/1.0", b" HTTP/1.2", b" HTTP/2.0", b" HTTP/0.9", b" HTTP/1.10", b" HTTP/01.1",
    b" http/1.1", b" HTTP/1.1 ", b"\tHTTP/1.1", b" \t HTTP/1.1", b"", b" HTTP/1", b" HTTP/1,1", b" HTTPS/1.1",
    b" HTTP/1.1 x", b"\x0bHTTP/1.1", b"\xa0HTTP/1.1", b"\r HTTP/1.1", b" /x HTTP/1.1",
)  # fmt: skip
_LENGTHS = (
    b"+%d", b"-%d", b"0%d", b"%d, %d", b"%d,%d", b"%d ", b" %d", b"\t%d", b"0x%x", b"%d;", b"%d.0", b"1e1", b"",
    b"%d\0", b"\x0b%d", b"99999999999999999999", b"18446744073709551616", b"_%d", b"%d_0", b"4 2", b'"%d"',
)  # fmt: skip
_CODINGS = (
    b"Chunked", b"chunked ", b" chunked", b"\tchunked", b"\x0bchunked", b"chunked\0", b"xchunked",
    b"chunked, chunked", b"identity", b"chunked, identity", b"gzip, chunked", b"gzip", b"", b"chunked;q=1",
    b'"chunked"', b"chunked,", b",chunked", b"chunked\r\nTransfer-Encoding: identity",
    b"identity\r\nTransfer-Encoding: chunked", b"\r\n chunked",
)  # fmt: skip
_CHUNK_SIZES = (
    b"0x%x", b"+%x", b"-%x", b" %x", b"%x ", b"\t%x", b"%x\t", b"%x;", b"%x ; a", b"%x;a\n", b"%x;\0", b"_%x",
    b"%xg", b"", b"ffffffffffffffff", b"10000000000000000", b"0000%x", b"%x\r", b'%x;a="\r\nb"',
    b"%x,", b"%x\x0b", b"%x;" + b"a" * 300,
)  # fmt: skip
_FIELDS = (
    b"Content-Length: 0", b"Content-Length: 5", b"Content-Length: 1000", b"content-length: 7",
    b"Content-Length : 5", b"Content-Length\t: 5", b"Content_Length: 5", b"Content-Length: 5\r\nContent-Length: 6",
    b"Transfer-Encoding: chunked", b"transfer-encoding:chunked", b"Transfer-Encoding : chunked",
    b"Transfer-Encoding: identity", b"Transfer_Encoding: chunked", b"X: a\r\nTransfer-Encoding: chunked",
    b"X: a\nTransfer-Encoding: chunked", b"X: a\rTransfer-Encoding: chunked",
    b"X: a\r\n\tTransfer-Encoding: chunked", b"X: a\0", b"X: \xff", b"X\0: a", b": a", b"X", b" X: a", b"\tX: a",
    b"X Y: a", b"X(: a", b"X: a\r\n b", b"Host: b", b"Host:", b"Host: a b", b"Host: a:80@b", b"Host: u@x",
    b"Host: a,b", b"Host: a/b", b"Host : a", b"host: localhost", b"Connection: close", b"Connection: keep-alive",
    b"Connection: close, keep-alive", b"Connection: Content-Length", b"Connection: Transfer-Encoding",
    b"Connection: Upgrade\r\nUpgrade: websocket", b"Connection: Upgrade\r\nUpgrade: h2c",
    b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__",
    b"Upgrade: websocket", b"Keep-Alive: timeout=1000", b"Proxy-Connection: close", b"Expect: 100-continue",
    b"Expect: 100-Continue", b"Expect: 200-ok", b"Expect:", b"Expect: 100-continue, 100-continue",
    b"Trailer: Content-Length", b"Content-Encoding: gzip", b"Content-Encoding: identity",
    b"Content-Type: text/plain", b"X-HTTP-Method-Override: GET", b"X-Request-ID: other", b"X-Request-ID: a b",
    b"If-Match: *", b'If-Match: "1"', b"If-None-Match: *", b"X: " + b"x" * 70_000,
    b"\r\n".join(b"X-%d: x" % number for number in range(120)), b"X-" + b"n" * 5_000 + b": a",
)  # fmt: skip
_TARGETS = (
    b"http://localhost%s", b"//%s", b"%s#fragment", b"%s ", b" %s", b"\t%s", b"%s\t", b"%s%%00", b"%s%%ff",
    b"%s\xff", b"%s\0", b"*", b"", b"%s/../x", b"%s?a=b c", b"localhost:80", b"%s/%%2e%%2e", b"?%s", b"\\%s",
    b"%s" + b"x" * 9_000, b"%s&permanent=true", b"%s\r\n", b"%s\n",
)  # fmt: skip
_METHODS = (
    b"get", b"FOO", b"CONNECT", b"TRACE", b"PRI", b" POST", b"\tPOST", b"POST ", b"", b"DELETE", b"GET", b"HEAD",
    b"OPTIONS", b"PO\0ST", b"PO ST", b"\xffGET", b"M-SEARCH", b"SOURCE", b"PURGE",
)  # fmt: skip
_BYTES = (
    b"\0", b"\r", b"\n", b" ", b"\t", b":", b";", b",", b"\x7f", b"\x80", b"\xff", b"\r\n", b"\r\n\r\n", b"0", b"a",
    b"/", b"?", b"%", b'"', b"0\r\n\r\n", b"1\r\n",
)  # fmt: skip
_PREFIXES = (
    b"\r\n", b"\r\n\r\n", b"\n", b"\r", b" ", b"\0", b"\xef\xbb\xbf",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"0\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"x",
    b"\r\n" * 300, b"GET / HTTP/1.1\r\n",
)  # fmt: skip


def _one_of(pattern: bytes, replacements: Sequence[bytes]) -> Change:
    """A change that replaces one match of the pattern. A `%` stands for the number or text in the pattern's group."""

    def change(choose: Random, sent: bytes) -> bytes:
        matches = list(re.finditer(pattern, sent))
        if not matches:
            return _byte(choose, sent)
        match = choose.choice(matches[:12])
        return sent[: match.start()] + choose.choice(replacements) + sent[match.end() :]

    return change


def _number(pattern: bytes, replacements: Sequence[bytes], base: int) -> Change:
    """A change that replaces the number in the pattern's group, often by one that is near it."""

    def change(choose: Random, sent: bytes) -> bytes:
        matches = [match for match in re.finditer(pattern, sent) if match[1]]
        if not matches:
            return _byte(choose, sent)
        match = choose.choice(matches)
        number = int(match[1], base)
        if choose.random() < 0.4:
            near = max(0, number + choose.choice((-2, -1, 1, 2, 100)))
            new = b"%d" % near if base == 10 else b"%x" % near
        else:
            form = choose.choice(replacements)
            new = form % ((number,) * len(re.findall(rb"%[dx]", form)))
        return sent[: match.start(1)] + new + sent[match.end(1) :]

    return change


def _target(choose: Random, sent: bytes) -> bytes:
    match = re.match(rb"[A-Z]+ (\S+) HTTP", sent)
    if match is None:
        return _byte(choose, sent)
    form = choose.choice(_TARGETS)
    new = form % match[1] if b"%s" in form else form
    return sent[: match.start(1)] + new + sent[match.end(1) :]


def _field(choose: Random, sent: bytes) -> bytes:
    """Add a header field, at the beginning, in the middle or at the end of the head."""
    ends = [
        match.end()
        for match in re.finditer(rb"\r\n(?=[A-Z])|\r\n(?=\r\n)", sent.partition(b"\r\n\r\n")[0] + b"\r\n\r\n")
    ]
    if not ends:
        return _byte(choose, sent)
    place = choose.choice(ends)
    return sent[:place] + choose.choice(_FIELDS) + b"\r\n" + sent[place:]


def _remove_field(choose: Random, sent: bytes) -> bytes:
    fields = list(re.finditer(rb"(?<=\r\n)[A-Za-z-]+: [^\r]*\r\n", sent))
    if not fields:
        return _byte(choose, sent)
    field = choose.choice(fields)
    return sent[: field.start()] + sent[field.end() :]


def _byte(choose: Random, sent: bytes) -> bytes:
    """Insert, replace or remove something at any place."""
    place = choose.randrange(len(sent) + 1)
    return sent[:place] + choose.choice((b"", *_BYTES)) + sent[place + choose.choice((0, 1, 1, 2)) :]


def _flip(choose: Random, sent: bytes) -> bytes:
    if not sent:
        return sent
    place = choose.randrange(len(sent))
    return sent[:place] + bytes([sent[place] ^ 1 << choose.randrange(8)]) + sent[place + 1 :]


def _repeat(choose: Random, sent: bytes) -> bytes:
    """Send a slice twice."""
    start = choose.randrange(len(sent) + 1)
    end = min(len(sent), start + choose.choice((1, 2, 10, 40, 200)))
    return sent[:end] + sent[start:]


def _remove(choose: Random, sent: bytes) -> bytes:
    start = choose.randrange(len(sent) + 1)
    return sent[:start] + sent[start + choose.choice((1, 2, 10, 40, 200)) :]


def _truncate(choose: Random, sent: bytes) -> bytes:
    """Leave out the end: the next request of the connection takes its place."""
    return sent[: choose.randrange(len(sent) + 1)]


def _prefix(choose: Random, sent: bytes) -> bytes:
    return choose.choice(_PREFIXES) + sent


def _case(choose: Random, sent: bytes) -> bytes:
    """Write the name of a header in other case, which changes nothing."""
    fields = list(re.finditer(rb"(?<=\r\n)[A-Za-z-]+(?=: )", sent))
    if not fields:
        return sent
    field = choose.choice(fields)
    return sent[: field.start()] + choose.choice((field[0].lower(), field[0].upper())) + sent[field.end() :]


CHANGES: tuple[Change, ...] = (
    _one_of(rb"\r\n", _LINE_ENDS),
    _one_of(rb": ", _COLONS),
    _one_of(rb" HTTP/1\.1", _VERSIONS),
    _one_of(rb"^[A-Z]+", _METHODS),
    _one_of(rb"(?<=Transfer-Encoding: )chunked", _CODINGS),
    _number(rb"Content-Length: (\d+)", _LENGTHS, 10),
    _number(rb"\r\n([0-9a-fA-F]+)(?=;|\r\n)", _CHUNK_SIZES, 16),
    _number(rb"\r\n([0-9a-fA-F]+)(?=;|\r\n)", _CHUNK_SIZES, 16),
    _target,
    _field,
    _field,
    _remove_field,
    _byte,
    _flip,
    _repeat,
    _remove,
    _truncate,
    _prefix,
    _case,
)  # fmt: skip
