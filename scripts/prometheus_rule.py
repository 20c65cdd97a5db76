"""Writes the rules and alerts of deploy/prometheus as a PrometheusRule, for the Prometheus Operator.

python -m scripts.prometheus_rule
"""

from pathlib import Path
from typing import Final

_ROOT: Final = Path(__file__).parents[1]
_RULES: Final = _ROOT / "deploy" / "prometheus"

TARGET: Final = _ROOT / "deploy" / "kubernetes" / "components" / "monitoring" / "prometheus-rule.yaml"

_HEAD: Final = """\
# Written from deploy/prometheus/rules.yaml and alerts.yaml by `python -m scripts.prometheus_rule`.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: {name}
spec:
  groups:
"""


def rendered() -> str:
    """The manifest. Its name is that of the group of the alerts, which is the name of the service."""
    groups = [(_RULES / file).read_text().partition("\ngroups:\n")[2] for file in ("rules.yaml", "alerts.yaml")]
    name = groups[1].partition("- name: ")[2].split()[0]
    lines = "".join(groups).splitlines()
    return _HEAD.format(name=name) + "".join(f"  {line}".rstrip() + "\n" for line in lines)


if __name__ == "__main__":
    TARGET.write_text(rendered())
