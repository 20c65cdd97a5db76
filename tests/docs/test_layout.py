"""Decision 7 lists the modules of the application."""

import re

from tests.paths import ROOT

PAGE = ROOT / "docs" / "decisions" / "0007-layout.md"


def listed() -> list[str]:
    """The modules in the page's tree, as paths below the project's folder."""
    tree = re.findall(r"^```\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)[0]
    parents: list[str] = []
    found = []
    for line in tree.splitlines():
        indentation, name, description = re.findall(r"^( *)(\S+) *(.*)$", line)[0]
        del parents[len(indentation) // 2 :]
        path = "".join(parents) + name
        if name.endswith("/"):
            parents.append(name)
            path += "__init__.py"
        assert description or not indentation, f"{line}: no description"
        found.append(path)
    return found


def test_the_page_lists_every_module_and_no_other():
    """Each module of the application has one line with a description, and each line is a module."""
    modules = {str(path.relative_to(ROOT)) for path in ROOT.glob("app/**/*.py")}

    assert len(listed()) == len(set(listed()))
    assert modules == set(listed())
