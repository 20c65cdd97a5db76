"""All claims in one table, from the last results of all questions."""

import json
from collections.abc import Sequence
from pathlib import Path

_HEAD = """# Claims, measured

What is said of these patterns, what is true of it with today's releases, and what this service does.
Each row comes from the last result of the question it names.

| claimed | measured here | why, and what is done | question |
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
