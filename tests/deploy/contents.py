"""Run in the image: prints what is in it that matters."""

import importlib.util
import json
import shutil
from pathlib import Path

APP = Path("/app")


def found(names, look):
    """Those of the names for which there is something."""
    return [name for name in names if look(name)]


def _filled(folder):
    return any(path.is_file() and path.stat().st_size for path in Path(folder).rglob("*"))


print(  # noqa: T201
    json.dumps(
        {
            "tools": found(("pip", "pip3", "uv", "gcc", "cc", "make", "git", "curl", "wget"), shutil.which),
            "modules": found(("pip", "pytest", "ruff", "mypy", "app.embedded_postgres"), importlib.util.find_spec),
            "entries": sorted(path.name for path in APP.iterdir()),
            "caches": found(("/root/.cache", "/var/lib/apt/lists"), _filled),
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
