"""Runs all benchmarks, or those that are named: `python -m benchmarks request memory`."""

import sys
from importlib import import_module
from pathlib import Path

from benchmarks.claims import write_claims

QUESTIONS = ("request", "steps", "objects", "json_rendering", "database", "collector", "threads", "memory", "batch")

LONG = ("scale", "export", "searches", "peers", "interpreters", "tracing", "tail")
"""Benchmarks that take longer than a few minutes, or install packages; they run only when they are named."""

_FOLDER = Path(__file__).parent


def main(names: list[str]) -> None:
    """Run the benchmarks one after the other, and write their results."""
    for name in names or QUESTIONS:
        if name not in QUESTIONS + LONG:
            sys.exit(f"There is no benchmark {name}; choose from {', '.join(QUESTIONS + LONG)}.")
    for name in names or QUESTIONS:
        report = import_module(f"benchmarks.{name}").run()
        report.write(_FOLDER / name)
        print("\n".join(table.markdown() for table in report.tables))
    write_claims(_FOLDER, QUESTIONS + LONG)


if __name__ == "__main__":
    main(sys.argv[1:])
