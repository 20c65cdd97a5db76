"""The keys of the scope through which the server and the application inform each other, most of its `state`."""

from collections.abc import Mapping
from typing import Any, Final

WHOLE_RESPONSE: Final = "whole_response"
"""The `send` that takes a whole response in one message: `http.response.start` with the key `body`.

The server puts its own here. A middleware that was given this very one, and passes such messages on, puts its own in
its place. Who was given another one sends two messages: a middleware that knows nothing of this is between."""

ANSWER_REFUSED: Final = "answer_refused"
"""From the lifespan: the ASGI application that answers the requests that the server refuses."""

REFUSAL: Final = "refusal"
"""From the lifespan: the class of the error by which the application is told that the server refuses a request. After a
reload the server still has the modules from the start of the master, and the application has new ones."""

BODY_LONG: Final = "body_long"
"""Present if the body is longer than what the server receives before it hands a request to the application: it may have
arrived in part only, and be longer than MAX_BODY_BYTES."""

BODY_KEPT: Final = "body_kept"
"""Present if the endpoint keeps all of a body that may be longer than MAX_BODY_BYTES."""

CLIENT_DISCONNECTED: Final = "client_disconnected"
"""Present if the request is cancelled because its client has disconnected."""

FAILURE_CODE: Final = "failure_code"
"""Why the request failed, for the metrics. Present if a problem document is the answer."""

HEADER_FIELDS: Final = "header_fields"
"""The header fields of the request that the middleware reads: the values of each, by its name."""

PRINCIPAL: Final = "principal"
"""Who sends the request, as its token says. Absent without authentication, and on the paths that everybody may read."""

STREAM_BEGAN: Final = "stream_began"
"""When the head of the response was sent, by `perf_counter`. Present if the response is a stream."""

STREAM_CUT: Final = "stream_cut"
"""The status by which the request is logged and counted. Present if a stream has ended before it was complete: the
server then closes the connection without the end of the body, or its client has disconnected."""

TRACE: Final = "trace"
"""The ids of the trace and of the span of the request. Absent where tracing is off, and for probes."""

DRAINING: Final = "draining"
"""From the server: an `asyncio.Event` that is set when the worker begins to drain."""

HEARTBEAT: Final = "heartbeat"
"""From the lifespan: a function that the worker calls with each heartbeat."""

CLIENTS_OBSERVER: Final = "clients_observer"
"""From the lifespan: what the worker reports its client connections to."""


def is_draining(state: Mapping[str, Any]) -> bool:
    """Whether the worker that answers the request with this state drains. Other servers than ours do not say it."""
    event = state.get(DRAINING)
    return event is not None and event.is_set()
