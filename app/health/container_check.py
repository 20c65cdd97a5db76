"""The check of the image's HEALTHCHECK: asks `/health` at the address that HOST and PORT name.

It runs every few seconds, so it reads the two variables itself: to import the settings takes six times the CPU time.
"""

import http.client
import os
import socket
import sys
from collections.abc import Mapping
from typing import Final

from app.health.paths import LIVE

DEFAULTS: Final = {"HOST": "127.0.0.1", "PORT": "8000"}

_SECONDS: Final = 2.0

_UNSPECIFIED: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  # nosec  # asked at loopback, not listened on


def connect(environment: Mapping[str, str]) -> http.client.HTTPConnection:
    """A connection to where the server listens.

    Raises:
        OSError: Nothing listens on the Unix socket.
    """
    host, port = (environment.get(name, "").strip() or default for name, default in DEFAULTS.items())
    host = host.removeprefix("[").removesuffix("]")
    if not host.startswith("unix:"):
        return http.client.HTTPConnection(_UNSPECIFIED.get(host, host), int(port), timeout=_SECONDS)
    connection = http.client.HTTPConnection("localhost", timeout=_SECONDS)
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.settimeout(_SECONDS)
    connection.sock.connect(host.removeprefix("unix:"))
    return connection


def main() -> None:
    """End with exit code 0 where the answer is 200."""
    try:
        connection = connect(os.environ)
        connection.request("GET", LIVE)
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        sys.exit(f"The server does not answer: {error}")
    if status != http.HTTPStatus.OK:
        sys.exit(f"The server answers {status}.")


if __name__ == "__main__":
    main()
