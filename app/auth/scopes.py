"""How a route says which scope a client needs: `Security(access_token, scopes=["items:read"])`."""

from fastapi.openapi.models import HTTPBearer
from fastapi.security.base import SecurityBase
from starlette.requests import Request

from app.auth.principal import Principal
from app.state_keys import PRINCIPAL


class AccessToken(SecurityBase):
    """The security scheme of this service, as FastAPI and the OpenAPI document know it.

    It verifies nothing: `middleware.authentication` has done so before, and `http.route` has compared the scopes. As a
    parameter of a handler it is the `Principal`, and None without authentication.
    """

    scheme_name = "accessToken"

    def __init__(self) -> None:
        self.model = HTTPBearer(
            bearerFormat="JWT",
            description="An access token of the OpenID Connect issuer. This page does not log in: "
            "get a token from the issuer, and paste it without `Bearer`.",
        )

    async def __call__(self, request: Request) -> Principal | None:
        """Return who sends the request."""
        principal: Principal | None = request.scope["state"].get(PRINCIPAL)
        return principal


access_token = AccessToken()
"""What a route names in `Security`. Without authentication it lets everybody pass."""


def owner_of(request: Request) -> str | None:
    """To whom belongs what this request stores: the key of its `Principal`. None without authentication: to nobody."""
    principal: Principal | None = request.scope["state"].get(PRINCIPAL)
    return None if principal is None else principal.key
