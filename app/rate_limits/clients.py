"""Who a request is counted against."""

from functools import lru_cache
from ipaddress import IPv6Address, IPv6Network, ip_address
from typing import Any, Final

from starlette.requests import Request

UNKNOWN: Final = "unknown"
"""All requests whose address is missing or not an address share one bucket."""

_LONGEST_ADDRESS: Final = 64


def client_of(client: tuple[str, int] | None) -> str:
    """The client that `scope["client"]` names, as the trusted proxies tell it.

    uvicorn has applied `FORWARDED_ALLOW_IPS` by then: of `X-Forwarded-For` it takes the address
    furthest to the right that no trusted proxy has.
    """
    if client is None or len(client[0]) > _LONGEST_ADDRESS:
        return UNKNOWN
    return _network(client[0])


def client_of_request(request: Request) -> str:
    """The key function for limits that a route has of its own."""
    client: Any = request.scope["client"]
    return client_of(client)


@lru_cache(maxsize=4096)
def _network(host: str) -> str:
    """An IPv4 address, or the /64 of an IPv6 address: one customer is given no less than that."""
    try:
        address = ip_address(host)
    except ValueError:
        return UNKNOWN
    if not isinstance(address, IPv6Address):
        return str(address)
    if address.ipv4_mapped:
        return str(address.ipv4_mapped)
    return str(IPv6Network((int(address) >> 64 << 64, 64)))
