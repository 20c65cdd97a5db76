"""What another HTTP parser, h11, finds in the bytes of a connection, on the client's side and on the server's."""

from dataclasses import dataclass, field

import h11
import orjson

_MAX_HEAD_BYTES = 1024 * 1024
"""h11 has to accept more than the service does."""


@dataclass(slots=True)
class Parsed:
    """A whole request."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes = b""


@dataclass(slots=True)
class Requests:
    """The whole requests of one connection, and what follows them."""

    whole: list[Parsed] = field(default_factory=list)
    end: str = "idle"
    """`idle`, `incomplete`, `malformed`, or `closed`: the last request says that nothing follows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """An answer that the client received completely."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def request_id(self) -> str | None:
        """The id that the log line of the request has."""
        return self.headers.get("x-request-id")

    @property
    def closes(self) -> bool:
        """Whether it says that the connection closes."""
        return self.headers.get("connection", "").lower() == "close"


def requests(sent: bytes) -> Requests:
    """The requests that h11 finds in what a client has sent."""
    found = Requests()
    while True:
        # The service ignores empty lines before a request, as RFC 9112 advises. h11 does not.
        sent = sent.lstrip(b"\r\n")
        if not sent:
            return found
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=_MAX_HEAD_BYTES)
        connection.receive_data(sent)
        try:
            request = _next_request(connection)
        except h11.RemoteProtocolError as error:
            if (tolerated := _tolerated(sent, str(error))) != sent:
                sent = tolerated
                continue
            found.end = "malformed"
            return found
        if request is None:
            found.end = "incomplete"
            return found
        found.whole.append(request)
        connection.send(h11.Response(status_code=404, headers=[("content-length", "0")]))
        connection.send(h11.EndOfMessage())
        if connection.our_state is h11.MUST_CLOSE:
            found.end = "closed"
            return found
        sent = connection.trailing_data[0]


def _tolerated(sent: bytes, error: str) -> bytes:
    """The same with one Host header, if h11 has refused their number: it does not change where the request ends."""
    if "Host" not in error:
        return sent
    head, separator, rest = sent.partition(b"\r\n\r\n")
    first, *lines = head.split(b"\r\n")
    lines = [line for line in lines if not line.lower().startswith(b"host:")]
    return b"\r\n".join([first, b"Host: a", *lines]) + separator + rest


def _next_request(connection: h11.Connection) -> Parsed | None:
    """The first request, or None if it is not whole."""
    request = None
    while (event := connection.next_event()) is not h11.NEED_DATA:
        if isinstance(event, h11.Request):
            headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in event.headers}
            request = Parsed(event.method.decode("latin-1"), event.target.decode("latin-1"), headers)
        elif isinstance(event, h11.Data) and request is not None:
            request.body += event.data
        elif isinstance(event, h11.EndOfMessage):
            return request
    return None


def answers(received: bytes, methods: list[str]) -> tuple[list[Answer], bytes]:
    """The whole answers in what a client has received, without `100 Continue`, and the bytes that are left over."""
    found: list[Answer] = []
    while received.startswith(b"HTTP/1.1 "):
        head, separator, rest = received.partition(b"\r\n\r\n")
        if not separator:
            break
        status_line, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        status = int(status_line.split(" ")[1])
        if status == 100:
            received = rest
            continue
        length = int(headers.get("content-length", "0")) if status not in {204, 304} else 0
        method = methods[len(found)] if len(found) < len(methods) else None
        nothing_follows = not rest or rest.startswith(b"HTTP/1.1 ")
        # The refusal of a malformed request may have a body, or none if its method is HEAD.
        is_refusal = status >= 400 and headers.get("connection") == "close"
        if (method == "HEAD" and (nothing_follows or not is_refusal)) or (method is None and nothing_follows):
            length = 0
        if len(rest) < length:
            break
        found.append(Answer(status=status, headers=headers, body=rest[:length]))
        received = rest[length:]
    return found, received


def name_in(body: bytes) -> str | None:
    """The name in a JSON object, as the service stores it."""
    try:
        values = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    name = values.get("name") if isinstance(values, dict) else None
    return name.strip() if isinstance(name, str) else None
