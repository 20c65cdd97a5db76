"""Copies this project to a new service with another name and another first resource.

    python scripts/new_service.py orders-api --resource order ../orders-api

The copy is a git repository with one commit. Roles, revisions, metrics, alerts, manifests and documents have its name.
In place of the items it has the new resource, with the same fields.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from scripts import marking, project
from scripts.names import Name, UnusableNameError
from scripts.rendering import render, usable_name
from scripts.service_names import ServiceName, replace_by_placeholders, replace_placeholders

_OF_THIS_PROJECT_ONLY = {
    "CHANGELOG.md",
    "docs/images/docs-dark.png",
    "docs/images/docs-light.png",
    "scripts/marking.py",
    "scripts/new_service.py",
    "scripts/service_names.py",
    "scripts/templates.py",
    "tests/scripts/test_marking.py",
    "tests/scripts/test_new_service.py",
}
"""Files that the copy does not have, or has with other contents."""

_GUIDES = ("docs/guides/", "tests/docs/test_guides.py")
"""The guides change the files of this project, and not those of the copy."""

_CHANGELOG = """# Changelog

The format is [Keep a Changelog](https://keepachangelog.com/en/1.1.0/), and versions follow
[Semantic Versioning](https://semver.org/spec/v2.0.0.html).

## [Unreleased]
"""

_STORED = "scripts/resource"

_TEMPLATES = f'''"""The templates of a resource, in {_STORED}."""

from pathlib import Path

_FOLDER = Path(__file__).resolve().parent / "resource"


def files() -> dict[str, str]:
    """The templates of the files, by their paths, which are templates too."""
    return _read("files")


def functions() -> dict[str, str]:
    """The templates of the functions in PostgreSQL that statements on the table call, by their names."""
    return _read("functions")


def _read(kind: str) -> dict[str, str]:
    folder = _FOLDER / kind
    found = sorted(folder.rglob("*.txt"))
    return {{str(path.relative_to(folder)).removesuffix(".txt"): path.read_text("utf-8") for path in found}}
'''


def main() -> None:
    """Make the service that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="the name of the service, such as orders-api")
    parser.add_argument("destination", type=Path, help="the folder to make")
    parser.add_argument("--resource", required=True, metavar="SINGULAR", help="the first resource, such as order")
    parser.add_argument("--plural", help="the name of many, if it is not the regular plural, such as people")
    parser.add_argument("--dry-run", action="store_true", help="print what would be written, and write nothing")
    arguments = parser.parse_args()
    try:
        resource = usable_name(project.ROOT, marking.mark_files(project.ROOT), arguments.resource, arguments.plural)
        service = ServiceName(arguments.name, resource)
        destination = arguments.destination.resolve()
        files = copied_files(project.ROOT, destination, service, resource)
        if arguments.dry_run:
            sys.stdout.writelines(f"{path}\n" for path in sorted(files))
            return
        _make(destination, files, service)
    except (project.RefusedError, UnusableNameError) as error:
        sys.exit(f"Error: {error}")
    except OSError as error:
        sys.exit(f"Error: {error.filename} cannot be read or written: {error.strerror}. Name another folder.")
    sys.stdout.write(f"{destination} is a git repository with one commit. Next, in it: make check and make test.\n")


def copied_files(root: Path, destination: Path, service: ServiceName, resource: Name) -> dict[str, bytes]:
    """The files of the new service, by their paths.

    Raises:
        RefusedError: This project or the destination does not allow the copy.
    """
    project.require_clean(root)
    if destination.is_relative_to(root):
        raise project.RefusedError(f"{destination} is in this project: name a folder outside of it.")
    if destination.exists() and (not destination.is_dir() or any(destination.iterdir())):
        raise project.RefusedError(f"{destination} exists already: name a folder that does not exist.")
    files: dict[str, bytes] = {}
    for path in project.run(root, "git", "ls-files", "-z").split("\0"):
        is_own = path in _OF_THIS_PROJECT_ONLY or path.startswith(_GUIDES)
        if path and not is_own and (root / path).is_file():
            files[_renamed(path, "path", service, resource)] = _copied(root / path, path, service, resource)
    files |= {path: text.encode() for path, text in _new_files(root)}
    return files


def _copied(file: Path, path: str, service: ServiceName, resource: Name) -> bytes:
    content = file.read_bytes()
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        return content
    return _renamed(_without_own_parts(path, text), path, service, resource).encode()


def _renamed(text: str, path: str, service: ServiceName, resource: Name) -> str:
    if path.startswith("scripts/"):
        return text  # has marks of its own, and does not name the resource
    text = replace_by_placeholders(text, path)
    if path == "path":
        marked = marking.mark_path(text)
    else:
        marked = marking.mark_python(text) if path.endswith(".py") else marking.mark_text(text)
    return replace_placeholders(render(marked, resource), service)


def _without_own_parts(path: str, text: str) -> str:
    """The text without what is about this project alone.

    Raises:
        RefusedError: Such a part is not where it is expected.
    """
    for place, begin, end in [
        ("README.md", "## Start your own service\n", "## Where to go next\n"),
        ("README.md", "<picture>\n", "## Endpoints\n"),
        ("README.md", "- [`docs/guides/`]", "- [`docs/operations/`]"),
        ("docs/index.md", ":::{toctree}\n:caption: Building", ":::{toctree}\n:caption: Decisions\n"),
        ("tests/test_product_name.py", '    "CHANGELOG.md",\n', '    "Dockerfile",\n'),
        ("tests/test_product_name.py", '    "scripts/service_names.py",\n', "}\n"),
    ]:
        if place == path:
            before, found, rest = text.partition(begin)
            if not found or end not in rest:
                raise project.RefusedError(f"{path} has no part from {begin.strip()} to {end.strip()}.")
            text = before + end + rest.partition(end)[2]
    return text


def _new_files(root: Path) -> Iterator[tuple[str, str]]:
    yield "CHANGELOG.md", _CHANGELOG
    yield "docs/images/.gitkeep", ""  # the pictures of the service can be written to it
    yield "scripts/templates.py", _TEMPLATES
    for path, template in marking.mark_files(root).items():
        yield f"{_STORED}/files/{path}.txt", template
    for name, template in marking.mark_functions(root).items():
        yield f"{_STORED}/functions/{name}.txt", template


def _make(destination: Path, files: dict[str, bytes], service: ServiceName) -> None:
    project.install(project.ROOT)
    for path, content in files.items():
        file = destination / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        source = project.ROOT / path
        file.chmod(source.stat().st_mode if source.exists() else 0o644)
    project.format_files(destination, [destination], ruff=project.ROOT / ".venv" / "bin" / "ruff")
    project.run(destination, "git", "init", "--quiet", "--initial-branch=main")
    project.run(destination, "git", "add", "--all")
    identity = ("-c", f"user.name={service.name}", "-c", f"user.email={service.name}@localhost")
    has_identity = project.succeeds(destination, "git", "config", "user.email")
    project.run(
        destination, "git", *(() if has_identity else identity), "commit", "--quiet", "--no-verify",
        f"--message=Start the {service.name}",
    )  # fmt: skip


if __name__ == "__main__":
    main()
