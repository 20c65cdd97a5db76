import ast
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

import app
from tests.paths import ROOT

PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
RUNTIME = PYPROJECT["project"]["dependencies"]
TRACING = RUNTIME + PYPROJECT["dependency-groups"]["tracing"]
DEVELOPMENT = TRACING + [line for line in PYPROJECT["dependency-groups"]["dev"] if isinstance(line, str)]
PATRONI = PYPROJECT["dependency-groups"]["patroni"]
LOCKS = {"runtime.txt": RUNTIME, "tracing.txt": TRACING, "development.txt": DEVELOPMENT, "patroni.txt": PATRONI}
CI = (ROOT / ".ci" / "run").read_text(encoding="utf-8")

SEAMS = (ROOT / "tests" / "seams.txt").read_text(encoding="utf-8").splitlines()

PIN = re.compile(r"[a-z0-9-]+==[0-9][^\s/]*( (;|and|or) [a-z_]+ \S+ '[^'/]+')*")
HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}")


def imported() -> set[str]:
    """The packages that app/, migrations/ and gunicorn.conf.py import, by their names in the index."""
    names = set()
    for file in (*ROOT.glob("app/**/*.py"), *ROOT.glob("migrations/**/*.py"), ROOT / "gunicorn.conf.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                names.add(node.module.partition(".")[0])
    return {distribution(name) for name in names - sys.stdlib_module_names if not (ROOT / name).exists()}


@cache
def distributions() -> Mapping[str, list[str]]:
    """The installed packages by the modules that they bring."""
    return packages_distributions()


def distribution(module: str) -> str:
    """The package that brings a module, by its name in the index. Of several a declared one."""
    names = sorted(map(canonicalize_name, distributions()[module]))
    declared = [canonicalize_name(Requirement(line).name) for line in TRACING]
    return next((name for name in names if name in declared), names[0])


def test_what_the_service_imports_is_declared():
    """Every imported package is a declared dependency, not only a dependency of another one."""
    declared = {canonicalize_name(Requirement(line).name) for line in TRACING}

    assert imported() <= declared


def test_what_the_service_overrides_has_an_upper_bound():
    """Every package with overridden members has an upper bound."""
    foreign = {distribution(line.partition(".")[0]) for line in SEAMS}

    bounded = {
        canonicalize_name(requirement.name)
        for requirement in map(Requirement, TRACING)
        if any(specifier.operator == "<" for specifier in requirement.specifier)
    }
    assert foreign <= bounded


def test_the_version_is_the_same_everywhere():
    """The version of the application is that of the project, and of the image that the README builds."""
    assert PYPROJECT["project"]["version"] == app.__version__
    assert f"--tag {app.NAME}:{app.__version__} " in (ROOT / "README.md").read_text("utf-8")


def locked(name: str) -> list[list[str]]:
    """The requirements of a lock file: the pin of each, and its hashes."""
    lines = (ROOT / "requirements" / name).read_text().replace(" \\\n", "\n").splitlines()
    requirements: list[list[str]] = []
    for line in lines:
        if line.startswith(" ") and not line.lstrip().startswith("#"):
            requirements[-1].append(line.strip())
        elif not line.lstrip().startswith("#"):
            requirements.append([line])
    return requirements


def pins(name: str) -> dict[str, Requirement]:
    """The pins of a lock file by the name of the package."""
    return {pin.name: pin for pin in (Requirement(first) for first, *_ in locked(name))}


@pytest.mark.parametrize(("name", "declared"), LOCKS.items())
def test_the_lock_satisfies_what_is_declared(name, declared):
    """Every declared dependency is pinned, without a condition, to a release within its bounds."""
    found = pins(name)

    for requirement in map(Requirement, declared):
        pin = found[requirement.name.lower()]
        (specifier,) = pin.specifier
        assert pin.marker is None, requirement
        assert requirement.specifier.contains(specifier.version), requirement


def test_development_has_the_releases_of_production():
    """Each package of the locks for production is in the development lock, at the same release."""
    assert pins("runtime.txt").items() <= pins("tracing.txt").items() <= pins("development.txt").items()


@pytest.mark.parametrize("name", LOCKS)
def test_every_requirement_has_a_hash_and_no_address(name):
    """Every requirement is a release with its hashes; none is an address or a path."""
    requirements = locked(name)

    assert requirements
    for pin, *hashes in requirements:
        assert PIN.fullmatch(pin), pin
        assert hashes, pin
        assert all(map(HASH.fullmatch, hashes)), pin


@pytest.mark.parametrize("name", LOCKS)
def test_the_comments_of_the_lock_have_no_address_or_path(name):
    """They do not name a package index, nor the folder in which the lock was made."""
    text = (ROOT / "requirements" / name).read_text()

    assert re.findall(r"\S*://\S*|(?<!\S)[/~]\S*|--\S*(?:index|find-links)\S*", text) == []


@pytest.mark.parametrize("line", ["run", "test", "test-long", "test-faults", "check", "docs", "bench", "lock"])
def test_every_target_installs_first(line):
    """Each target of the Makefile works by itself on a fresh clone."""
    done = subprocess.run(
        ["make", "--dry-run", "--always-make", line, "UV="], cwd=ROOT, capture_output=True, text=True, check=True
    )

    first, *_ = (command for command in done.stdout.splitlines() if command.startswith(".venv/bin/"))
    assert "pip install" in first
    assert first.endswith("-r requirements/development.txt --require-hashes")


def test_every_python_that_is_declared_is_tested():
    """Continuous integration runs the tests on each release of Python that pyproject.toml names, and on no other."""
    project = PYPROJECT["project"]
    tested = ["3.11", *re.findall(r"3\.\d+", re.findall(r"^pythons=\((.*)\)", CI, re.MULTILINE)[0])]

    declared = [line.rpartition(" ")[2] for line in project["classifiers"] if "Python :: 3." in line]
    assert tested == declared
    allowed = SpecifierSet(project["requires-python"])
    assert tested == [f"3.{minor}" for minor in range(30) if f"3.{minor}" in allowed]


@pytest.mark.parametrize("minor", [10, 14])
def test_a_python_that_is_not_declared_is_refused_in_one_sentence(tmp_path, minor):
    """`make install` names the releases that it takes and how to choose another interpreter."""
    other = tmp_path / f"python3.{minor}"
    other.write_text(f'#!/bin/sh\nexec "{sys.executable}" -c "import sys; sys.version_info = (3, {minor}, 0); $2"\n')
    other.chmod(0o755)

    done = subprocess.run(
        ["make", "--always-make", "install", f"PYTHON={other}"], cwd=ROOT, capture_output=True, text=True, check=False
    )

    assert done.returncode != 0
    assert "Python 3.11 to 3.13 is needed" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_virtual_environment_behind_a_link_is_not_cleared(tmp_path):
    """It belongs to another checkout."""
    for name in ("requirements/development.txt", "app/settings/gunicorn_environment.py"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
    other = tmp_path / "other"
    other.mkdir()
    (tmp_path / ".venv").symlink_to(other)

    done = subprocess.run(
        ["make", "--file", ROOT / "Makefile", "install"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode != 0
    assert "remove the link" in done.stderr
    assert [] == list(other.iterdir())


@pytest.fixture
def copy(tmp_path):
    """A copy of the application, for imports that break the contract."""
    shutil.copytree(ROOT / "app", tmp_path / "app", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    """Check the import contract of the project in this folder."""
    command = Path(sys.executable).parent / "lint-imports"
    return subprocess.run([command, "--no-cache", "--no-logo"], cwd=folder, capture_output=True, text=True, check=False)


def test_the_application_keeps_the_import_contract(copy):
    """lint-imports finds no violation."""
    done = lint_imports(copy)

    assert done.returncode == 0, done.stdout


def test_a_module_without_a_layer_is_refused(copy):
    """The contract names every module, so a new one must be added to a layer."""
    (copy / "app" / "stray.py").touch()

    done = lint_imports(copy)

    assert done.returncode == 1
    assert "stray" in done.stdout


@pytest.mark.parametrize(
    ("module", "imported"),
    [
        ("app/crud/__init__.py", "app.schemas"),
        ("app/crud/__init__.py", "pydantic"),
        ("app/errors.py", "app.settings"),
        ("app/routers/system.py", "sqlalchemy"),
        ("app/worker/__init__.py", "app.crud"),
        ("app/main.py", "app.worker"),
    ],
)
def test_an_import_against_the_contract_is_refused(copy, module, imported):
    """Pydantic stays in the schemas and routers, SQL out of them, and the worker imports no other layer."""
    with (copy / module).open("a") as source:
        source.write(f"\nimport {imported}\n")

    done = lint_imports(copy)

    assert done.returncode == 1
    assert f"is not allowed to import {imported}" in done.stdout


def test_actions_and_images_are_pinned():
    """Each action of the workflows is pinned by commit, with its tag beside it, and no image is named `latest`."""
    used = [line for file in ROOT.glob(".github/workflows/*.y*ml") for line in file.read_text().splitlines()]
    actions = [line for line in used if re.search(r"\buses:", line)]
    assert actions
    assert not [line for line in actions if not re.search(r"uses: [\w/.-]+@[0-9a-f]{40}  # v[\d.]+$", line)]

    files = [*ROOT.glob("**/Dockerfile"), *ROOT.glob("deploy/compose/*.yaml"), *ROOT.glob(".github/workflows/*.y*ml")]
    texts = [file.read_text() for file in files if ".venv" not in file.parts]
    images = [name for text in texts for name in re.findall(r"(?:^FROM|\bimage:) (\S+)", text, re.MULTILINE)]
    assert len(images) > 7
    assert not [name for name in images if ":" not in name or name.endswith(":latest")]
