"""HEAD on every route that has GET."""

from starlette.types import ASGIApp, Message, Receive, Scope, Send


async def answer_head(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer HEAD like GET, without the body. FastAPI's routes do not support HEAD by themselves.

    The method is GET for the application only; the middleware around it still sees HEAD.
    """

    async def send_without_body(message: Message) -> None:
        scope["method"] = "HEAD"
        if "body" in message:
            message["body"] = b""
        await send(message)

    scope["method"] = "GET"
    try:
        await app(scope, receive, send_without_body)
    finally:
        scope["method"] = "HEAD"
