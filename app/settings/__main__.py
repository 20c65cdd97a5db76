"""`python -m app.settings` says what is wrong with the settings, also with those that Gunicorn reads by itself."""

import os
import sys
from collections.abc import Mapping
from ipaddress import ip_network

from app.errors import StartupError
from app.settings import Settings


def check_variables_of_gunicorn(environment: Mapping[str, str]) -> None:
    """Refuse what Gunicorn cannot read: it does so when it is imported, before its configuration is.

    Raises:
        StartupError: A variable is malformed for Gunicorn.
    """
    try:
        int(environment.get("WEB_CONCURRENCY", "1"))
    except ValueError:
        raise StartupError("WEB_CONCURRENCY must be a number like 4 for Gunicorn, or be unset, not empty.") from None
    try:
        for network in filter(None, environment.get("FORWARDED_ALLOW_IPS", "").split(",")):
            _ = network.strip() == "*" or ip_network(network.strip())
    except ValueError:
        raise StartupError(
            "FORWARDED_ALLOW_IPS must be addresses or networks like 10.0.0.0/8, separated by commas, or * for all."
        ) from None


if __name__ == "__main__":
    try:
        Settings.load()
        check_variables_of_gunicorn(os.environ)
    except StartupError as error:
        sys.exit(f"Error: {error}")
