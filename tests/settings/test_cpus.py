import os

import pytest

from app.settings.cpus import available_cpus


@pytest.fixture
def cores_64(monkeypatch):
    """A host of 64 cores."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))


@pytest.fixture
def host(tmp_path, cores_64):
    """Counts the CPUs of a process whose files below /sys/fs/cgroup are these."""

    def count(membership, **files):
        for path, content in files.items():
            file = tmp_path / "fs" / path.replace("__", "/").replace("_DOT_", ".")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(content)
        (tmp_path / "cgroup").write_text(membership)
        return available_cpus(tmp_path / "fs", tmp_path / "cgroup")

    return count


@pytest.mark.parametrize(
    ("quota", "cpus"),
    [("max 100000", 64), ("100000 100000", 1), ("150000 100000", 2), ("50000 100000", 1), ("1000 100000", 1),
    ("400000 50000", 8),
     ("9900000 100000", 64), ("", 64), ("max", 64), ("a b", 64), ("100000 0", 64), ("-1 100000", 64), ("0 100000", 64)],
)  # fmt: skip
def test_the_quota_of_version_2_bounds_the_cpus(host, quota, cpus):
    """`cpu.max` bounds the CPUs. A fraction is rounded up, and a malformed quota is ignored."""
    assert cpus == host("0::/\n", cpu_DOT_max=quota)


@pytest.mark.parametrize(("quota", "cpus"), [("-1", 64), ("200000", 2), ("250000", 3), ("10000", 1), ("", 64)])
@pytest.mark.parametrize("folder", ["cpu", "cpu__docker__abc", "cpu,cpuacct__docker__abc"])
def test_the_quota_of_version_1_bounds_the_cpus(host, folder, quota, cpus):
    """`cpu.cfs_quota_us` divided by its period bounds the CPUs, in the container's own folder or at the root."""
    controllers = folder.partition("__")[0]
    files = {f"{folder}__cpu_DOT_cfs_quota_us": quota + "\n", f"{folder}__cpu_DOT_cfs_period_us": "100000\n"}

    assert cpus == host(f"3:{controllers}:/docker/abc\n2:memory:/docker/abc\n0::/\n", **files)


def test_the_smallest_of_nested_quotas_applies(host):
    """A process is limited by its own cgroup and by all parents of it."""
    quotas = {
        "cpu_DOT_max": "max 100000",
        "pods__cpu_DOT_max": "300000 100000",
        "pods__one__cpu_DOT_max": "800000 100000",
    }

    assert 3 == host("0::/pods/one\n", **quotas)
    assert 3 == host("0::/pods/one/deeper\n")
    assert 64 == host("0::/elsewhere\n")


def test_without_cgroups_the_affinity_applies(tmp_path, cores_64):
    """Where the files of cgroups are missing, the affinity alone bounds the CPUs."""
    assert 64 == available_cpus(tmp_path / "none", tmp_path / "nothing")


def test_the_affinity_bounds_the_cpus(host, monkeypatch):
    """A process that is pinned to two cores has two, also with a larger quota."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 5})

    assert 2 == host("0::/\n", cpu_DOT_max="800000 100000")


def test_the_cpus_of_this_machine_are_counted():
    """On this machine the number is between 1 and the size of the affinity."""
    assert 1 <= available_cpus() <= len(os.sched_getaffinity(0))
