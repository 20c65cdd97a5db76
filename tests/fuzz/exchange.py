"""Sends the bytes of scripts to a server on the loopback interface, many connections at a time."""

import asyncio
import socket
import struct
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

from tests.fuzz.grammar import Ending, Script

LEAVING_ADDRESS = "127.0.0.2"
"""Where clients come from that leave without their answers. The log line of a request has the client's address."""

_LONGEST_SECONDS = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """A script and what came back."""

    script: Script
    received: bytes
    end: str
    """How the connection was at the end: `closed`, `reset` or `open`, or `left` if the client left."""

    seconds: float


async def run_all(port: int, scripts: Iterable[Script], *, connections: int) -> list[Exchange]:
    """Run all scripts, so many at a time."""
    waiting = iter(scripts)
    done: list[Exchange] = []

    async def work() -> None:
        for script in waiting:
            done.append(await _run(port, script))  # noqa: PERF401  # several workers append

    async with asyncio.TaskGroup() as group:
        for _ in range(connections):
            group.create_task(work())
    return sorted(done, key=lambda exchange: exchange.script.index)


async def _run(port: int, script: Script) -> Exchange:
    loop = asyncio.get_running_loop()
    client = socket.socket()
    client.setblocking(False)
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    client.bind((LEAVING_ADDRESS if script.leaves else "127.0.0.1", 0))
    received, end = bytearray(), "closed"
    started = time.monotonic()
    with client:
        await loop.sock_connect(client, ("127.0.0.1", port))
        reading = asyncio.create_task(_read(client, received)) if not script.leaves else None
        # The server may close before everything is sent.
        with suppress(OSError):
            for segment in script.segments:
                if segment.wait_seconds:
                    await asyncio.sleep(segment.wait_seconds)
                await loop.sock_sendall(client, segment.data)
            if script.ending is Ending.HALF_CLOSE:
                client.shutdown(socket.SHUT_WR)
        if reading is None:
            await asyncio.sleep(script.index % 7 * 0.002)
            if script.ending is Ending.RESET:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            end = "left"
        else:
            try:
                await asyncio.wait_for(reading, _LONGEST_SECONDS)
            except ConnectionResetError:
                end = "reset"
            except TimeoutError:
                end = "open"
    return Exchange(script=script, received=bytes(received), end=end, seconds=time.monotonic() - started)


async def _read(client: socket.socket, received: bytearray) -> None:
    loop = asyncio.get_running_loop()
    while piece := await loop.sock_recv(client, 65_536):
        received += piece
