"""The component for OpenShift: no fixed ids, and the connections to its DNS servers."""

import copy

import pytest

from tests.deploy.manifests import Manifest, identity, manifests, with_component

OVERLAY = "production"

IDS = {"runAsUser", "runAsGroup", "fsGroup"}


@pytest.fixture
def on(tmp_path) -> list[Manifest]:
    """The objects of the overlay with the component."""
    return manifests(OVERLAY, with_component("openshift", tmp_path / "kubernetes"))


def test_no_pod_has_a_fixed_id(on):
    """The pods leave their ids to the namespace. Apart from that they are as restricted as without the component."""
    expected = copy.deepcopy([one for one in manifests(OVERLAY) if one["kind"] in {"Deployment", "Job"}])
    for one in expected:
        security = one["spec"]["template"]["spec"]["securityContext"]
        assert security.keys() >= IDS
        for name in IDS:
            del security[name]
        assert security["runAsNonRoot"]

    assert expected == [one for one in on if one["kind"] in {"Deployment", "Job"}]
    assert 3 == len(expected)


def test_every_policy_allows_the_dns_servers_of_openshift(on):
    """The pods of OpenShift's DNS have another label and port. Nothing else in the policies changes."""
    for one in (one for one in on if one["kind"] == "NetworkPolicy"):
        dns, *others = one["spec"]["egress"]
        (peer,) = dns["to"]
        (without,) = (other["spec"] for other in manifests(OVERLAY) if identity(other) == identity(one))

        assert {"dns.operator.openshift.io/daemonset-dns": "default"} == peer["podSelector"]["matchLabels"]
        assert [(5353, "UDP"), (5353, "TCP")] == [(port["port"], port["protocol"]) for port in dns["ports"]]
        assert without["egress"][1:] == others
        assert without["ingress"] == one["spec"]["ingress"]


def test_the_other_objects_stay(on):
    """The component changes pods and network policies only."""
    changed = {"Deployment", "Job", "NetworkPolicy"}

    assert [one for one in on if one["kind"] not in changed] == [
        one for one in manifests(OVERLAY) if one["kind"] not in changed
    ]
