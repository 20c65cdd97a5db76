"""Writes one table of all claims, from the last results of all benchmarks."""

import json
from collections.abc import Sequence
from pathlib import Path

_HEAD = """# Claims, measured

Common claims about these patterns, what was measured with today's releases, and what this service does.
Each row comes from the last result of the benchmark in its last column.

| claim | measured here | reason, and what this service does | benchmark |
| --- | --- | --- | --- |
"""


def write_claims(folder: Path, questions: Sequence[str]) -> None:
    """Write `claims.md`."""
    lines = []
    for question in questions:
        result = folder / question / "result.json"
        if result.exists():
            for claim in json.loads(result.read_text())["claims"]:
                cells = [*claim.values(), f"[{question}]({question}/result.md)"]
                lines.append("| " + " | ".join(cells) + " |\n")
    (folder / "claims.md").write_text(_HEAD + "".join(lines))
