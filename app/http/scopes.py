"""The scopes that routes declare: which each one needs, and the checks that none is forgotten."""

from collections.abc import Iterable

from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from starlette.routing import BaseRoute
from starlette.types import Scope

from app.errors import AuthenticationRequiredError, InsufficientScopeError, StartupError
from app.state_keys import PRINCIPAL


def declared_scopes(declared: Dependant) -> frozenset[str]:
    """Return all scopes that `Security` names anywhere in the dependencies of a route."""
    scopes = set(declared.own_oauth_scopes or ())
    return frozenset(scopes.union(*map(declared_scopes, declared.dependencies)))


def check_scopes(scope: Scope, needed: frozenset[str]) -> None:
    """Refuse a request whose token lacks a scope.

    Raises:
        AuthenticationRequiredError: It has no verified token.
        InsufficientScopeError: Its token has not all of these scopes.
    """
    principal = scope["state"].get(PRINCIPAL)
    if principal is None:
        raise AuthenticationRequiredError
    if not needed <= principal.scopes:
        raise InsufficientScopeError(needed)


def check_routes(routes: Iterable[BaseRoute], open_paths: frozenset[str]) -> None:
    """Refuse routes of which nobody has said who may use them, or of which two things are said.

    Raises:
        StartupError: A route names no scope and has no open path, or does both.
    """
    for route in routes:
        path = getattr(route, "path", None)
        scopes = declared_scopes(route.dependant) if isinstance(route, APIRoute) else frozenset[str]()
        if bool(scopes) == (path in open_paths):
            problem = "is an open path and names scopes" if scopes else "names no scope"
            raise StartupError(
                f'{path or route}: the route {problem}. Give it dependencies=[Security(access_token, scopes=["…"])], '
                "or put its path into OPEN_PATHS so that everybody may read it, or leave out AUTH_ISSUER."
            )
