"""How many CPUs this process may use: the cgroup's quota, not the host's cores."""

import math
import os
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")
_MEMBERSHIP = Path("/proc/self/cgroup")


def available_cpus(cgroups: Path = _CGROUPS, membership: Path = _MEMBERSHIP) -> int:
    """The CPUs that the scheduler and the cgroup's quota allow this process, at least 1.

    A fraction is rounded up: half a CPU counts as one, one and a half count as two.
    """
    cpus = len(os.sched_getaffinity(0))
    quotas = [quota for folder in _folders(cgroups, membership) if (quota := _quota(folder)) is not None]
    return max(1, min([cpus, *(math.ceil(quota) for quota in quotas)]))


def _folders(cgroups: Path, membership: Path) -> list[Path]:
    """This process's cgroup and its parents. The smallest quota of them applies."""
    folders = {cgroups, cgroups / "cpu"}
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "" or "cpu" in controllers.split(","):
            root = cgroups / controllers if controllers else cgroups
            own = root / path.lstrip("/")
            folders.update([own, *(parent for parent in own.parents if parent.is_relative_to(root))])
    return sorted(folders)


def _quota(folder: Path) -> float | None:
    """The quota of this folder in CPUs, read by version 2 or version 1 of the interface, or None."""
    try:
        quota, period = (folder / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            quota = (folder / "cpu.cfs_quota_us").read_text().strip()
            period = (folder / "cpu.cfs_period_us").read_text().strip()
        except OSError:
            return None
    try:
        return int(quota) / int(period) if int(quota) > 0 else None
    except (ValueError, ZeroDivisionError):
        return None
