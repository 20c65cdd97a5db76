import os
import signal

import pytest

from app.worker.exit_status import ExitStatus


@pytest.mark.parametrize(
    ("status", "name", "exit_code", "follows_stop", "cause"),
    [
        (0, None, 0, True, "ended by itself"),
        (3 << 8, None, 3, False, "ended by itself"),
        (signal.SIGTERM, "SIGTERM", None, True, "another process did"),
        (signal.SIGKILL, "SIGKILL", None, True, "The master did not send SIGKILL. The kernel sends it when memory is"),
        (signal.SIGSEGV, "SIGSEGV", None, False, "A fault in a library"),
        (signal.SIGSEGV | 0x80, "SIGSEGV", None, False, "A fault in a library"),  # with a core dump
        (signal.SIGRTMIN + 1, f"signal {signal.SIGRTMIN + 1}", None, False, "another process did"),
    ],
)
def test_the_status_says_what_was_seen(status, name, exit_code, follows_stop, cause):
    """A signal has a name. What nobody has seen is not claimed."""
    ended = ExitStatus.parse(status)

    assert (name, exit_code, follows_stop) == (ended.signal, ended.exit_code, ended.follows_stop)
    assert cause in ended.cause


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_status_is_that_of_a_real_process(number):
    """The kernel's own status of a process that a signal ended."""
    pid = os.posix_spawn("/bin/sleep", ["sleep", "60"], {})
    os.kill(pid, number)

    assert ExitStatus(signal=number.name, exit_code=None) == ExitStatus.parse(os.waitpid(pid, 0)[1])
