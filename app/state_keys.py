"""The keys of `scope["state"]` through which the server and the application inform each other."""

from typing import Final

ANSWER_REFUSED: Final = "answer_refused"
"""From the lifespan: the ASGI application that answers the requests that the server refuses."""

BODY_INCOMPLETE: Final = "body_incomplete"
"""Present if the application begins with a request before its body has arrived completely."""

CLIENT_DISCONNECTED: Final = "client_disconnected"
"""Present if the request is cancelled because its client has disconnected."""

CLIENTS_OBSERVER: Final = "clients_observer"
"""From the lifespan: what the worker reports its client connections to."""
