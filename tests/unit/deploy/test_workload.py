"""The objects of ``k8s/base`` fit each other, which the schemas of Kubernetes cannot check."""

from __future__ import annotations

from typing import Any

import pytest

from signer.config.settings import Settings

Manifests = dict[str, dict[str, Any]]


def test_every_selector_matches_the_pods(manifests: Manifests, deployment: dict[str, Any]) -> None:
    """Deployment, Service, PodDisruptionBudget and NetworkPolicy select labels of the pods."""
    labels = deployment["template"]["metadata"]["labels"].items()
    selectors = [
        deployment["selector"]["matchLabels"],
        manifests["Service"]["spec"]["selector"],
        manifests["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"],
        manifests["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"],
        *(
            spread["labelSelector"]["matchLabels"]
            for spread in deployment["template"]["spec"]["topologySpreadConstraints"]
        ),
    ]
    assert all(selector and selector.items() <= labels for selector in selectors)


def test_disruption_budget_allows_a_drain(manifests: Manifests, deployment: dict[str, Any]) -> None:
    """A node can be drained without stopping the last replica."""
    budget = manifests["PodDisruptionBudget"]["spec"]
    replicas = deployment["replicas"]
    allowed_down = budget["maxUnavailable"] if "maxUnavailable" in budget else replicas - budget["minAvailable"]
    assert 1 <= allowed_down < replicas


def test_rollout_keeps_all_replicas(deployment: dict[str, Any]) -> None:
    """A rollout adds a pod before it removes one."""
    rollout = deployment["strategy"]["rollingUpdate"]
    assert (rollout["maxUnavailable"], rollout["maxSurge"]) == (0, 1)


def test_grace_period_is_longer_than_pre_stop_and_drain(
    pod: dict[str, Any], container: dict[str, Any], settings: Settings
) -> None:
    """The kubelet kills the pod only after ``http.pre_stop``, the drain and five seconds to close connections."""
    assert "lifecycle" not in container  # a preStop hook would delay SIGTERM, and with it Connection: close
    spans = settings.http.pre_stop + settings.http.drain_within
    assert settings.http.pre_stop.total_seconds() >= 5
    assert pod["terminationGracePeriodSeconds"] >= spans.total_seconds() + 5


@pytest.mark.parametrize(
    ("probe", "path"),
    [("startupProbe", "/healthz"), ("livenessProbe", "/healthz"), ("readinessProbe", "/readyz")],
)
def test_probe_uses_a_declared_port(container: dict[str, Any], probe: str, path: str) -> None:
    """Each probe has its path and a port of the container."""
    request = container[probe]["httpGet"]
    assert request["path"] == path
    assert request["port"] in {port["name"] for port in container["ports"]}


def test_service_container_and_policy_have_one_port(
    manifests: Manifests, container: dict[str, Any], settings: Settings
) -> None:
    """It is ``http.port`` of the settings."""
    (declared, _) = container["ports"]
    (published,) = manifests["Service"]["spec"]["ports"]
    (rule, _) = manifests["NetworkPolicy"]["spec"]["ingress"]
    assert declared["containerPort"] == published["port"] == settings.http.port
    assert settings.http.host == "0.0.0.0"
    assert published["targetPort"] == declared["name"]
    assert [port["port"] for port in rule["ports"]] == [declared["name"]]


def test_metrics_have_one_port_for_monitoring_only(
    manifests: Manifests, deployment: dict[str, Any], container: dict[str, Any], settings: Settings
) -> None:
    """It is ``metrics.port``, which only pods of the monitoring can reach, and which no Service publishes."""
    (_, declared) = container["ports"]
    (_, rule) = manifests["NetworkPolicy"]["spec"]["ingress"]
    assert (declared["name"], declared["containerPort"]) == ("metrics", settings.metrics.port)
    assert settings.metrics.host == "0.0.0.0"
    assert rule == {
        "from": [{"podSelector": {"matchLabels": {"challenge-signer/access": "monitoring"}}}],
        "ports": [{"protocol": "TCP", "port": "metrics"}],
    }
    annotations = deployment["template"]["metadata"]["annotations"]
    assert annotations["prometheus.io/port"] == str(settings.metrics.port)


def test_pods_are_restricted(pod: dict[str, Any], container: dict[str, Any]) -> None:
    """The pod meets the Pod Security Standard `restricted` and has a read-only root file system."""
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "privileged": False,
        "readOnlyRootFilesystem": True,
        "runAsNonRoot": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()


def test_pods_have_no_kubernetes_token(manifests: Manifests, pod: dict[str, Any]) -> None:
    """Neither the pod nor its service account mounts a token: the service does not use the Kubernetes API."""
    assert pod["automountServiceAccountToken"] is False
    assert manifests["ServiceAccount"]["automountServiceAccountToken"] is False
    assert pod["serviceAccountName"] == manifests["ServiceAccount"]["metadata"]["name"]


def test_base_sets_no_namespace(manifests: Manifests) -> None:
    """The overlay sets it."""
    assert [kind for kind, manifest in manifests.items() if "namespace" in manifest["metadata"]] == []


def test_only_labelled_pods_can_connect(manifests: Manifests) -> None:
    """Ingress to the API is allowed only from pods with the label of callers."""
    (rule, _) = manifests["NetworkPolicy"]["spec"]["ingress"]
    assert rule["from"] == [{"podSelector": {"matchLabels": {"challenge-signer/access": "wallet-backend"}}}]
    assert manifests["NetworkPolicy"]["spec"]["policyTypes"] == ["Ingress", "Egress"]


def test_egress_is_dns_redis_and_https(manifests: Manifests) -> None:
    """The metadata service of a cloud is excluded."""
    rules = manifests["NetworkPolicy"]["spec"]["egress"]
    assert [{port["port"] for port in rule["ports"]} for rule in rules] == [{53}, {6379}, {443}]
    assert all(rule["to"] for rule in rules)
    (public, _) = rules[2]["to"]
    assert "169.254.0.0/16" in public["ipBlock"]["except"]


def test_every_volume_is_mounted_once(pod: dict[str, Any], container: dict[str, Any]) -> None:
    """Every mount has a volume, and all except /tmp are read-only."""
    mounts = container["volumeMounts"]
    assert sorted(mount["name"] for mount in mounts) == sorted(volume["name"] for volume in pod["volumes"])
    assert [mount["mountPath"] for mount in mounts if not mount.get("readOnly")] == ["/tmp"]
