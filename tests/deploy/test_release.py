"""A release on Kubernetes: its two steps, and the job that migrates."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from app import NAME
from tests.cluster import as_role
from tests.deploy.manifests import FOLDER, OVERLAYS, STEPS, identity, manifest, manifests, migration, pods
from tests.migrations.alembic import alembic, event_names

OVERLAY = "production"

WAVE = "argocd.argoproj.io/sync-wave"


def release(folder: Path, *, setting: str = "", **image: str) -> Path:
    """A copy of the manifests, with another image of the service and one more setting."""
    shutil.copytree(FOLDER, folder)
    overlay = folder / "overlays" / OVERLAY
    file = overlay / "kustomization.yaml"
    kustomization = yaml.safe_load(file.read_text())
    (entry,) = (entry for entry in kustomization["images"] if entry["name"] == NAME)
    entry.update(image)
    file.write_text(yaml.safe_dump(kustomization))
    with (overlay / "settings.env").open("a") as settings:
        settings.write(f"{setting}\n")
    return folder


@pytest.mark.parametrize(
    ("image", "ending"),
    [
        ({"newTag": "1.1.0"}, "1.1.0"),
        ({"newTag": "1.10"}, "1.10"),
        ({"newTag": "20261126"}, "20261126"),
        ({"newTag": "0123456789abcdef0123456789abcdef01234567"}, "0123456789abcdef0123456789abcdef01234567"),
        ({"newTag": "1.1.0", "newName": f"registry.example.com/team/{NAME}"}, "1.1.0"),
        ({"newTag": "1.1.0", "digest": f"sha256:{'a' * 64}"}, "1.1.0"),
    ],
    ids=lambda value: None if isinstance(value, str) else "+".join(value),
)
def test_each_release_has_a_job_of_its_own(tmp_path, image, ending):
    """The job is named after the tag of its image. It differs from the job of another release in its image only."""
    now, other = migration(OVERLAY), migration(OVERLAY, release(tmp_path / "copy", **image))

    assert f"{NAME}-migration-{ending}" == other["metadata"].pop("name")
    assert now["metadata"].pop("name") != f"{NAME}-migration-{ending}"
    (container,), (other_container,) = (job["spec"]["template"]["spec"]["containers"] for job in (now, other))
    assert container.pop("image") != other_container.pop("image")
    assert now == other


def test_the_name_of_the_service_may_have_any_number_of_words(tmp_path):
    """The tag is appended to the name of the job. It replaces no part of it."""
    name = f"another-{NAME}"
    folder = release(tmp_path / "copy", newTag="1.1.0")
    for file in filter(Path.is_file, folder.rglob("*")):
        file.write_text(file.read_text().replace(NAME, name))

    assert f"{name}-migration-1.1.0" == migration(OVERLAY, folder)["metadata"]["name"]


def test_two_releases_have_the_same_settings(tmp_path):
    """The job of the next release reads the same settings."""
    now, other = manifests(STEPS[0]), manifests(STEPS[0], release(tmp_path / "copy", newTag="1.1.0"))

    assert [one for one in now if one["kind"] != "Job"] == [one for one in other if one["kind"] != "Job"]


def test_a_changed_setting_does_not_change_the_job(tmp_path):
    """The template of a job cannot be changed: another setting changes a ConfigMap, and starts a rollout only."""
    changed = release(tmp_path / "copy", setting="MIGRATION_WAIT_SECONDS=90")

    assert migration(OVERLAY) == migration(OVERLAY, changed)
    (settings,) = (one for one in manifests(STEPS[0], changed) if one["kind"] == "ConfigMap")
    assert "90" == settings["data"]["MIGRATION_WAIT_SECONDS"]
    before, after = (
        next(one for one in manifests(OVERLAY, folder) if identity(one) == ("Deployment", NAME))
        for folder in (FOLDER, changed)
    )
    assert before != after


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_migration_has_the_settings_of_the_service(overlay):
    """The job reads a ConfigMap with the data of the service's own."""
    (job,) = migration(overlay)["spec"]["template"]["spec"]["containers"]
    (service,) = pods(overlay)[f"Deployment {NAME}"]["containers"]
    names = [container["envFrom"][0]["configMapRef"]["name"] for container in (job, service)]

    first, second = (manifest(overlay, "ConfigMap", name)["data"] for name in names)
    assert first == second
    assert names[0] != names[1]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_command_of_the_job_runs_with_its_settings(overlay, database_url, tmp_path):
    """`alembic` accepts the environment of the job, and connects with the URL in the file."""
    (container,) = migration(overlay)["spec"]["template"]["spec"]["containers"]
    (variable,) = container["env"]
    (settings,) = (one["data"] for one in manifests(overlay) if identity(one) == ("ConfigMap", f"{NAME}-migration"))
    url = tmp_path / "database-url"
    url.write_text(as_role(database_url, "items_owner"))
    program, *arguments = container["command"]

    environment: dict[str, Any] = settings | {variable["name"]: str(url)}
    done = alembic("postgresql://nobody@127.0.0.1:1/unused", *arguments, **environment)

    assert "alembic" == program
    assert 0 == done.returncode, done.stderr
    assert "database_current" == event_names(done.stderr)[-1]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_no_deadline_ends_a_migration(overlay):
    """Building an index can take hours: neither the job nor its pod has a deadline."""
    job = migration(overlay)["spec"]

    assert "activeDeadlineSeconds" not in job
    assert "activeDeadlineSeconds" not in job["template"]["spec"]
    assert {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]} in job[
        "podFailurePolicy"
    ]["rules"]


def test_the_two_steps_are_the_whole_overlay():
    """Each object of the overlay is in one of the steps. The first step has the job and what it needs."""
    first, second = (manifests(step) for step in STEPS)

    assert {"Job", "ConfigMap", "NetworkPolicy"} == {one["kind"] for one in first}
    assert sorted(map(identity, manifests(OVERLAY))) == sorted(map(identity, [*first, *second]))
    assert all(one in manifests(OVERLAY) for one in [*first, *second])


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_argo_cd_migrates_between_the_settings_and_the_rollout(overlay):
    """The waves are: the namespace, what the job needs, the job, and everything else."""
    waves: dict[int, set[str]] = {}
    for one in manifests(overlay):
        wave = int(one["metadata"].get("annotations", {}).get(WAVE, "0"))
        waves.setdefault(wave, set()).add(one["kind"])

    assert [{"Namespace"}, {"ConfigMap", "NetworkPolicy"}, {"Job"}] == [waves[wave] for wave in sorted(waves)[:3]]
    assert sorted(waves)[3:] == [0]
    annotations = migration(overlay)["metadata"]["annotations"]
    assert "Sync" == annotations["argocd.argoproj.io/hook"]
    if overlay == OVERLAY:
        assert {identity(one) for one in manifests(STEPS[0])} == {
            identity(one) for one in manifests(overlay) if WAVE in one["metadata"].get("annotations", {})
        } - {("Namespace", "items-production")}
