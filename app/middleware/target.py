"""Check of a request's target."""

from starlette.types import Scope

from app.errors import MalformedPathError
from app.middleware.header_fields import HeaderFields


def check_target(scope: Scope, _fields: HeaderFields) -> None:
    """Refuse a request whose target is not a path, or whose path is not UTF-8 after percent-decoding.

    The server has replaced bytes that are not UTF-8 with U+FFFD. A path that contains the encoded U+FFFD itself is
    refused too.
    """
    path = scope["path"]
    if path[:1] != "/" or "\ufffd" in path:
        raise MalformedPathError
