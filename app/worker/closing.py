"""A listener's last moment: what connects between the last `accept` and the `close` would be reset by the kernel."""

import ctypes
import socket
import struct
import sys
from contextlib import suppress

_SO_ATTACH_FILTER = 26
"""Linux, asm-generic/socket.h; Python's socket module has no name for it."""

_ONLY_SYN_IS_DROPPED = b"".join(
    struct.pack("HBBI", *instruction)
    for instruction in (
        (0x30, 0, 0, 13),  # load the byte of the TCP header that has the flags
        (0x54, 0, 0, 0x12),  # keep SYN and ACK
        (0x15, 0, 1, 0x02),  # SYN alone?
        (0x06, 0, 0, 0),  # drop it
        (0x06, 0, 0, 0xFFFFFFFF),  # accept anything else whole
    )
)
"""Classic BPF, see the Linux kernel's Documentation/networking/filter.rst."""


def refuse_new_connections(listener: socket.socket) -> None:
    """Have the kernel drop the first packet of every connection that begins from now on.

    Those that have begun still come to be accepted. A client that is dropped
    tries again by itself within a second, and is refused then if the listener
    has been closed. All processes that share the listener are concerned. Where
    the system knows no such filter nothing happens.
    """
    if sys.platform != "linux" or listener.family not in (socket.AF_INET, socket.AF_INET6):
        return
    program = ctypes.create_string_buffer(_ONLY_SYN_IS_DROPPED)
    with suppress(OSError):
        listener.setsockopt(
            socket.SOL_SOCKET,
            _SO_ATTACH_FILTER,
            struct.pack("HP", len(_ONLY_SYN_IS_DROPPED) // 8, ctypes.addressof(program)),
        )
