"""The commands and objects with which the guide deploys on Kubernetes, with Argo CD and with Flux."""

import json
import os
import subprocess
from base64 import b64decode
from pathlib import Path
from typing import Any

import pytest
import yaml

from app import NAME
from app.database_url import DatabaseUrl
from tests.deploy.manifests import FOLDER, KUBECTL, OVERLAYS, STEPS, manifest, manifests, migration, pods
from tests.docs.documents import blocks, documents
from tests.paths import ROOT

OVERLAY = "production"

GUIDE = ROOT / "docs" / "operations"

DEPLOY = GUIDE / "deploy.md"


def commands() -> list[str]:
    """The commands of the page that need a cluster or a container engine."""
    return [
        line.strip().removeprefix("$ ")
        for block in blocks(DEPLOY)
        if block.kind == "console"
        for line in block.text.splitlines()
        if line.strip().startswith("$ ")
    ]


def secrets_of_manifests() -> dict[str, set[str]]:
    """The keys that the pods of both overlays read from each secret."""
    found: dict[str, set[str]] = {}
    for overlay in OVERLAYS:
        for pod in pods(overlay).values():
            for volume in pod["volumes"]:
                if "secret" in volume:
                    keys = {file["key"] for file in volume["secret"]["items"]}
                    found.setdefault(volume["secret"]["secretName"], set()).update(keys)
    return found


@pytest.fixture
def secrets(tmp_path: Path) -> dict[str, dict[str, str]]:
    """What the commands of the guide put into each secret, by the secret's namespace and name."""
    environment = {
        "PATH": f"{Path(KUBECTL).parent}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "SECRETS": str(tmp_path / "secrets"),
    }

    def bash(script: str) -> str:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{script}\n{done.stderr}"
        return done.stdout

    for block in blocks(DEPLOY):
        if block.kind == "sh" and "$SECRETS" in block.text and "psql" not in block.text:
            bash(block.text)
    found: dict[str, dict[str, str]] = {}
    for command in commands():
        if "create secret" in command:
            made = json.loads(bash(f"{command} --dry-run=client --output=json"))
            found[f"{made['metadata']['namespace']}/{made['metadata']['name']}"] = made["data"]
    return found


@pytest.mark.needs("bash")
def test_the_guide_creates_every_secret(secrets):
    """Its commands create each secret that a pod reads, with the keys that the pod reads, and no other."""
    created = {name.partition("/")[2]: set(data) for name, data in secrets.items()}

    assert secrets_of_manifests() == created
    for overlay in OVERLAYS:
        (namespace,) = (one["metadata"]["name"] for one in manifests(overlay) if one["kind"] == "Namespace")
        needed = {v["secret"]["secretName"] for pod in pods(overlay).values() for v in pod["volumes"] if "secret" in v}
        assert needed == {name.partition("/")[2] for name in secrets if name.startswith(f"{namespace}/")}


@pytest.mark.needs("bash")
def test_the_secrets_of_the_guide_belong_together(secrets):
    """The service connects to the Service of PgBouncer, as the role and with the password that PgBouncer knows."""

    def value(name: str, key: str) -> str:
        return b64decode(secrets[f"items-production/{name}"][key]).decode().strip()

    url = DatabaseUrl.parse(value(f"{NAME}-database", "url"))
    migrating = DatabaseUrl.parse(value(f"{NAME}-migration", "url"))
    port = manifest(OVERLAY, "Service", "pgbouncer")["spec"]["ports"][0]["port"]

    assert ("items_app", "items_owner") == (url.user, migrating.user)
    assert f"pgbouncer:{port}" in value(f"{NAME}-database", "url")
    assert f'"{url.user}" "{url.password}"' == value("items-pgbouncer", "userlist.txt")
    assert len(str(url.password)) == 32
    file = (ROOT / "deploy" / "pgbouncer" / "databases.ini").read_text().strip()
    assert file == value("items-pgbouncer", "databases.ini").replace("postgres.example.com", "postgres")


def set_passwords(folder: Path, *, files: set[str]) -> tuple[int, str | None]:
    """Run the block that gives the roles their passwords: its exit code, and what it sends to `psql`, if it calls that.

    Args:
        folder: An empty one.
        files: The roles whose passwords exist. They are in the folder `SECRETS`, a variable that is not exported.
    """
    (script,) = (block.text for block in blocks(DEPLOY) if "ALTER ROLE items_owner PASSWORD" in block.text)
    for role in files:
        (folder / role).write_text(f"of-{role}\n")
    psql, sent = folder / "psql", folder / "sent"
    psql.write_text("#!/bin/sh\ncat > sent\n")
    psql.chmod(0o755)
    done = subprocess.run(
        ["bash", "-c", f"SECRETS=. ADMIN_DATABASE_URL=postgresql:\n{script}"],
        cwd=folder, env={"PATH": f"{folder}:{os.environ['PATH']}"}, capture_output=True, check=False,
    )  # fmt: skip
    return done.returncode, sent.read_text() if sent.exists() else None


@pytest.mark.needs("bash")
def test_the_roles_get_their_passwords(tmp_path):
    """The statements have the passwords of the files, also if the reader has not exported SECRETS."""
    wanted = "ALTER ROLE items_owner PASSWORD 'of-items_owner';\nALTER ROLE items_app PASSWORD 'of-items_app';\n"

    assert (0, wanted) == set_passwords(tmp_path, files={"items_owner", "items_app"})


@pytest.mark.needs("bash")
@pytest.mark.parametrize("only", ["items_owner", "items_app"])
def test_no_role_gets_an_empty_password(tmp_path, only):
    """If the file of a password is missing, no statement is sent."""
    code, sent = set_passwords(tmp_path, files={only})

    assert code != 0
    assert sent is None


def test_the_guide_waits_for_the_job_of_the_overlay():
    """The commands name the job of the tag that the overlay has."""
    name = migration(OVERLAY)["metadata"]["name"]
    named = [command for command in commands() if f"{NAME}-migration-" in command]

    assert named
    assert all(name in command.replace("job/", "").split() for command in named)


def test_the_steps_are_applied_in_order():
    """The guide creates namespaces and secrets, then migrates, waits, and rolls out."""
    found = [command for command in commands() if "items-production" in command or "/production" in command]
    wanted = ["namespace.yaml", "create secret", STEPS[0], "wait", STEPS[1], "rollout status"]
    places = [next(n for n, command in enumerate(found) if word in command) for word in wanted]

    assert sorted(places) == places


def test_only_one_page_deploys_on_kubernetes():
    """Other documents link to the commands instead of repeating them."""
    pages = {
        document.relative_to(ROOT)
        for document in documents()
        if any(block.text.find("kubectl apply") >= 0 for block in blocks(document))
    }

    assert {DEPLOY.relative_to(ROOT)} == pages


def objects(document: Path) -> list[dict[str, Any]]:
    """The objects in the YAML blocks of a document."""
    return [one for block in blocks(document) if block.kind == "yaml" for one in yaml.safe_load_all(block.text)]


def test_the_application_of_argo_cd_is_the_whole_overlay():
    """Its path is the overlay, and its namespace that of the overlay."""
    (application,) = objects(GUIDE / "argocd.md")

    assert FOLDER / "overlays" / OVERLAY == ROOT / application["spec"]["source"]["path"]
    assert {application["spec"]["destination"]["namespace"]} == {
        one["metadata"]["namespace"] for one in manifests(OVERLAY) if one["kind"] != "Namespace"
    }


def test_flux_waits_for_the_migration():
    """Flux applies the two steps of one source, and the second one after the first one is ready."""
    source, first, second = objects(GUIDE / "flux.md")

    assert [FOLDER / "overlays" / step for step in STEPS] == [ROOT / one["spec"]["path"] for one in (first, second)]
    assert [{"name": first["metadata"]["name"]}] == second["spec"]["dependsOn"]
    assert first["spec"]["wait"] is first["spec"]["force"] is True
    for one in (first, second):
        assert {"kind": source["kind"], "name": source["metadata"]["name"]} == one["spec"]["sourceRef"]
