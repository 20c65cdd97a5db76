"""An OpenID Connect issuer on the loopback interface, with real keys, and with faults that a test switches on."""

import json
import ssl
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal, get_args

Fault = Literal[
    "refusing",
    "frozen",
    "dripping",
    "status_500",
    "html",
    "not_json",
    "megabyte",
    "redirect",
    "another_issuer",
    "no_keys",
    "thousand_keys",
]
"""How an issuer fails. `refusing`: no connection can be made. `frozen`: it accepts connections and does not answer.
`dripping`: it sends a byte of its answer each second. `redirect`: it points to a place with other keys."""

FAULTS: tuple[Fault, ...] = get_args(Fault)

DISCOVERY = "/.well-known/openid-configuration"
KEYS = "/keys"
ELSEWHERE = "/elsewhere"

Jwk = Mapping[str, Any]


class Issuer:
    """The issuer and what it was asked, from `with` to the end of the block."""

    def __init__(
        self,
        keys: Sequence[Jwk] = (),
        *,
        path: str = "",
        certificate: Path | None = None,
        max_age: int | None = None,
        fault: Fault | None = None,
    ) -> None:
        """Describe an issuer.

        Args:
            keys: The public keys that it publishes, as JWKs.
            path: The path of its address.
            certificate: With it the issuer has TLS. A file with the certificate of `localhost` and its private key.
            max_age: `Cache-Control: max-age` of its keys, in seconds. By default the answer has no such header.
            fault: Its fault at the start.
        """
        self.keys = list(keys)
        self.max_age = max_age
        self.keys_of_attacker: list[Jwk] = []
        """What it publishes at the place to which the fault `redirect` points."""
        self.asked: list[tuple[float, str]] = []
        """The time of each request, by the monotonic clock, and its path."""
        self._fault = fault
        self._changed = threading.Event()
        self._certificate = certificate
        self._server = _Server(self, 0, certificate)
        self.port = int(self._server.server_address[1])
        self._origin = f"https://localhost:{self.port}" if certificate else f"http://127.0.0.1:{self.port}"
        self._folder = path.removesuffix("/")
        self.url = f"{self._origin}{path}"
        """What it calls itself: `iss` of its tokens."""
        if fault == "refusing":
            self._server.server_close()
        else:
            self._server.serve()

    def count(self, path: str) -> int:
        """How often a document was asked for. The path begins below that of the issuer."""
        return sum(asked == f"{self._folder}{path}" for _, asked in self.asked)

    def address(self, path: str) -> str:
        """The address of a document."""
        return f"{self._origin}{self._folder}{path}"

    @property
    def fault(self) -> Fault | None:
        """The present fault."""
        return self._fault

    @fault.setter
    def fault(self, fault: Fault | None) -> None:
        before, self._fault = self._fault, fault
        self._changed.set()
        self._changed = threading.Event()
        if fault == "refusing" != before:
            self._server.stop()
        elif before == "refusing" != fault:
            self._server = _Server(self, self.port, self._certificate)
            self._server.serve()

    @contextmanager
    def failing(self, fault: Fault) -> Iterator[None]:
        """The issuer with this fault, from `with` to the end of the block."""
        self.fault = fault
        try:
            yield
        finally:
            self.fault = None

    def close(self) -> None:
        """Stop it."""
        self.fault = "refusing"

    def answer(self, path: str) -> bytes | None:
        """The document at this path, or none."""
        path = path.removeprefix(self._folder)
        if path == DISCOVERY:
            issuer = "https://another.example.com" if self.fault == "another_issuer" else self.url
            document: Any = {
                "issuer": issuer,
                "jwks_uri": self.address(KEYS),
                "authorization_endpoint": self.address("/authorize"),
                "token_endpoint": self.address("/token"),
                "response_types_supported": ["code"],
                "subject_types_supported": ["public"],
                "id_token_signing_alg_values_supported": ["RS256"],
            }
        elif path == KEYS:
            document = {"keys": self._published()}
        elif path == ELSEWHERE:
            document = {"keys": self.keys_of_attacker, "issuer": self.url, "jwks_uri": self.address(ELSEWHERE)}
        else:
            return None
        return json.dumps(document).encode()

    def _published(self) -> list[Jwk]:
        if self.fault == "no_keys":
            return []
        if self.fault == "thousand_keys":
            return [*({**key, "kid": f"copy-{number}"} for number in range(1000) for key in self.keys[:1]), *self.keys]
        return self.keys

    def wait_for_change(self, seconds: float) -> bool:
        """Wait until the fault changes, or for so long. The value tells whether it has changed."""
        return self._changed.wait(seconds)


@contextmanager
def issuer(
    keys: Sequence[Jwk] = (),
    *,
    path: str = "",
    certificate: Path | None = None,
    max_age: int | None = None,
    fault: Fault | None = None,
) -> Iterator[Issuer]:
    """A running issuer. The arguments are those of `Issuer`."""
    running = Issuer(keys, path=path, certificate=certificate, max_age=max_age, fault=fault)
    try:
        yield running
    finally:
        running.close()


class _Server(ThreadingHTTPServer):
    """Listens from the beginning, so that its port is its own."""

    block_on_close = False

    def __init__(self, owner: Issuer, port: int, certificate: Path | None) -> None:
        self.owner = owner
        super().__init__(("127.0.0.1", port), _Handler)
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self.socket = context.wrap_socket(self.socket, server_side=True)
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    def serve(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        owner = self.server.owner
        owner.asked.append((time.monotonic(), self.path))
        body = owner.answer(self.path)
        if owner.fault == "frozen":
            owner.wait_for_change(60)
            self.close_connection = True
        elif owner.fault == "redirect" and not self.path.endswith(ELSEWHERE):
            self._send(b"", HTTPStatus.FOUND, location=owner.address(ELSEWHERE))
        elif body is None:
            self._send(b"{}", HTTPStatus.NOT_FOUND)
        elif owner.fault == "dripping":
            self._drip(body)
        else:
            self._send_document(body)

    def _send_document(self, body: bytes) -> None:
        match self.server.owner.fault:
            case "status_500":
                self._send(b'{"error": "server_error"}', HTTPStatus.INTERNAL_SERVER_ERROR)
            case "html":
                self._send(b"<!doctype html><title>Sign in</title>", content_type="text/html")
            case "not_json":
                self._send(b'{"keys": [')
            case "megabyte":
                self._send(body[:-1] + b', "padding": "' + b"x" * 1_000_000 + b'"}')
            case _:
                self._send(body)

    def _drip(self, body: bytes) -> None:
        self._head(HTTPStatus.OK, len(body), "application/json", None)
        for byte in body:
            self.wfile.write(bytes([byte]))
            if self.server.owner.wait_for_change(1):
                break

    def _send(
        self,
        body: bytes,
        status: HTTPStatus = HTTPStatus.OK,
        *,
        content_type: str = "application/json",
        location: str | None = None,
    ) -> None:
        self._head(status, len(body), content_type, location)
        self.wfile.write(body)

    def _head(self, status: HTTPStatus, length: int, content_type: str, location: str | None) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(length))
        if self.server.owner.max_age is not None:
            self.send_header("Cache-Control", f"public, max-age={self.server.owner.max_age}")
        if location:
            self.send_header("Location", location)
        self.end_headers()

    def handle(self) -> None:
        # A client that gives up closes its connection while the answer is written.
        try:
            super().handle()
        except OSError:
            self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the name of the overridden method
        """Print nothing."""
