"""Counts every request by its method, its route's template and its exact status."""

from time import perf_counter

from prometheus_fastapi_instrumentator.metrics import Info
from prometheus_fastapi_instrumentator.middleware import PrometheusInstrumentatorMiddleware
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from app.metrics.instruments import Metrics
from app.middleware.problems import INTERNAL_ERROR_CODE
from app.middleware.response_recorder import ResponseRecorder
from app.state_keys import FAILURE_CODE, STREAM_BEGAN, STREAM_CUT


class RequestMetrics(PrometheusInstrumentatorMiddleware):
    """The instrumentator's middleware, with the same instrumentations at less cost.

    Each instrumentation is called with the library's `Info`, so functions written for
    the library can be added to `instrumentations`. The library's own `__call__` matches
    the path against all routes again, and builds a `Response` for every `Info`: 65 µs
    together. Here the route comes from the scope, where it stands after the request, and
    `Info.response` is None, which the library allows.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        super().__init__(
            app,
            registry=metrics.registry,
            should_group_status_codes=False,
            instrumentations=[metrics.request_answered],
        )
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, then count and time it.

        A stream is timed until its head is sent: how long the rest takes depends on its client. If it was cut, it is
        counted with the status that says why.
        """
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        recorder = ResponseRecorder(receive, send)
        crashed = False
        self._metrics.in_progress += 1
        started = perf_counter()
        try:
            await self.app(scope, recorder.receive, recorder.send)
        except Exception:
            crashed = True
            raise
        finally:
            self._metrics.in_progress -= 1
            state = scope.setdefault("state", {})
            if crashed:
                state[FAILURE_CODE] = INTERNAL_ERROR_CODE
            route = scope.get("route")
            info = Info(
                request=Request(scope),
                response=None,
                method=scope["method"],
                modified_handler="none" if route is None else route.path,
                modified_status="500" if crashed else str(state.get(STREAM_CUT, recorder.status)),
                modified_duration=state.get(STREAM_BEGAN, perf_counter()) - started,
            )
            for instrumentation in self.instrumentations:
                instrumentation(info)
