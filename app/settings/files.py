"""What is at a path that an operator has written."""

from pathlib import Path


def mode_of(path: Path) -> int:
    """The mode of the file at the path, for the functions of `stat`; 0 if there is none that this process can see.

    `Path.exists` and its like raise an error for a name that is too long and for a path below a closed folder.
    """
    try:
        return path.stat().st_mode
    except (OSError, ValueError):
        return 0
