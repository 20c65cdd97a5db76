"""One PostgreSQL server and its data, in a folder."""

import fcntl
import os
import shlex
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

from app.embedded_postgres.programs import SET_URL, account, find_binaries, major_version, run
from app.errors import StartupError

_BUILTIN_LOCALES_SINCE = 17


class Cluster:
    """A PostgreSQL server and its data, reached through a socket in a folder that only its user may enter."""

    def __init__(self, folder: Path, options: Mapping[str, str] | None = None) -> None:
        """Describe the cluster in this folder.

        Args:
            folder: Its parent must exist.
            options: Settings of the server, by name.
        """
        self.folder = folder
        self.data = folder / "data"
        self.url = f"postgresql://postgres@/postgres?host={quote(str(self.data))}&port=5432"
        self._options = {"listen_addresses": "", "unix_socket_directories": ".", "port": "5432"} | dict(options or {})
        self._data_lock: int | None = None
        """A descriptor of the data folder. It is locked as long as this process uses the server."""

    def start(self) -> None:
        """Start the server, or use the one that another process has started.

        Raises:
            StartupError: It does not start, or its data belongs to another version or user.
        """
        self._make_folder()
        with self._exclusive():
            self._binaries = self._find_binaries()
            if not self.data.exists():
                self._initialize()
            lock = os.open(self.data, os.O_RDONLY)
            try:
                # A server that no process uses was left running by a killed process, and may be in any state.
                if _try_lock(lock, fcntl.LOCK_EX) and self.is_running():
                    self._control("stop", "--mode=fast")
                if not self.is_running():
                    self._start_server()
                _try_lock(lock, fcntl.LOCK_SH)
            except BaseException:
                os.close(lock)
                raise
            self._data_lock = lock

    def stop(self, mode: str = "fast") -> None:
        """Stop the server, unless another process still uses it."""
        if self._data_lock is None or not self.folder.exists():
            return
        with self._exclusive():
            if _try_lock(self._data_lock, fcntl.LOCK_EX) and self.is_running():
                self._control("stop", f"--mode={mode}")
            os.close(self._data_lock)
            self._data_lock = None

    def _make_folder(self) -> None:
        """Create the folder, or check it: PostgreSQL's user must own it, and nobody else may enter it."""
        user = account()
        owner = user.pw_uid if user else os.geteuid()
        try:
            self.folder.mkdir(mode=0o700, exist_ok=True)
            if user and self.folder.lstat().st_uid == 0:
                os.chown(self.folder, owner, user.pw_gid, follow_symlinks=False)
            private = self.folder.lstat().st_uid == owner and not self.folder.lstat().st_mode & 0o077
        except OSError as error:
            raise StartupError(f"The folder for PostgreSQL cannot be created: {error}. Create it, {SET_URL}.") from None
        if not private:
            raise StartupError(
                f"{self.folder} is not a private folder of PostgreSQL's user (id {owner}): "
                f"delete it, start as the user it belongs to, {SET_URL}."
            )

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        """Make other processes wait while this one starts or stops the server."""
        handle = os.open(self.folder, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)

    def _find_binaries(self) -> Path:
        """The folder of the programs, of the version that created the data."""
        if not self.data.exists():
            return find_binaries()
        major = (self.data / "PG_VERSION").read_text().strip()
        try:
            return find_binaries(major)
        except StartupError:
            raise StartupError(
                f"The data in {self.folder} was created by PostgreSQL {major}, which was not found: "
                f"install that version, or delete the folder to start with empty data, {SET_URL}."
            ) from None

    def _initialize(self) -> None:
        """Create an empty cluster: UTF-8, sorted by code points, with upper and lower case for all letters."""
        unfinished = self.folder / "unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        if int(major_version(self._binaries)) >= _BUILTIN_LOCALES_SINCE:
            locale = ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        else:
            locale = ["--lc-collate=C", "--lc-ctype=UTF-8" if sys.platform == "darwin" else "--lc-ctype=C.UTF-8"]
        self._call(
            "initdb", "--auth=trust", "--username=postgres", "--encoding=UTF8", *locale, f"--pgdata={unfinished}"
        )
        unfinished.rename(self.data)

    def _start_server(self) -> None:
        # After a crash another program may have the process id in these files, and PostgreSQL would not start.
        for name in ("postmaster.pid", ".s.PGSQL.5432.lock"):
            (self.data / name).unlink(missing_ok=True)
        log = self.folder / "log"
        log.unlink(missing_ok=True)
        options = shlex.join(part for name, value in self._options.items() for part in ("-c", f"{name}={value}"))
        try:
            self._control("start", f"--log={log}", f"--options={options}")
        except StartupError as error:
            last_lines = log.read_text(errors="replace").splitlines()[-5:] if log.exists() else []
            raise StartupError(" ".join([str(error), *last_lines])) from None

    def is_running(self) -> bool:
        """Whether the process that postmaster.pid names is the server of this data."""
        try:
            pid = int((self.data / "postmaster.pid").read_text().split()[0])
        except (FileNotFoundError, PermissionError, ValueError, IndexError):
            return False
        return str(self.data) in _command_line(pid)

    def _control(self, action: str, *arguments: str) -> None:
        self._call("pg_ctl", action, "--wait", "--timeout=60", f"--pgdata={self.data}", *arguments)

    def _call(self, program: str, *arguments: str) -> None:
        done = run([str(self._binaries / program), *arguments])
        if done.returncode != 0:
            raise StartupError(f"PostgreSQL's {program} failed in {self.folder}: {done.stderr.strip()}")


def _try_lock(descriptor: int, kind: int) -> bool:
    """Lock the data, shared or exclusive, if no other process prevents it. The lock ends with its process."""
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _command_line(pid: int) -> str:
    """The command line of the process, empty if there is no such process."""
    if sys.platform != "linux":
        return run(["ps", "-ww", "-o", "args=", "-p", str(pid)]).stdout
    with suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/cmdline").read_text()
    return ""
