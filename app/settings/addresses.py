"""The settings that are addresses: where to listen, and which hosts, networks and origins are allowed."""

import json
import re
import stat
from ipaddress import IPv4Address, ip_address, ip_network
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator
from pydantic_settings import NoDecode

from app.settings.files import mode_of

UNIX: Final = "unix"
"""The scheme of HOST for a Unix socket."""

_LONGEST_SOCKET_PATH: Final = 103
"""In bytes, on macOS; Linux takes four more."""

_NAME: Final = re.compile(
    r"(?:[a-z0-9_-]+\.)*(?!0x[0-9a-f]*\.?\Z)[a-z0-9_-]*[a-z_-][a-z0-9_-]*\.?", re.ASCII | re.IGNORECASE
)
"""The name of a host. Its last part is no number: `8000`, `10.1` and `0x7f` are odd forms of an address."""

_ORIGIN: Final = re.compile(
    r"(?P<scheme>[a-z-]+)://(?P<host>[a-z0-9._-]+|\[[0-9a-f:.]+\])(?::0*(?P<port>[1-9][0-9]{0,4}))?/?"
)

_APP_SCHEMES: Final = (
    "app", "capacitor", "chrome-extension", "ionic", "moz-extension", "safari-web-extension", "tauri", "vscode-webview",
)  # fmt: skip
"""Schemes of origins, besides http and https, that apps and extensions of browsers send."""

_URL: Final = re.compile(r"https?://[A-Za-z0-9._~:/?@!$&'()*+,;=%\[\]-]+")
"""The characters that a URL can have (RFC 3986), without a fragment."""

_LARGEST_PORT: Final = 65_535
_DEFAULT_PORTS: Final = {"http": "80", "https": "443"}


def _split(value: Any) -> Any:
    """The values of a list that is separated by commas, or written as JSON."""
    if not isinstance(value, str):
        return value
    if ";" in value:
        raise ValueError("must be separated by commas, not by semicolons")
    try:
        parts = json.loads(value) if value.startswith("[") else value.split(",")
    except ValueError:  # an IPv6 address in brackets
        parts = value.split(",")
    if not all(isinstance(part, str) for part in parts):
        raise ValueError("must be texts, separated by commas")
    named = tuple(part.strip() for part in parts if part.strip())
    if not named:
        raise ValueError("must name at least one value, or not be set")
    return named


List = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]
"""Several values, separated by commas."""


def _listen_host(value: str) -> str:
    if value.startswith(f"{UNIX}:"):
        path = Path(value.removeprefix(f"{UNIX}:"))
        if not path.is_absolute() or len(bytes(path)) > _LONGEST_SOCKET_PATH or not stat.S_ISDIR(mode_of(path.parent)):
            raise ValueError("must name a socket in a folder that exists, by a short path as in unix:/run/items.sock")
        mode = mode_of(path)
        if mode and not stat.S_ISSOCK(mode):
            raise ValueError("must name a socket, as in unix:/run/items.sock: another kind of file has this path")
        return value
    host = value.removeprefix("[").removesuffix("]")
    if not _is_address(host) and not _NAME.fullmatch(host):
        raise ValueError(
            "must be an address or a name without a port, such as 0.0.0.0, ::1 or localhost, or unix:/path"
        )
    return host


ListenHost = Annotated[str, AfterValidator(_listen_host)]
"""An address or a name to listen on, or `unix:` and the path of a socket."""


def _networks(value: tuple[str, ...]) -> tuple[str, ...]:
    try:
        return tuple(entry if entry == "*" else _network(entry) for entry in value)
    except ValueError:
        raise ValueError(
            "must be addresses or networks like 10.0.0.0/8, with no host bits set, separated by commas, or * for all"
        ) from None


def _network(entry: str) -> str:
    """The address or the network in its usual form."""
    return str(ip_network(entry)) if "/" in entry else str(ip_address(entry))


def with_mapped_networks(networks: tuple[str, ...]) -> tuple[str, ...]:
    """The networks, and each IPv4 network as IPv6 as well: on a socket for both, 10.0.0.1 is ::ffff:10.0.0.1."""
    mapped = [ip_network(entry) for entry in networks if "." in entry and ":" not in entry]
    return *networks, *(f"::ffff:{network.network_address}/{96 + network.prefixlen}" for network in mapped)


Networks = Annotated[List, AfterValidator(_networks)]
"""Addresses and networks, separated by commas. `*` stands for all. Gunicorn refuses names before it reads ours."""


def _origins(value: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(map(_origin, value))


def _origin(entry: str) -> str:
    """The origin as browsers send it: in lower case, without the scheme's own port and without a slash at the end."""
    if entry == "*":
        return entry
    try:
        return _sent_origin(entry.lower())
    except ValueError:
        raise ValueError(
            "must be origins like https://app.example.com, without a path or a wildcard, separated by commas, "
            f"or * for every origin; the scheme is one of {', '.join((*_DEFAULT_PORTS, *_APP_SCHEMES))}"
        ) from None


def _sent_origin(entry: str) -> str:
    parts = _ORIGIN.fullmatch(entry)
    if parts is None or parts["scheme"] not in (*_DEFAULT_PORTS, *_APP_SCHEMES):
        raise ValueError(entry)
    origin = f"{parts['scheme']}://{_sent_host(parts['host'])}"
    if parts["port"] is None or parts["port"] == _DEFAULT_PORTS.get(parts["scheme"]):
        return origin
    if int(parts["port"]) > _LARGEST_PORT:
        raise ValueError(entry)
    return f"{origin}:{parts['port']}"


def _sent_host(host: str) -> str:
    """The name or the address in the one form that browsers send (WHATWG's URL standard).

    Raises:
        ValueError: It is neither, as `127.1` and `a..b`, or has a zone, which is never sent.
    """
    if _NAME.fullmatch(host):
        return host
    address = ip_address(host.removeprefix("[").removesuffix("]"))
    if isinstance(address, IPv4Address):
        return str(address)
    if address.scope_id:
        raise ValueError(host)
    if address.ipv4_mapped:  # Python 3.13 writes it with dots
        high, low = divmod(int(address.ipv4_mapped), 1 << 16)
        return f"[::ffff:{high:x}:{low:x}]"
    return f"[{address}]"


Origins = Annotated[List, AfterValidator(_origins)]
"""Origins of web pages, separated by commas. `*` stands for all."""


def _host_names(value: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(name for entry in value for name in _names_of(entry.lower()))


def _names_of(entry: str) -> tuple[str, ...]:
    """The names that the entry allows, as they are compared: `.example.com` means the name itself and all below it."""
    if entry == "*":
        return (entry,)
    if entry.startswith(".") and _NAME.fullmatch(entry[1:]):
        return entry[1:].removesuffix("."), f"*{entry.removesuffix('.')}"
    if entry.startswith("*.") and _NAME.fullmatch(entry[2:]):
        return (entry.removesuffix("."),)
    try:
        return (_sent_host(entry).removesuffix("."),)
    except ValueError:
        raise ValueError(
            "must be host names like items.example.com or *.example.com, without a scheme, a port or a path, "
            "separated by commas"
        ) from None


HostNames = Annotated[List, AfterValidator(_host_names)]
"""Names of hosts, separated by commas. `*.example.com` stands for all names below it, `*` for every name."""


def _is_address(text: str) -> bool:
    try:
        return bool(ip_address(text))
    except ValueError:
        return False


def check_issuer_url(value: str, *, with_query: bool = False) -> str:
    """Return the address of an issuer, or of its keys, as it is written.

    Raises:
        ValueError: Another machine could read or change what is sent there, or it is malformed.
    """
    if not _is_secure_url(value) or ("?" in value and not with_query):
        raise ValueError(
            "must be a URL like https://login.example.com/realm, without a user, a query or a fragment; "
            "http only at a loopback address"
        )
    return value


def _is_secure_url(value: str) -> bool:
    try:
        parts = urlsplit(value)
        host, port = parts.hostname, parts.port  # a port that is no number raises
    except ValueError:
        return False
    if not host or port == 0 or not _URL.fullmatch(value) or "@" in parts.netloc:
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and _is_loopback(host))


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _issuer_url(value: str | None) -> str | None:
    return None if value is None else check_issuer_url(value)


IssuerUrl = Annotated[str | None, AfterValidator(_issuer_url)]
"""The address of an OpenID Connect issuer or of its keys, or none."""
