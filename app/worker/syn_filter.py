"""A filter on a listener that drops new SYNs, so that closing the listener resets no connection."""

import ctypes
import socket
import struct
import sys
from contextlib import suppress

_SO_ATTACH_FILTER = 26
"""Linux, asm-generic/socket.h. Python's socket module does not define it."""

_DROP_SYN = b"".join(
    struct.pack("HBBI", *instruction)
    for instruction in (
        (0x30, 0, 0, 13),  # load the byte of the TCP header that has the flags
        (0x54, 0, 0, 0x12),  # keep SYN and ACK
        (0x15, 0, 1, 0x02),  # is only SYN set?
        (0x06, 0, 0, 0),  # yes: drop the packet
        (0x06, 0, 0, 0xFFFFFFFF),  # no: accept it
    )
)
"""Classic BPF, see the Linux kernel's Documentation/networking/filter.rst."""


def drop_new_connections(listener: socket.socket) -> None:
    """Have the kernel drop the first packet of every connection that begins from now on.

    Connections that have begun can still be accepted. A client whose SYN was
    dropped sends it again after a second, and is refused if the listener has
    been closed by then. The filter applies to every process that shares the
    listener. On systems other than Linux this does nothing.
    """
    if sys.platform != "linux" or listener.family not in (socket.AF_INET, socket.AF_INET6):
        return
    program = ctypes.create_string_buffer(_DROP_SYN)
    with suppress(OSError):
        listener.setsockopt(
            socket.SOL_SOCKET,
            _SO_ATTACH_FILTER,
            struct.pack("HP", len(_DROP_SYN) // 8, ctypes.addressof(program)),
        )
