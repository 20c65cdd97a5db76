"""Adds a resource to this service, beside those that it has: `python scripts/new_resource.py order`.

It writes the model of the table, the migration, the dataclass, the bodies, the statements, the routes and the tests,
and registers them. The resource has the fields, the search and the routes of the first one: change them afterwards.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from scripts import migration, project, registers, templates
from scripts.names import UnusableNameError
from scripts.rendering import render, usable_name


def main() -> None:
    """Add the resource that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("singular", help="the name of one, such as order or purchase_order")
    parser.add_argument("--plural", help="the name of many, if it is not the regular plural, such as people")
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
    name = usable_name(root, sources, singular, plural)
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


def _print_plan(root: Path, *, new: list[Path], changed: list[Path]) -> None:
    for title, paths in {"new": new, "changed": changed}.items():
        for path in sorted(paths):
            sys.stdout.write(f"{title:8} {path.relative_to(root)}\n")


if __name__ == "__main__":
    main()
