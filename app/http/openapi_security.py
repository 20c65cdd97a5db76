"""What the OpenAPI document says about access tokens."""

from typing import Any, Final

from app.auth.scopes import access_token
from app.settings import Settings

_OPEN_ID_CONNECT: Final = "openIdConnect"


def complete_schemes(document: dict[str, Any], settings: Settings) -> None:
    """Add the issuer to the schemes. Without authentication, remove what FastAPI has found in the routes."""
    components = document.get("components", {})
    schemes = components.get("securitySchemes", {})
    if settings.auth_issuer is None:
        schemes.pop(access_token.scheme_name, None)
        if not schemes:
            components.pop("securitySchemes", None)
        return
    discovery = settings.auth_issuer.removesuffix("/") + "/.well-known/openid-configuration"
    schemes[_OPEN_ID_CONNECT] = {"type": "openIdConnect", "openIdConnectUrl": discovery}


def complete_operation(operation: dict[str, Any], settings: Settings) -> bool:
    """Name the scopes of an operation in each scheme. The result tells whether it needs a token."""
    declared: list[dict[str, list[str]]] = operation.get("security", [])
    own = [entry for entry in declared if access_token.scheme_name in entry]
    others = [entry for entry in declared if access_token.scheme_name not in entry]
    if settings.auth_issuer is None:
        if own and others:
            operation["security"] = others
        elif own:
            del operation["security"]
        return False
    if own:
        operation["security"] = declared + [{_OPEN_ID_CONNECT: scopes} for entry in own for scopes in entry.values()]
    return bool(own)
