"""Runs in the image and prints its contents as far as the tests check them."""

import importlib.util
import json
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

APP = Path("/app")


def existing(names: Iterable[str], find: Callable[[str], object]) -> list[str]:
    """The names that `find` finds."""
    return [name for name in names if find(name)]


def _has_contents(folder: str) -> bool:
    return any(path.is_file() and path.stat().st_size for path in Path(folder).rglob("*"))


print(  # noqa: T201
    json.dumps(
        {
            "tools": existing(("pip", "pip3", "uv", "gcc", "cc", "make", "git", "curl", "wget"), shutil.which),
            "modules": existing(("pip", "pytest", "ruff", "mypy", "app.embedded_postgres"), importlib.util.find_spec),
            "entries": sorted(path.name for path in APP.iterdir()),
            "caches": existing(("/root/.cache", "/var/lib/apt/lists"), _has_contents),
            "uncompiled": [
                str(path)
                for path in APP.rglob("*.py")
                if not list(path.parent.glob(f"__pycache__/{path.stem}.cpython-*.pyc"))
            ],
            "writable": [
                str(path)
                for path in (APP, *APP.rglob("*"))
                if not path.is_symlink() and (path.stat().st_uid or path.stat().st_mode & 0o022)
            ],
        }
    )
)
