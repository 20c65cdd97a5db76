import httpx

from tests.processes.server import Server


def test_an_ipv4_proxy_is_trusted_on_a_socket_for_ipv6_and_ipv4():
    """With HOST=:: the proxy connects from ::ffff:127.0.0.1, and the rule for 127.0.0.1 applies to it."""
    settings = {"HOST": "::", "WEB_CONCURRENCY": "1", "RATE_LIMIT_READ": "1/hour"}
    with Server(environment=settings) as server:
        server.serving(workers=1)
        url = f"http://127.0.0.1:{server.port}/"
        clients = ["203.0.113.1", "203.0.113.2", "::ffff:203.0.113.1"]
        statuses = [httpx.get(url, headers={"X-Forwarded-For": client}).status_code for client in clients]

    assert [200, 200, 429] == statuses
