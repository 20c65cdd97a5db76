import pytest
from structlog.testing import capture_logs

from app.metrics.instruments import Metrics
from app.middleware.forwarded import Forwarded

TRUSTED = ("10.0.0.0/8",)


class Server:
    """What requests pass through."""

    def __init__(self, trusted=TRUSTED) -> None:
        self.metrics = Metrics()
        self.forwarded = Forwarded(trusted, self.metrics)

    async def ignored(self, peer, *forwarded: str) -> float:
        """Send a request from this peer, and return how many were reported so far."""
        headers = [(b"x-forwarded-for", value.encode()) for value in forwarded]
        await self.forwarded.apply({"type": "http", "client": peer, "headers": headers})
        return float(self.metrics.registry.get_sample_value("forwarded_for_ignored_total") or 0)


async def test_an_ignored_header_is_counted_and_logged_once():
    """Each request from a peer that is not trusted is counted. The first is logged, with the peer and the setting."""
    server = Server()
    with capture_logs() as lines:
        counts = [await server.ignored(("192.0.2.1", 5), "203.0.113.9"), await server.ignored(("192.0.2.2", 6), "::1")]

    assert [1, 2] == counts
    (line,) = lines
    assert ("forwarded_for_ignored", "warning", "192.0.2.1") == (line["event"], line["log_level"], line["peer"])
    assert "FORWARDED_ALLOW_IPS" in line["advice"]


@pytest.mark.parametrize(
    ("peer", "forwarded"),
    [
        (("10.0.0.1", 5), ["203.0.113.9"]),
        (("10.0.0.1", 5), ["203.0.113.9:81"]),
        (("10.0.0.1", 5), ["192.0.2.66, 203.0.113.9", "10.0.0.2"]),
        (("10.0.0.1", 5), ["10.0.0.7"]),
        (("10.0.0.1", 5), ["127.0.0.1"]),
        (("::ffff:10.0.0.1", 5), ["203.0.113.9"]),
        (("10.0.0.1", 5), [""]),
        (None, ["203.0.113.9"]),
    ],
)
async def test_the_header_of_a_trusted_peer_is_not_reported(peer, forwarded):
    """Whatever the trusted proxy wrote, and where the peer is not known, nothing is reported."""
    assert 0 == await Server().ignored(peer, *forwarded)


@pytest.mark.parametrize(("trusted", "count"), [(("10.0.0.0/8",), 1), (("127.0.0.1",), 0), (("*",), 0)])
async def test_a_peer_on_a_unix_socket_is_reported_unless_it_is_trusted(trusted, count):
    """Its address is 127.0.0.1, and its port is 0."""
    assert count == await Server(trusted).ignored(("127.0.0.1", 0), "203.0.113.9")


@pytest.mark.parametrize(
    ("peer", "expected"), [("10.0.0.1", ("203.0.113.9", "https")), ("192.0.2.1", ("192.0.2.1", "http"))]
)
async def test_the_headers_of_a_trusted_peer_are_applied(peer, expected):
    """Those of any other peer are not."""
    headers = [(b"x-forwarded-for", b"203.0.113.9"), (b"x-forwarded-proto", b"https")]
    scope = {"type": "http", "client": (peer, 5), "scheme": "http", "headers": headers}
    await Server().forwarded.apply(scope)
    assert expected == (scope["client"][0], scope["scheme"])
