"""How a worker has ended, by the status that the kernel reports to its master."""

import os
import signal
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True, slots=True, kw_only=True)
class ExitStatus:
    """Either the signal that ended the process, or its exit code."""

    signal: str | None
    """Its name, such as SIGKILL."""

    exit_code: int | None

    @classmethod
    def parse(cls, status: int) -> Self:
        """Read the status that `os.waitpid` returns."""
        if not os.WIFSIGNALED(status):
            return cls(signal=None, exit_code=os.WEXITSTATUS(status))
        number = os.WTERMSIG(status)
        try:
            name = signal.Signals(number).name
        except ValueError:  # a real-time signal
            name = f"signal {number}"
        return cls(signal=name, exit_code=None)

    @property
    def follows_stop(self) -> bool:
        """Whether a worker that was asked to stop ends like this; SIGKILL, if it did not stop in time."""
        return self.exit_code == 0 or self.signal in {"SIGTERM", "SIGKILL"}

    @property
    def cause(self) -> str:
        """What is known about why a worker ended that its master did not end."""
        if self.signal == "SIGKILL":
            return (
                "The master did not send SIGKILL. The kernel sends it when memory is exhausted: see its log, "
                "or the reason OOMKilled of the container. Another process may have sent it as well."
            )
        if self.signal in {"SIGSEGV", "SIGBUS", "SIGFPE", "SIGILL", "SIGABRT"}:
            return "A fault in a library that is not written in Python, or another process sent the signal."
        if self.signal is not None:
            return "The master did not send the signal: another process did."
        return "The process ended by itself. Its last lines in the log say why."
