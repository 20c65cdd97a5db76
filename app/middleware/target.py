"""Check of a request's target."""

from urllib.parse import unquote_to_bytes

from starlette.types import Scope

from app.errors import MalformedPathError
from app.middleware.header_fields import HeaderFields


def check_target(scope: Scope, _fields: HeaderFields) -> None:
    """Refuse a request whose target is not a path, or whose path is not UTF-8 after percent-decoding.

    The server has replaced bytes that are not UTF-8 with U+FFFD, which a path may also contain itself.
    """
    path = scope["path"]
    if path[:1] != "/" or ("\ufffd" in path and not _is_utf8(unquote_to_bytes(scope.get("raw_path") or b"\xff"))):
        raise MalformedPathError


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True
