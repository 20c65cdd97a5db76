"""Which servers the pods of the production overlay may connect to."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import yaml

from app import NAME
from app.settings import Settings
from tests.deploy.manifests import FOLDER, KUBECTL, manifest, manifests, with_component
from tests.paths import ROOT

OVERLAY = "production"

GUIDE = ROOT / "docs" / "operations" / "replicas.md"

SERVERS = {"POSTGRESQL": "203.0.113.7/32", "REDIS": "2001:db8::9/128"}


def egress(policies: list[dict[str, Any]]) -> dict[str, list[tuple[int, str]]]:
    """The ports and networks that each policy allows, except for DNS. A selector of pods is `pods`."""
    return {
        policy["metadata"]["name"]: [
            (port["port"], peer.get("ipBlock", {}).get("cidr", "pods"))
            for rule in policy["spec"]["egress"]
            for port in rule["ports"]
            if port["port"] != 53
            for peer in rule["to"]
        ]
        for policy in policies
        if policy["kind"] == "NetworkPolicy"
    }


NAMESPACES = {"DNS_NAMESPACE": "dns-of-the-cluster", "MONITORING_NAMESPACE": "prometheus"}


def rendered_with(peers: dict[str, str], folder: Path) -> list[dict[str, Any]]:
    """The overlay with other peers."""
    shutil.copytree(FOLDER, folder / "kubernetes")
    file = folder / "kubernetes" / "overlays" / OVERLAY / "kustomization.yaml"
    lines = [
        f"{line.partition('=')[0]}={peers[name]}" if (name := line.strip(" -").partition("=")[0]) in peers else line
        for line in file.read_text().splitlines()
    ]
    file.write_text("\n".join(lines))
    done = subprocess.run([KUBECTL, "kustomize", str(file.parent)], capture_output=True, text=True, check=True)
    return list(yaml.safe_load_all(done.stdout))


def test_pods_connect_to_the_named_servers_only(tmp_path):
    """PgBouncer and the migration reach PostgreSQL, the service reaches PgBouncer and Redis, at the named networks."""
    found = egress(rendered_with(SERVERS, tmp_path))

    pooler = manifest(OVERLAY, "Service", "pgbouncer")["spec"]["selector"]["app.kubernetes.io/name"]
    assert {
        NAME: [(6432, "pods"), (6379, SERVERS["REDIS"])],
        f"{NAME}-migration": [(5432, SERVERS["POSTGRESQL"])],
        pooler: [(5432, SERVERS["POSTGRESQL"])],
    } == found


def test_the_namespaces_of_dns_and_of_prometheus_are_parameters(tmp_path):
    """Each policy allows DNS in the named namespace, and the pods of the service the named Prometheus, and no other."""
    found = [one["spec"] for one in rendered_with(NAMESPACES, tmp_path) if one["kind"] == "NetworkPolicy"]
    default = [one["spec"] for one in manifests(OVERLAY) if one["kind"] == "NetworkPolicy"]

    def named(specs: list[dict[str, Any]]) -> list[str]:
        return re.findall(r"'kubernetes\.io/metadata\.name': '([^']+)'", str(specs))

    assert 3 == len(found)
    assert ["kube-system"] * 3 + ["monitoring"] == sorted(named(default))
    assert [NAMESPACES["DNS_NAMESPACE"]] * 3 + [NAMESPACES["MONITORING_NAMESPACE"]] == sorted(named(found))


def test_every_policy_of_the_overlay_names_its_networks():
    """No rule allows every address, and the parameters themselves are not applied to the cluster."""
    found = egress(manifests(OVERLAY))

    networks = {network for rules in found.values() for _, network in rules}
    assert networks
    assert not networks & {"0.0.0.0/0", "::/0", "0.0.0.0/32"}
    settings = {name.upper() for name in Settings.model_fields}
    assert all(one["data"].keys() <= settings for one in manifests(OVERLAY) if one["kind"] == "ConfigMap")


def test_a_component_switches_authentication_on(tmp_path):
    """The line that is commented out in the overlay adds valid settings, and the connection to the issuer."""
    on, off = manifests(OVERLAY, with_component("authentication", tmp_path / "kubernetes")), manifests(OVERLAY)

    added = [rule for rule in egress(on)[NAME] if rule not in egress(off)[NAME]]
    assert [(443, "0.0.0.0/0"), (443, "::/0")] == added
    assert {name: rules for name, rules in egress(on).items() if name != NAME} == {
        name: rules for name, rules in egress(off).items() if name != NAME
    }
    written = [one["data"] for one in on if one["kind"] == "ConfigMap" and "AUTH_ISSUER" in one["data"]]
    assert 2 == len(written)  # of the pods, and of the migration
    for data in written:
        values = {name.lower(): value for name, value in data.items()}
        assert Settings.load(_env_file=None, database_url="postgresql://a@b/c", **values).auth_audience


def test_a_component_adds_replicas(tmp_path):
    """The pods of the service have the URL as a file, which is that of the secret, and reach the replicas' port."""
    on, off = manifests(OVERLAY, with_component("replicas", tmp_path / "kubernetes")), manifests(OVERLAY)

    assert [(5432, "10.0.0.0/8")] == [rule for rule in egress(on)[NAME] if rule not in egress(off)[NAME]]
    assert egress(off) == {**egress(on), NAME: egress(off)[NAME]}
    changed = [one for one in on if one not in off and one["kind"] != "NetworkPolicy"]
    (pod,) = [one["spec"]["template"]["spec"] for one in changed]
    (container,) = pod["containers"]
    (file,) = [one["value"] for one in container["env"] if one["name"] == "DATABASE_REPLICA_URL_FILE"]
    (mount,) = [one for one in container["volumeMounts"] if file.startswith(one["mountPath"] + "/")]
    (volume,) = [one["secret"] for one in pod["volumes"] if one["name"] == mount["name"]]
    assert mount["readOnly"]
    assert (0o440, f"{NAME}-replicas") == (volume["defaultMode"], volume["secretName"])
    assert [f"{mount['mountPath']}/{item['path']}" for item in volume["items"]] == [file]
    assert f"create secret generic {volume['secretName']} --from-file={volume['items'][0]['key']}=" in GUIDE.read_text()


def test_a_component_switches_tracing_on(tmp_path):
    """It adds valid settings, and the connection of the service's pods to the collector in its namespace."""
    on, off = manifests(OVERLAY, with_component("tracing", tmp_path / "kubernetes")), manifests(OVERLAY)

    assert [(4318, "pods")] == [rule for rule in egress(on)[NAME] if rule not in egress(off)[NAME]]
    (written,) = [one["data"] for one in on if one["kind"] == "ConfigMap" and "OTEL_TRACES_SAMPLER" in one["data"]]
    values = {name.lower(): value for name, value in written.items()}
    settings = Settings.load(_env_file=None, database_url="postgresql://a@b/c", **values)
    assert settings.is_tracing
    assert "http://collector.opentelemetry:4318" == settings.otel_exporter_otlp_endpoint
