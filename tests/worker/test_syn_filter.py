"""What the SYN filter does to connections. test_shutdown.py stops a real server."""

import socket

import pytest

from app.worker.syn_filter import drop_new_connections


@pytest.fixture
def listener():
    """A listener of this process alone."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


def test_a_connection_that_was_made_before_the_filter_is_accepted(listener):
    """Both sides can send and receive on it."""
    with socket.create_connection(listener.getsockname()) as client:
        drop_new_connections(listener)
        client.sendall(b"hello")
        accepted, _ = listener.accept()
        with accepted:
            assert b"hello" == accepted.recv(5)
            accepted.sendall(b"there")
            assert b"there" == client.recv(5)


@pytest.mark.needs("root")  # some kernels refuse the filter to other users, and the service then works without it
def test_no_new_connection_can_be_made(listener):
    """The client's SYN is dropped, so its attempt times out and there is no connection that a close would reset."""
    drop_new_connections(listener)
    with socket.socket() as client:
        client.settimeout(0.3)
        with pytest.raises(TimeoutError):
            client.connect(listener.getsockname())


def test_a_unix_socket_gets_no_filter(tmp_path):
    """Its packets have no TCP header, so clients can still connect."""
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as client:
        listener.bind(str(tmp_path / "socket"))
        listener.listen()
        drop_new_connections(listener)
        client.connect(str(tmp_path / "socket"))
        accepted, _ = listener.accept()
        accepted.close()
