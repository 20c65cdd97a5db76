"""The client that a request is counted against."""

from functools import lru_cache
from ipaddress import IPv6Address, IPv6Network, ip_address
from typing import Any, Final

from starlette.requests import Request

UNKNOWN: Final = "unknown"
"""Requests without a valid client address share this one key."""

_MAX_ADDRESS_LENGTH: Final = 64


def client_of(client: tuple[str, int] | None) -> str:
    """The rate limit key for `scope["client"]`.

    Uvicorn has already applied `FORWARDED_ALLOW_IPS`: it takes the rightmost address in
    `X-Forwarded-For` that is not a trusted proxy.
    """
    if client is None or len(client[0]) > _MAX_ADDRESS_LENGTH:
        return UNKNOWN
    return _network(client[0])


def client_of_request(request: Request) -> str:
    """The key function for a route's own limit."""
    client: Any = request.scope["client"]
    return client_of(client)


@lru_cache(maxsize=4096)
def _network(host: str) -> str:
    """An IPv4 address, or the /64 of an IPv6 address, because one customer gets at least a /64."""
    try:
        address = ip_address(host)
    except ValueError:
        return UNKNOWN
    if not isinstance(address, IPv6Address):
        return str(address)
    if address.ipv4_mapped:
        return str(address.ipv4_mapped)
    return str(IPv6Network((int(address) >> 64 << 64, 64)))
