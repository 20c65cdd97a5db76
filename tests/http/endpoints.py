"""Generates applications whose endpoints and dependencies record their calls, for comparison with FastAPI's."""

import dataclasses
import inspect
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from fastapi import (
    APIRouter,
    BackgroundTasks,
    Body,
    Cookie,
    Depends,
    FastAPI,
    Header,
    HTTPException,
    Query,
    Request,
    Response,
    Security,
)
from fastapi.routing import APIRoute
from fastapi.security import HTTPBearer, SecurityScopes
from hypothesis import strategies as st
from pydantic import BaseModel
from starlette.responses import JSONResponse


class Thing(BaseModel):
    """A body, and what an endpoint returns."""

    name: str
    size: int = 1


class Shown(BaseModel):
    """A response model that leaves out `size`."""

    name: str


class Filters(BaseModel):
    """Several query parameters."""

    model_config = {"extra": "forbid"}

    limit: int = 5
    text: list[str] = []


class Metadata(BaseModel):
    """Several headers."""

    x_first: str
    x_second: int = 2


Parameter = tuple[str, Any, Any]
"""The name, annotation and default of a parameter."""

_REQUIRED = inspect.Parameter.empty

REQUEST: Parameter = ("request", Request, _REQUIRED)

SIMPLE_PARAMETERS: list[Parameter] = [
    REQUEST,
    ("number", Annotated[int, Query(ge=0)], _REQUIRED),
    ("page", Annotated[int, Query()], 1),
    ("text", Annotated[str | None, Query(alias="Text", max_length=3)], None),
    ("texts", Annotated[list[str] | None, Query()], None),
    ("flag", bool, False),
    ("x_one", Annotated[str, Header(max_length=3)], _REQUIRED),
    ("x_two", Annotated[int | None, Header(alias="X-Two")], None),
    ("x_list", Annotated[list[int] | None, Header()], None),
    ("thing", Thing, _REQUIRED),
]

OTHER_PARAMETERS: list[Parameter] = [
    ("numbers", Annotated[set[int], Query()], frozenset()),
    ("sizes", Annotated[list[int], Query()], [7]),
    ("checked", Annotated[int, Query(validate_default=True)], "8"),
    ("session", Annotated[str | None, Cookie()], None),
    ("filters", Annotated[Filters, Query()], _REQUIRED),
    ("metadata", Annotated[Metadata, Header()], _REQUIRED),
    ("underscored_name", Annotated[str | None, Header(convert_underscores=False)], None),
    ("tasks", BackgroundTasks, _REQUIRED),
    ("response", Response, _REQUIRED),
    ("scopes", SecurityScopes, _REQUIRED),
    ("optional_thing", Thing | None, None),
    ("second_thing", Annotated[Thing, Body(embed=True)], _REQUIRED),
    ("size", Annotated[int, Body()], _REQUIRED),
]

Kind = Literal["async", "sync", "async_yield", "sync_yield", "class", "async_instance", "sync_instance"]


@dataclass(frozen=True)
class Dependency:
    """A dependency, the parameters that it takes, and the dependencies that it has itself."""

    number: int
    kind: Kind
    parameters: tuple[Parameter, ...]
    dependencies: tuple["Use", ...]


@dataclass(frozen=True)
class Use:
    """One use of a dependency."""

    dependency: Dependency | Literal["bearer"]
    use_cache: bool = True
    scope: Literal["function", "request"] | None = None
    security_scopes: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Endpoint:
    """An endpoint and everything that is declared around it."""

    is_async: bool
    returns: Literal["response", "dictionary", "model", "filtered"]
    status_code: int | None
    parameters: tuple[Parameter, ...]
    named: Sequence[Use]
    on_route: Sequence[Use]
    on_router: Sequence[Use]
    on_include: Sequence[Use]
    on_application: Sequence[Use]


Calls = list[Any]


class Build:
    """Builds the functions of an endpoint. They record their calls."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._built: dict[int, Any] = {}
        self._bearer = HTTPBearer(auto_error=False)

    def application(self, endpoint: Endpoint, make: Callable[..., FastAPI], route_class: type[APIRoute]) -> FastAPI:
        """Return an application with this endpoint."""
        app = make(dependencies=self._depends(endpoint.on_application))
        router = APIRouter(prefix="/things", dependencies=self._depends(endpoint.on_router), route_class=route_class)
        # Without a response model, FastAPI takes the return annotation.
        models: dict[str, Any] = {"filtered": {"response_model": Shown}, "model": {"response_model": Thing}}
        router.add_api_route(
            "/{item_id}",
            self._endpoint(endpoint),
            methods=["POST"],
            dependencies=self._depends(endpoint.on_route),
            status_code=endpoint.status_code,
            **models.get(endpoint.returns, {}),
        )
        app.include_router(router, prefix="/v1", dependencies=self._depends(endpoint.on_include))
        return app

    def function(self, dependency: Dependency) -> Any:
        """Return the callable of a dependency, the same one for each of its uses."""
        if dependency.number not in self._built:
            self._built[dependency.number] = self._make(dependency)
        return self._built[dependency.number]

    def _depends(self, uses: Sequence[Use]) -> list[Any]:
        return [self._use(use) for use in uses]

    def _use(self, use: Use) -> Any:
        call = self._bearer if use.dependency == "bearer" else self.function(use.dependency)
        if use.security_scopes is not None:
            return Security(call, scopes=list(use.security_scopes), use_cache=use.use_cache)
        return Depends(call, use_cache=use.use_cache, scope=use.scope)

    def _signature(self, parameters: Sequence[Parameter], uses: Sequence[Use], returns: Any) -> inspect.Signature:
        used = [(f"dependency_{index}", Annotated[Any, self._use(use)], _REQUIRED) for index, use in enumerate(uses)]
        declared = sorted((*parameters, *used), key=lambda parameter: parameter[2] is not _REQUIRED)
        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        return inspect.Signature(
            [
                inspect.Parameter(name, kind, annotation=annotation, default=default)
                for name, annotation, default in declared
            ],
            return_annotation=returns,
        )

    def _endpoint(self, endpoint: Endpoint) -> Any:
        returns = Response if endpoint.returns == "response" else _REQUIRED
        signature = self._signature((("item_id", int, _REQUIRED), *endpoint.parameters), endpoint.named, returns)

        def run(arguments: dict[str, Any]) -> Any:
            self._record("endpoint", arguments)
            if endpoint.returns == "response":
                return JSONResponse({"item": arguments["item_id"]}, status_code=202, headers={"X-Own": "1"})
            return {"name": "Kettle", "size": 3}

        return self._callable(signature, run, "async" if endpoint.is_async else "sync")

    def _make(self, dependency: Dependency) -> Any:
        name = f"dependency {dependency.number}"
        signature = self._signature(dependency.parameters, dependency.dependencies, _REQUIRED)

        def run(arguments: dict[str, Any]) -> Any:
            self._record(name, arguments)
            request = arguments.get("request")
            if request is not None and request.headers.get("x-deny") == str(dependency.number):
                raise HTTPException(403, f"{name} denies", headers={"X-Denied-By": name})
            return name

        return self._callable(signature, run, dependency.kind, on_exit=lambda: self._calls.append(f"exit {name}"))

    def _callable(
        self, signature: inspect.Signature, run: Callable[[dict[str, Any]], Any], kind: Kind, on_exit: Any = None
    ) -> Any:
        def bound(args: Any, kwargs: Any) -> dict[str, Any]:
            return dict(signature.bind(*args, **kwargs).arguments)

        async def call(*args: Any, **kwargs: Any) -> Any:
            return run(bound(args, kwargs))

        def call_sync(*args: Any, **kwargs: Any) -> Any:
            return run(bound(args, kwargs))

        async def generate(*args: Any, **kwargs: Any) -> AsyncIterator[Any]:
            try:
                yield run(bound(args, kwargs))
            finally:
                on_exit()

        def generate_sync(*args: Any, **kwargs: Any) -> Iterator[Any]:
            try:
                yield run(bound(args, kwargs))
            finally:
                on_exit()

        class Instance:
            async def __call__(self, *args: Any, **kwargs: Any) -> Any:
                return run(bound(args, kwargs))

        class SyncInstance:
            def __call__(self, *args: Any, **kwargs: Any) -> Any:
                return run(bound(args, kwargs))

        class Made:
            def __init__(self, *args: Any, **kwargs: Any) -> None:
                run(bound(args, kwargs))

        made: dict[str, Any] = {
            "async": call, "sync": call_sync, "async_yield": generate, "sync_yield": generate_sync, "class": Made,
            "async_instance": Instance(), "sync_instance": SyncInstance(),
        }  # fmt: skip
        made[kind].__signature__ = signature
        return made[kind]

    def _record(self, name: str, arguments: dict[str, Any]) -> None:
        in_thread_pool = threading.current_thread() is not threading.main_thread()
        shown = {key: self._shown(key, value) for key, value in sorted(arguments.items())}
        self._calls.append((name, in_thread_pool, shown))

    def _shown(self, key: str, value: Any) -> Any:
        if isinstance(value, BackgroundTasks):
            value.add_task(self._calls.append, f"task of {key}")
            return "tasks"
        if isinstance(value, Response):
            value.headers["X-Set"] = "1"
            value.set_cookie("set", "1")
            return "response"
        if isinstance(value, Request):
            return value.url.path
        if isinstance(value, SecurityScopes):
            return value.scopes
        return repr(type(value)) if type(value).__name__ == "Made" else repr(value)


def _parameters(choices: list[Parameter], max_size: int) -> st.SearchStrategy[tuple[Parameter, ...]]:
    return st.lists(st.sampled_from(choices), max_size=max_size, unique_by=lambda p: p[0]).map(tuple)


def _uses(dependencies: list[Dependency], max_size: int) -> st.SearchStrategy[tuple[Use, ...]]:
    if not dependencies:
        return st.just(())
    use = st.builds(
        Use,
        dependency=st.sampled_from([*dependencies, "bearer"]),
        use_cache=st.booleans(),
        scope=st.none(),
        security_scopes=st.none() | st.lists(st.sampled_from(["read", "write"]), max_size=2).map(tuple),
    )
    generators = [dependency for dependency in dependencies if _is_generator(dependency)]
    scoped = [Use(dependency, scope="function") for dependency in generators]
    return st.lists(use | st.sampled_from(scoped) if scoped else use, max_size=max_size).map(tuple)


def _is_generator(dependency: Dependency) -> bool:
    return dependency.kind.endswith("yield")


Form = Literal["simple", "almost simple", "any"]
"""Almost simple: one thing keeps the endpoint from the simple form."""


@st.composite
def endpoints(draw: st.DrawFn, form: Form) -> tuple[Endpoint, list[Dependency]]:
    """An endpoint of this form, and the dependencies that it uses."""
    if form == "any":
        return draw(_any_endpoints())
    endpoint, dependencies = draw(_simple_endpoints())
    if form == "simple":
        return endpoint, dependencies
    other = Dependency(99, draw(st.sampled_from(_KINDS[1:])), (REQUEST,), ())
    again = [Use(draw(st.sampled_from(dependencies)))] if dependencies else []
    changes: dict[str, Any] = draw(
        st.sampled_from([
            {"is_async": False},
            {"returns": draw(_RETURNS)},
            {"parameters": (*endpoint.parameters, draw(st.sampled_from(OTHER_PARAMETERS)))},
            {"on_route": [Use(other)]},
            {"on_router": [Use(dataclasses.replace(other, kind="async", parameters=(SIMPLE_PARAMETERS[2],)))]},
            {"named": [*endpoint.named, *again, *again]},
            {"on_application": [*endpoint.on_application, *again], "on_route": [*endpoint.on_route, *again]},
        ])
    )  # fmt: skip
    return dataclasses.replace(endpoint, **changes), dependencies


_KINDS: list[Kind] = ["async", "sync", "async_yield", "sync_yield", "class", "async_instance", "sync_instance"]
_RETURNS = st.sampled_from(["response", "dictionary", "model", "filtered"])


@st.composite
def _simple_endpoints(draw: st.DrawFn) -> tuple[Endpoint, list[Dependency]]:
    takes_request = draw(st.lists(st.booleans(), max_size=4))
    dependencies = [
        Dependency(number, "async", (REQUEST,) if takes else (), ()) for number, takes in enumerate(takes_request)
    ]
    places: list[list[Use]] = [[] for _ in range(5)]
    for dependency in dependencies:  # each in one place, since FastAPI calls a repeated one once
        draw(st.sampled_from(places)).append(Use(dependency))
    parameters = draw(_parameters(SIMPLE_PARAMETERS, 5))
    return _endpoint(parameters, places, status_code=draw(_STATUS_CODES)), dependencies


@st.composite
def _any_endpoints(draw: st.DrawFn) -> tuple[Endpoint, list[Dependency]]:
    choices = SIMPLE_PARAMETERS + OTHER_PARAMETERS
    dependencies: list[Dependency] = []
    for number in range(draw(st.integers(0, 4))):
        parameters = draw(_parameters([REQUEST] * 8 + choices, 2))
        dependencies.append(Dependency(number, draw(st.sampled_from(_KINDS)), parameters, draw(_uses(dependencies, 2))))
    endpoint = _endpoint(
        draw(_parameters(choices, 5)),
        [draw(_uses(dependencies, 2)) for _ in range(5)],
        is_async=draw(st.booleans()),
        returns=draw(_RETURNS),
        status_code=draw(_STATUS_CODES),
    )
    return endpoint, dependencies


_STATUS_CODES = st.sampled_from([None, 201])


def _endpoint(parameters: tuple[Parameter, ...], places: Sequence[Sequence[Use]], **other: Any) -> Endpoint:
    named, on_route, on_router, on_include, on_application = places
    declared: dict[str, Any] = {"is_async": True, "returns": "response"} | other
    return Endpoint(
        parameters=parameters,
        named=named,
        on_route=on_route,
        on_router=on_router,
        on_include=on_include,
        on_application=on_application,
        **declared,
    )


_THINGS = [{"name": "Pan"}, {"name": "Pan", "size": 2}, {"name": 1}, {"size": "x"}, {}]
_DOCUMENTS = st.sampled_from([*_THINGS, None, [], "text", 7]) | st.fixed_dictionaries(
    {},
    optional={
        "thing": st.sampled_from(_THINGS),
        "optional_thing": st.sampled_from([*_THINGS, None]),
        "second_thing": st.sampled_from(_THINGS),
        "size": st.sampled_from([1, "1", "x", None]),
    },
)
_QUERY = [
    "number=5", "number=-1", "number=x", "page=2", "page=", "Text=abc", "Text=abcd", "texts=1", "texts=",
    "flag=1", "flag=x", "numbers=1", "numbers=2", "numbers=x", "sizes=1", "sizes=x", "checked=3", "limit=3", "limit=x",
    "text=a", "text=b", "other=1",
]  # fmt: skip
_HEADERS = [
    "x-one:a", "x-one:abcd", "x-two:1", "x-two:x", "x-list:1", "x-list:2", "x-list:x", "x-first:a",
    "x-second:2", "x-second:x", "cookie:session=s", "underscored_name:a", "authorization:Bearer t", "x-deny:0",
    "x-deny:1", "x-deny:2",
]  # fmt: skip


@dataclass(frozen=True)
class Sent:
    """A request."""

    item_id: str
    query: str
    headers: tuple[tuple[bytes, bytes], ...]
    document: Any
    has_body: bool


@st.composite
def requests(draw: st.DrawFn) -> Sent:
    """A request, often a valid one."""
    valid_query = draw(st.sampled_from(["", "number=5&limit=2"]))
    valid_headers = draw(st.sampled_from([[], ["x-one:a", "x-first:a"], ["x-one:a", "x-first:a", "x-deny:0"]]))
    other_query, other_headers = st.lists(st.sampled_from(_QUERY), max_size=6), st.lists(st.sampled_from(_HEADERS))
    query = [*(draw(other_query) if draw(st.booleans()) else []), valid_query]
    headers = [*valid_headers, *(draw(other_headers) if draw(st.booleans()) else [])]
    pairs = [header.partition(":") for header in headers]
    return Sent(
        item_id=draw(st.sampled_from(["7", "7", "7", "x"])),
        query="&".join(query),
        headers=tuple((name.encode(), value.encode()) for name, _, value in pairs),
        document=draw(st.sampled_from([_WHOLE, _WHOLE, _THINGS[0]]) | _DOCUMENTS),
        has_body=draw(st.booleans()),
    )


_WHOLE = {"name": "Pan", "thing": _THINGS[0], "optional_thing": _THINGS[1], "second_thing": _THINGS[0], "size": 4}
