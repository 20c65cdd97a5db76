"""Adds a resource to this service, beside those that it has: `python scripts/new_resource.py order`.

It writes the model of the table, the migration, the dataclass, the bodies, the statements, the routes and the tests,
and registers them. The resource has the fields, the search and the routes of the first one: change them afterwards.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from scripts import migration, project, registers, templates
from scripts.names import Name, UnusableNameError
from scripts.rendering import identifiers, render, taken_names

_OTHER_PATHS = frozenset({"docs", "health", "metrics", "samples"})
"""Paths that the service has already. The samples are the tests' own resource."""

_MEMBERS_OF_A_LIST = frozenset({"page", "per_page", "total", "total_is_exact", "has_more", "pages", "next_cursor"})


def main() -> None:
    """Add the resource that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("singular", help="the name of one, such as order or purchase_order")
    parser.add_argument("plural", nargs="?", help="the name of many, if it is not the regular plural, such as people")
    parser.add_argument("--dry-run", action="store_true", help="print what would be written, and write nothing")
    arguments = parser.parse_args()
    try:
        add(project.ROOT, arguments.singular, arguments.plural, dry_run=arguments.dry_run)
    except (project.RefusedError, UnusableNameError) as error:
        sys.exit(f"Error: {error}")


def add(root: Path, singular: str, plural: str | None, *, dry_run: bool = False) -> None:
    """Add a resource to the project in this folder.

    Raises:
        UnusableNameError, RefusedError: The name or the state of the project does not allow it. Nothing is written.
    """
    sources = templates.files()
    name = _name(root, sources, singular, plural)
    new = {root / render(path, name): render(source, name) for path, source in sources.items()}
    project.require_clean(root)
    for path in new:
        if path.exists():
            raise project.RefusedError(f"{path.relative_to(root)} exists already: give the resource another name.")
    changed = registers.changed(root, name, new)
    revision = migration.next_revision(root)
    if dry_run:
        migration_path = migration.path(root, revision, name)
        _print_plan(root, new=[*new, migration_path], changed=list(changed))
        return
    project.install(root)
    with project.restored_after_failure([*new, migration.path(root, revision, name)], list(changed)):
        project.write(new | changed)
        written = migration.write(root, revision, name)
        project.format_files(root, [*new, *changed, written])
    _print_plan(root, new=[*new, written], changed=list(changed))
    sys.stdout.write("Next: make check and make test, then change the fields to your own, then commit.\n")


def _name(root: Path, sources: dict[str, str], singular: str, plural: str | None) -> Name:
    """The resource's name, with the forms that no other name of the code has.

    Raises:
        UnusableNameError: The service cannot have a resource of this name.
    """
    parsed = Name.parse(singular, plural)
    modules = [source for path, source in sources.items() if path.endswith(".py")]
    taken = taken_names(modules) | identifiers((root / "app" / "main.py").read_text("utf-8"))
    existing = {path.stem for path in root.glob("app/*/*.py")} - {"__init__"}
    name = Name(parsed.singular, parsed.plural, frozenset(taken | existing))
    path = name.forms()["path"]
    if any(f'prefix="/{path}"' in router.read_text("utf-8") for router in root.glob("app/routers/*.py")):
        raise UnusableNameError(f"The path /{path} exists already: give the resource another name.")
    if path in _OTHER_PATHS:
        raise UnusableNameError(f"The path /{path} has another use: give the resource another name.")
    if name.plural in _MEMBERS_OF_A_LIST:
        raise UnusableNameError(f"Lists have a member {name.plural} already: give the resource another name.")
    return name


def _print_plan(root: Path, *, new: list[Path], changed: list[Path]) -> None:
    for title, paths in {"new": new, "changed": changed}.items():
        for path in sorted(paths):
            sys.stdout.write(f"{title:8} {path.relative_to(root)}\n")


if __name__ == "__main__":
    main()
