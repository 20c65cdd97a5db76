"""The client that a request is counted against."""

from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import Final

from starlette.requests import Request
from starlette.types import Scope

from app.state_keys import PRINCIPAL

UNKNOWN: Final = "unknown"
"""Requests without a valid client address share this one key."""

_MAX_ADDRESS_LENGTH: Final = 64

_NAT64: Final = IPv6Network("64:ff9b::/96")
"""The addresses that NAT64 gives to clients with IPv4: each is another client."""

_LOCAL_NAT64: Final = IPv6Network("64:ff9b:1::/48")
"""The same, for translation inside of a network (RFC 8215)."""


def client_of(client: tuple[str, int] | None) -> str:
    """The rate limit key for `scope["client"]`.

    Uvicorn has already applied `FORWARDED_ALLOW_IPS`: it takes the rightmost address in
    `X-Forwarded-For` that is not a trusted proxy.
    """
    if client is None or len(client[0]) > _MAX_ADDRESS_LENGTH:
        return UNKNOWN
    return _network(client[0])


def client_of_scope(scope: Scope) -> str:
    """The key of who sends the request: the subject of its token, else its address."""
    principal = scope["state"].get(PRINCIPAL) if "state" in scope else None
    if principal is not None:
        key: str = principal.key
        return key
    return client_of(scope["client"])


def client_of_request(request: Request) -> str:
    """The key function for a route's own limit."""
    return client_of_scope(request.scope)


@lru_cache(maxsize=4096)
def _network(host: str) -> str:
    """An IPv4 address, also within IPv6, or the /64 of an IPv6 address, because one customer gets at least a /64."""
    try:
        address = ip_address(host)
    except ValueError:
        return UNKNOWN
    if not isinstance(address, IPv6Address):
        return str(address)
    if address.ipv4_mapped:
        return str(address.ipv4_mapped)
    if address in _NAT64:
        return str(IPv4Address(int(address) & 0xFFFFFFFF))
    if address in _LOCAL_NAT64:
        return _client_of_local_nat64(address)
    return str(IPv6Network((int(address) >> 64 << 64, 64)))


def _client_of_local_nat64(address: IPv6Address) -> str:
    """The IPv4 address in an address of a network's own translator, at the places that RFC 6052 allows.

    It is at the end, or directly behind the prefix of 48 bits. If it is elsewhere, its position is not known, and
    the whole address is the key.
    """
    number = int(address)
    if number & 0xFFFFFF:
        return str(IPv4Address(number & 0xFFFFFFFF))
    if not number & 0xFFFFFFFFFF and not number >> 56 & 0xFF:  # bits 64 to 71 are always zero
        return str(IPv4Address((number >> 64 & 0xFFFF) << 16 | number >> 40 & 0xFFFF))
    return str(address)
