"""Sends bytes to a server that no correct HTTP client would send."""

import contextlib
import re
import socket

from tests.processes.server import Server

POST = b"POST / HTTP/1.1\r\nHost: a\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"

AMBIGUOUS = {
    "length and chunked": POST + b"Content-Length: 5\r\n" + CHUNKED + b"\r\n0\r\n\r\n",
    "chunked and length": POST + CHUNKED + b"Content-Length: 5\r\n\r\n0\r\n\r\n",
    "two lengths": POST + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nabcde",
    "list of lengths": POST + b"Content-Length: 5, 5\r\n\r\nabcde",
    "signed length": POST + b"Content-Length: +5\r\n\r\nabcde",
    "negative length": POST + b"Content-Length: -5\r\n\r\nabcde",
    "huge length": POST + b"Content-Length: 99999999999999999999999\r\n\r\n",
    "unknown coding": POST + b"Transfer-Encoding: gzip\r\n\r\n0\r\n\r\n",
    "two codings": POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "chunked twice": POST + CHUNKED + CHUNKED + b"\r\n0\r\n\r\n",
    "chunked, then another": POST + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "chunked in 1.0": POST.replace(b"1.1", b"1.0") + CHUNKED + b"\r\n0\r\n\r\n",
    "space before colon": POST + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    "folded header": POST + b"X: a\r\n b\r\n\r\n",
    "bare line feeds": b"GET / HTTP/1.1\nHost: a\n\n",
    "one bare line feed": b"GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n",
    "bare carriage return": b"GET / HTTP/1.1\r\nHost: a\rX: b\r\n\r\n",
    "NUL in a header": b"GET / HTTP/1.1\r\nHost: a\0b\r\n\r\n",
    "header without a name": b"GET / HTTP/1.1\r\n: a\r\n\r\n",
    "user in a URL as target": b"GET http://a@evil/x HTTP/1.1\r\nHost: a\r\n\r\n",
    "two hosts in a URL as target": b"GET http://a:80@evil/x HTTP/1.1\r\nHost: a\r\n\r\n",
    "no host in a URL as target": b"GET http:///evil HTTP/1.1\r\nHost: a\r\n\r\n",
    "URL of another scheme as target": b"GET ftp://evil/x HTTP/1.1\r\nHost: a\r\n\r\n",
    "URL as target, and an invalid Host": b"GET http://evil/x HTTP/1.1\r\nHost: a b\r\n\r\n",
    "authority as target": b"CONNECT evil:443 HTTP/1.1\r\nHost: a\r\n\r\n",
    "CONNECT to a path": b"CONNECT /x HTTP/1.1\r\nHost: a\r\n\r\n",
    "asterisk as target": b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
    "fragment in target": b"GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n",
    "target not ASCII": b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n",
    "target not UTF-8": b"GET /%ff HTTP/1.1\r\nHost: a\r\n\r\n",
    "space in target": b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n",
    "two spaces before the target": b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
    "two spaces after the target": b"GET /  HTTP/1.1\r\nHost: a\r\n\r\n",
    "two spaces, and the line in a header": b"GET  / HTTP/1.1\r\nHost: a\r\nX: GET / HTTP/1.1\r\n\r\n",
    "tab before the target": b"GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n",
    "no version": b"GET /\r\nHost: a\r\n\r\n",
    "malformed version": b"GET / HTTP/3\r\nHost: a\r\n\r\n",
    "another protocol": b"SOURCE / ICE/1.0\r\nHost: a\r\n\r\n",
    "line feeds before the request": b"\n\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "carriage return before the request": b"\rGET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "two hosts in one Host": b"GET / HTTP/1.1\r\nHost: a:80@b\r\n\r\n",
    "user in Host": b"GET / HTTP/1.1\r\nHost: u@x\r\n\r\n",
    "space in Host": b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
    "path in Host": b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n",
    "port that is no number": b"GET / HTTP/1.1\r\nHost: a:b\r\n\r\n",
    "unknown method": b"FOO / HTTP/1.1\r\nHost: a\r\n\r\n",
    "HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "chunk size with a line feed": POST + CHUNKED + b"\r\n1\nx\r\n0\r\n\r\n",
    "chunk size with a prefix": POST + CHUNKED + b"\r\n0x1\r\nx\r\n0\r\n\r\n",
    "chunk size too large": POST + CHUNKED + b"\r\nfffffffffffffffff\r\nx\r\n",
    "chunk longer than its size": POST + CHUNKED + b"\r\n1\r\nxx0\r\n\r\n",
}
"""Requests that two HTTP parsers could understand differently."""


def connect(server: Server) -> socket.socket:
    """A new connection."""
    return socket.create_connection(("127.0.0.1", server.port), timeout=8)


def read(client: socket.socket) -> bytes:
    """All bytes until the server closes or resets the connection."""
    received = b""
    with contextlib.suppress(ConnectionResetError):
        while piece := client.recv(65536):
            received += piece
    return received


def send_and_read(server: Server, sent: bytes) -> bytes:
    """Send these bytes and return all bytes that come back until the server closes."""
    with connect(server) as client:
        client.sendall(sent)
        return read(client)


def statuses(received: bytes) -> list[int]:
    """The statuses of all answers, in order."""
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", received)]
