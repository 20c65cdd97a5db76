"""A table of the routes that can be found by a path without comparing it with each route in turn."""

from collections.abc import Sequence

from starlette.convertors import FloatConvertor, IntegerConvertor, StringConvertor, UUIDConvertor
from starlette.routing import BaseRoute
from starlette.routing import Route as StarletteRoute

from app.http.route import Route

_WITHIN_A_SEGMENT = (StringConvertor, IntegerConvertor, FloatConvertor, UUIDConvertor)
"""Parameters of these kinds match no slash."""


_KNOWN_MATCHES = (StarletteRoute.matches, Route.matches)
"""How routes match: by the path and the method."""


class RouteTable:
    """The routes whose path has no parameter, or a text as its last segment, if a `Binding` calls their endpoint.

    It finds the route that the router would find, or none. The router takes the first route that matches, so a route
    that is behind another one for the same paths is left to it.
    """

    def __init__(self, routes: Sequence[BaseRoute]) -> None:
        self._literal: dict[tuple[str, str], Route] = {}
        """By method and path."""
        self._by_prefix: dict[tuple[str, str], tuple[Route, str]] = {}
        """By method and the path before the last segment, with the name of the parameter."""
        self._paths = frozenset(getattr(route, "path", "") for route in routes)
        """A path without parameters is not a value of another route's parameter."""
        for index, route in enumerate(routes):
            if isinstance(route, Route) and route.binding is not None and _is_usual(route):
                for method in route.methods or ():
                    if not any(_may_take(before, method, route.path) for before in routes[:index]):
                        self._add(method, route)

    def find(self, method: str, path: str) -> tuple[Route, dict[str, str]] | None:
        """Return the route and the parameters in the path. None if the router must decide."""
        route = self._literal.get((method, path))
        if route is not None:
            return route, {}
        prefix, _, value = path.rpartition("/")
        found = self._by_prefix.get((method, prefix))
        # For the router a line feed may follow the end of a path.
        if found is None or not value or "\n" in value or path in self._paths:
            return None
        return found[0], {found[1]: value}

    def _add(self, method: str, route: Route) -> None:
        if not route.param_convertors:
            self._literal[method, route.path] = route
            return
        prefix, _, last = route.path.rpartition("/")
        for name, convertor in route.param_convertors.items():
            if last == f"{{{name}}}" and "{" not in prefix and type(convertor) is StringConvertor:
                self._by_prefix[method, prefix] = route, name


def _is_usual(route: Route) -> bool:
    """Whether the route matches requests and handles them as all do, so that the table may stand in for both."""
    return type(route).handle is Route.handle and type(route).matches is Route.matches


def _may_take(route: BaseRoute, method: str, path: str) -> bool:
    """Whether a route may take requests with this method that the table would find for a route with this path."""
    if not isinstance(route, StarletteRoute) or type(route).matches not in _KNOWN_MATCHES:
        return True
    if route.methods is not None and method not in route.methods:
        return False
    if not route.param_convertors:  # the table never takes its path for one with a parameter
        return route.path == path
    if any(not isinstance(convertor, _WITHIN_A_SEGMENT) for convertor in route.param_convertors.values()):
        return True
    segments, others = route.path.split("/"), path.split("/")
    return len(segments) == len(others) and all(
        one == other or "{" in one or "{" in other for one, other in zip(segments, others, strict=True)
    )
