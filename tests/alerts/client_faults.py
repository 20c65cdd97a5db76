"""Clients that disconnect, are slow or hostile, or send too much."""

import socket
import struct
from contextlib import suppress

from tests.alerts.scene import Scene, creation, from_client, read
from tests.cluster import execute, slow_down_creations
from tests.processes.load import Request, load
from tests.processes.raw import AMBIGUOUS, connect, send_and_read

HALF_A_HEAD = b"POST /samples HTTP/1.1\r\nHost:"

PAUSE_OF_LISTS = """
CREATE FUNCTION pause_of_lists() RETURNS boolean LANGUAGE plpgsql AS
    'BEGIN IF current_query() LIKE ''%LIMIT%'' THEN PERFORM pg_sleep(0.2); END IF; RETURN true; END';
ALTER TABLE samples ENABLE ROW LEVEL SECURITY;
CREATE POLICY pause_of_lists ON samples USING (pause_of_lists());
DELETE FROM samples WHERE id > 3;
"""
"""A list of three samples takes 0.6 s or more on the server, without using its CPU. Other statements are not slower."""


def clients_disconnect(scene: Scene) -> None:
    """Clients disconnect during a request."""
    with scene.serving() as server:
        scene.begin()
        for number, _ in enumerate(scene.every(0.5)):
            sent = creation(number).encode(keep=True)
            with connect(server) as client:
                client.sendall(sent if number % 2 else sent[:-5])
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def clients_slow(scene: Scene) -> None:
    """Clients send half a request: 100 connections at all times."""
    with scene.serving() as server:
        scene.begin()
        for _ in scene.every(0):
            clients = [connect(server) for _ in range(100)]
            for client in clients:
                client.settimeout(60)
                client.sendall(HALF_A_HEAD)
            for client in clients:
                with suppress(OSError):
                    client.recv(4096)
                client.close()


def clients_hostile(scene: Scene) -> None:
    """Clients are hostile."""
    with scene.serving() as server:
        scene.begin()
        for _ in scene.every(5):
            for sent in AMBIGUOUS.values():
                send_and_read(server, sent)


def overload(scene: Scene) -> None:
    """Clients send five times as much as before, more than the database can serve."""
    slow_down_creations(scene.owner_url, seconds=0.2)

    def request(number: int) -> Request:
        return from_client(number, creation(number))

    with scene.serving(request=request) as server:
        scene.begin()
        with load(
            server.port, rate=4 * scene.rate, seconds=7200, kept=250, fresh=0, request=lambda n: request(1_000_000 + n)
        ):
            scene.hold()


def one_client_starves(scene: Scene) -> None:
    """One client sends more slow lists than it may."""
    execute(scene.owner_url, PAUSE_OF_LISTS)
    attack = Request(target="/samples", headers=(("X-Forwarded-For", "198.51.100.9"),))

    def request(number: int) -> Request:
        return from_client(number, read(number))

    with scene.serving(request=request) as server:
        scene.begin()
        with load(server.port, rate=60, seconds=7200, kept=100, fresh=0, request=lambda _: attack):
            scene.hold()
