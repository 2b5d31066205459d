"""What the schemas of Kubernetes cannot see: that the objects of ``k8s/base`` fit each other."""

from __future__ import annotations

from typing import Any

import pytest

from signer.config.settings import Settings

Manifests = dict[str, dict[str, Any]]


def test_every_selector_finds_the_pods(manifests: Manifests, deployment: dict[str, Any]) -> None:
    """Deployment, Service, PodDisruptionBudget and NetworkPolicy select by labels that the pods carry."""
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


def test_disruption_budget_leaves_room_for_a_drain(manifests: Manifests, deployment: dict[str, Any]) -> None:
    """A node can be drained, and never takes the last replica with it."""
    budget = manifests["PodDisruptionBudget"]["spec"]
    replicas = deployment["replicas"]
    allowed_down = budget["maxUnavailable"] if "maxUnavailable" in budget else replicas - budget["minAvailable"]
    assert 1 <= allowed_down < replicas


def test_rollout_never_goes_below_the_replicas(deployment: dict[str, Any]) -> None:
    """A rollout adds a pod before it takes one away."""
    rollout = deployment["strategy"]["rollingUpdate"]
    assert (rollout["maxUnavailable"], rollout["maxSurge"]) == (0, 1)


def test_grace_period_is_longer_than_sleep_and_drain(
    pod: dict[str, Any], container: dict[str, Any], settings: Settings
) -> None:
    """The kubelet kills only after preStop, the drain, and five seconds to close what is open."""
    sleep = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod["terminationGracePeriodSeconds"] >= sleep + settings.http.drain_within.total_seconds() + 5


@pytest.mark.parametrize(
    ("probe", "path"),
    [("startupProbe", "/healthz"), ("livenessProbe", "/healthz"), ("readinessProbe", "/readyz")],
)
def test_probe_asks_a_port_that_is_there(container: dict[str, Any], probe: str, path: str) -> None:
    """Each probe asks its own path, on a port that the container declares."""
    asked = container[probe]["httpGet"]
    assert asked["path"] == path
    assert asked["port"] in {port["name"] for port in container["ports"]}


def test_one_port_everywhere(manifests: Manifests, container: dict[str, Any], settings: Settings) -> None:
    """What the service listens on is what container, Service and NetworkPolicy say."""
    (declared,) = container["ports"]
    (published,) = manifests["Service"]["spec"]["ports"]
    (rule,) = manifests["NetworkPolicy"]["spec"]["ingress"]
    assert declared["containerPort"] == published["port"] == settings.http.port
    assert settings.http.host == "0.0.0.0"
    assert published["targetPort"] == declared["name"]
    assert [port["port"] for port in rule["ports"]] == [declared["name"]]


def test_pods_are_restricted(pod: dict[str, Any], container: dict[str, Any]) -> None:
    """The pod meets the Pod Security Standard `restricted`, and its root file system is read-only."""
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


def test_pods_hold_no_kubernetes_token(manifests: Manifests, pod: dict[str, Any]) -> None:
    """Neither the pod nor its own service account mounts a token: the signer does not talk to Kubernetes."""
    assert pod["automountServiceAccountToken"] is False
    assert manifests["ServiceAccount"]["automountServiceAccountToken"] is False
    assert pod["serviceAccountName"] == manifests["ServiceAccount"]["metadata"]["name"]


def test_namespace_is_left_to_the_overlay(manifests: Manifests) -> None:
    """No object of the base names a namespace."""
    assert [kind for kind, manifest in manifests.items() if "namespace" in manifest["metadata"]] == []


def test_only_labelled_pods_may_call(manifests: Manifests) -> None:
    """Ingress is from pods with the one label, which the signer's own pods do not carry."""
    (rule,) = manifests["NetworkPolicy"]["spec"]["ingress"]
    assert rule["from"] == [{"podSelector": {"matchLabels": {"challenge-signer/access": "wallet-backend"}}}]
    assert manifests["NetworkPolicy"]["spec"]["policyTypes"] == ["Ingress", "Egress"]


def test_egress_is_names_redis_and_https(manifests: Manifests) -> None:
    """Pods reach DNS, Redis and HTTPS, and no cloud's metadata service."""
    rules = manifests["NetworkPolicy"]["spec"]["egress"]
    assert [{port["port"] for port in rule["ports"]} for rule in rules] == [{53}, {6379}, {443}]
    assert all(rule["to"] for rule in rules)
    (public, _) = rules[2]["to"]
    assert "169.254.0.0/16" in public["ipBlock"]["except"]


def test_every_volume_is_mounted_once(pod: dict[str, Any], container: dict[str, Any]) -> None:
    """No volume is forgotten, no mount hangs in the air, and all but /tmp are read-only."""
    mounts = container["volumeMounts"]
    assert sorted(mount["name"] for mount in mounts) == sorted(volume["name"] for volume in pod["volumes"])
    assert [mount["mountPath"] for mount in mounts if not mount.get("readOnly")] == ["/tmp"]
