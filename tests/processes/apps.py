"""A small ASGI application without a database, for tests of the server itself."""

import asyncio
import contextlib
import os
import time
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Scope = MutableMapping[str, Any]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]


def plain() -> Application:
    """Answers each request with facts about it and its worker, after doing what the query asks for."""
    return _Plain()


class _Plain:
    def __init__(self) -> None:
        self.start_seconds = float(os.environ.get("TEST_START_SECONDS", "0"))
        fault = os.environ.get("TEST_FAULT_FILE")
        self.fault_file = Path(fault) if fault else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
            return
        if not scope["path"].startswith("/") or "\ufffd" in scope["path"]:
            headers = [(b"content-length", b"0"), (b"connection", b"close")]
            await send({"type": "http.response.start", "status": 400, "headers": headers})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
            return
        query = {name: values[0] for name, values in parse_qs(scope["query_string"].decode()).items()}
        body = b""
        if "early" not in query:
            more = True
            while more:
                message = await receive()
                if message["type"] == "http.disconnect":
                    return
                body += message["body"]
                more = message["more_body"]
        if "sleep" in query:
            await asyncio.sleep(float(query["sleep"]))
        if "block" in query:
            time.sleep(float(query["block"]))  # noqa: ASYNC251
        answer = b"x" * int(query["size"]) if "size" in query else self._facts(scope, body)
        headers = [(b"content-type", b"text/plain")]
        if "unknown_length" not in query:
            headers.append((b"content-length", str(len(answer)).encode()))
        status = 413 if "early" in query else 200
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": answer, "more_body": False})

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        fault = self.fault_file.read_text().strip() if self.fault_file and self.fault_file.exists() else ""
        if fault == "raise":
            raise RuntimeError("This lifespan raises.")
        if fault == "raise once":
            assert self.fault_file
            # Only one of several workers can remove it.
            with contextlib.suppress(FileNotFoundError):
                self.fault_file.unlink()
                raise RuntimeError("This lifespan raises once.")
        if fault == "hang":
            await asyncio.Event().wait()
        await asyncio.sleep(self.start_seconds)
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})

    @staticmethod
    def _facts(scope: Scope, body: bytes) -> bytes:
        facts = {
            "pid": os.getpid(),
            "slot": os.environ["WORKER_SLOT"],
            "metrics": os.environ["PROMETHEUS_MULTIPROC_DIR"],
            "client": scope["client"] and scope["client"][0],
            "method": scope["method"],
            "path": scope["path"],
            "body": len(body),
            "draining": scope["state"]["draining"].is_set(),
            "headers": len(scope["headers"]),
        }
        return "\n".join(f"{name}={value}" for name, value in facts.items()).encode()
