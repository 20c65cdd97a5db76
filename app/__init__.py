"""The items API."""

__version__ = "1.0.0"

NAME = "items-api"
"""The name of the service: in PostgreSQL, metrics, file names, deploy/ and pyproject.toml."""

TITLE = "Items API"
"""The name that people read."""
