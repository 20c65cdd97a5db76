"""What the kernel does with connections when a listener is closed; a whole server's end is in test_end."""

import socket

import pytest

from app.worker.closing import refuse_new_connections


@pytest.fixture
def listener():
    """A listener that nobody else shares."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


def test_a_connection_that_has_begun_is_still_accepted(listener):
    """It can be spoken on in both directions."""
    with socket.create_connection(listener.getsockname()) as client:
        refuse_new_connections(listener)
        client.sendall(b"hello")
        accepted, _ = listener.accept()
        with accepted:
            assert b"hello" == accepted.recv(5)
            accepted.sendall(b"there")
            assert b"there" == client.recv(5)


def test_none_can_begin_and_be_reset(listener):
    """The attempt is not taken; had it been, the close would cut it."""
    refuse_new_connections(listener)
    with socket.socket() as client:
        client.settimeout(0.3)
        with pytest.raises(TimeoutError):
            client.connect(listener.getsockname())


def test_a_socket_of_another_kind_is_left_alone():
    """It has no TCP header to look at."""
    with socket.socket(socket.AF_UNIX) as listener:
        refuse_new_connections(listener)
