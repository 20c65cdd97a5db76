"""The memory of a server."""

from pathlib import Path

from benchmarks.harness.servers import Server

_MEGABYTE = 1024


def resident_megabytes(server: Server) -> float:
    """The resident memory of all processes of a server, each page counted once.

    Its processes share anonymous pages with each other only, so their proportional sizes add up. They map the same
    files, so the largest of them counts: the proportional size would depend on the other programs that are running.
    """
    anonymous, mapped = [], []
    for process in server.processes():
        shares = _kilobytes(Path(f"/proc/{process.pid}/smaps_rollup"))
        anonymous.append(shares["Pss_Anon"] + shares["Pss_Shmem"])
        mapped.append(_kilobytes(Path(f"/proc/{process.pid}/status"))["RssFile"])
    return (sum(anonymous) + max(mapped)) / _MEGABYTE


def _kilobytes(path: Path) -> dict[str, int]:
    """The sizes that a file of /proc names."""
    lines = (line.split() for line in path.read_text().splitlines() if line.endswith(" kB"))
    return {name.removesuffix(":"): int(size) for name, size, _ in lines}
