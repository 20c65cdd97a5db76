import pytest
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from app.rate_limits.clients import UNKNOWN, client_of
from app.settings.addresses import with_mapped_networks


@pytest.mark.parametrize(
    ("host", "client"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:DB8:1:2::", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("64:ff9b::192.0.2.7", "192.0.2.7"),
        ("64:ff9b::c000:208", "192.0.2.8"),
        ("64:ff9b:1::192.0.2.7", "192.0.2.7"),
        ("64:ff9b:1:fffe::192.0.2.8", "192.0.2.8"),
        ("64:ff9b:1:c000:2:700::", "192.0.2.7"),
        ("64:ff9b:1:c0:0:207::", "64:ff9b:1:c0:0:207::"),
        ("64:ff9b:2::192.0.2.7", "64:ff9b:2::/64"),
        ("64:ff9b::1:c000:207", "64:ff9b::/64"),
        ("", UNKNOWN),
        ("/run/service.sock", UNKNOWN),
        ("192.0.2.7, 10.0.0.1", UNKNOWN),
        ("é" * 10_000, UNKNOWN),
    ],
)
def test_a_client_is_an_ipv4_address_or_an_ipv6_network(host, client):
    """IPv4 clients are counted by address, also behind NAT64; IPv6 clients by their /64; everything else together."""
    assert client == client_of((host, 1))


def test_a_client_without_an_address_is_counted():
    """A request whose peer has no address is counted as the unknown client."""
    assert UNKNOWN == client_of(None)


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("198.51.100.9", "203.0.113.5", "198.51.100.9"),
        ("10.0.0.1", "203.0.113.5", "203.0.113.5"),
        ("10.0.0.1", "192.0.2.66, 203.0.113.5", "203.0.113.5"),
        ("10.0.0.1", "192.0.2.66, 203.0.113.5, 10.0.0.2", "203.0.113.5"),
        ("10.0.0.1", "192.0.2.66, nonsense", UNKNOWN),
        ("::ffff:10.0.0.1", "203.0.113.5", "203.0.113.5"),
        ("::ffff:10.0.0.1", "203.0.113.5, ::ffff:10.9.9.9", "203.0.113.5"),
        ("::ffff:192.0.2.1", "203.0.113.5", "203.0.113.5"),
        ("::ffff:192.0.2.2", "203.0.113.5", "192.0.2.2"),
        ("::ffff:11.0.0.1", "203.0.113.5", "11.0.0.1"),
        ("::10.0.0.1", "203.0.113.5", "::/64"),
        ("2001:db8::7", "203.0.113.5", "203.0.113.5"),
    ],
)
async def test_a_client_cannot_choose_its_address(peer, forwarded, client):
    """Behind trusted proxies the rightmost untrusted address is the client; other peers' headers are ignored."""
    seen = []

    async def app(scope, receive, send):
        seen.append(client_of(scope["client"]))

    scope = {"type": "http", "client": (peer, 1), "headers": [(b"x-forwarded-for", forwarded.encode())]}
    trusted = with_mapped_networks(("10.0.0.0/8", "192.0.2.1", "2001:db8::/32"))
    await ProxyHeadersMiddleware(app, list(trusted))(scope, None, None)  # type: ignore[arg-type]

    assert [client] == seen
