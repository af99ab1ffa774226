"""Promises: the Kubernetes manifests are whole and say what a node needs: an identity that outlives its pod, probes
that no partition fools, time to drain, one disruption at a time, no two copies on one machine, nothing it does not
need."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from leafdb.config import Config
from leafdb.node import config_rules, settings
from support.collection import COLLECTION

FOLDER = COLLECTION / "kubernetes"
LABELS = {"app.kubernetes.io/name": "leafdb", "app.kubernetes.io/component": "node"}
DRAIN_S = 60
CONFINED = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}


def objects() -> dict[tuple[str, str], dict[str, Any]]:
    """Every object, by kind and name."""
    found = {}
    for path in sorted(FOLDER.glob("*.yaml")):
        for each in yaml.safe_load_all(path.read_text(encoding="utf-8")):
            if each["kind"] != "Kustomization":
                found[each["kind"], each["metadata"]["name"]] = each
    return found


def containers_of(pod: dict[str, Any]) -> list[dict[str, Any]]:
    """Those that begin, and those that stay."""
    return [*pod["initContainers"], *pod["containers"]]


def filled(text: str, **known: str) -> str:
    """A text with what the cluster puts in for $(NAME)."""
    return re.sub(r"\$\((\w+)\)", lambda found: known[found[1]], text)


def environment_of(container: dict[str, Any]) -> dict[str, str]:
    """What a container of pod leafdb-0 in namespace db is told, in the order in which names may be used."""
    facts = {"metadata.name": "leafdb-0", "metadata.namespace": "db"}
    said: dict[str, str] = {}
    for each in container["env"]:
        field = each.get("valueFrom", {}).get("fieldRef", {}).get("fieldPath")
        said[each["name"]] = facts[field] if field else filled(each["value"], **said)
    return said


def config_of_a_pod(directory: Path, container: dict[str, Any]) -> Config:
    """What leafdbd makes of it all."""
    file = directory / "leafdb.toml"
    file.write_text(objects()["ConfigMap", "leafdb"]["data"]["leafdb.toml"])
    given = {name: text for name, text in environment_of(container).items() if name.startswith("LEAFDB__")}
    return settings.load(str(file), environment=given).config


@pytest.fixture
def stateful() -> dict[str, Any]:
    spec: dict[str, Any] = objects()["StatefulSet", "leafdb"]["spec"]
    return spec


@pytest.fixture
def pod(stateful: dict[str, Any]) -> dict[str, Any]:
    spec: dict[str, Any] = stateful["template"]["spec"]
    return spec


@pytest.fixture
def container(pod: dict[str, Any]) -> dict[str, Any]:
    (only,) = pod["containers"]
    found: dict[str, Any] = only
    return found


def test_the_kustomization_has_every_file_but_the_one_that_is_applied_once() -> None:
    listed = set(yaml.safe_load((FOLDER / "kustomization.yaml").read_text(encoding="utf-8"))["resources"])
    there = {path.name for path in FOLDER.glob("*.yaml")}
    assert listed == there - {"kustomization.yaml", "found.yaml"}


def test_every_selector_finds_the_pods(stateful: dict[str, Any]) -> None:
    assert stateful["template"]["metadata"]["labels"] == LABELS
    assert stateful["selector"]["matchLabels"] == LABELS
    found = objects()
    for name in ("leafdb", "leafdb-nodes"):
        assert found["Service", name]["spec"]["selector"] == LABELS
    assert found["PodDisruptionBudget", "leafdb"]["spec"]["selector"]["matchLabels"] == LABELS
    assert found["NetworkPolicy", "leafdb"]["spec"]["podSelector"]["matchLabels"] == LABELS


def test_nodes_find_each_other_before_they_are_ready(stateful: dict[str, Any], container: dict[str, Any]) -> None:
    headless = objects()["Service", stateful["serviceName"]]["spec"]
    assert headless["clusterIP"] == "None"
    assert headless["publishNotReadyAddresses"] is True
    assert stateful["podManagementPolicy"] == "Parallel"
    environment = {each["name"]: each for each in container["env"]}
    assert environment["LEAFDB__NODE__NAME"]["valueFrom"]["fieldRef"]["fieldPath"] == "metadata.name"
    advertised = environment["LEAFDB__LISTEN__ADVERTISE"]["value"]
    assert advertised == f"$(LEAFDB__NODE__NAME).{stateful['serviceName']}.$(POD_NAMESPACE).svc"
    names = list(environment)
    assert names.index("LEAFDB__LISTEN__ADVERTISE") > max(map(names.index, ("POD_NAMESPACE", "LEAFDB__NODE__NAME")))


def test_probes_ask_the_right_pages(container: dict[str, Any]) -> None:
    """Liveness must not depend on others: a partition would restart the cluster."""
    pages = {name: container[name]["httpGet"] for name in ("startupProbe", "livenessProbe", "readinessProbe")}
    assert {name: page["path"] for name, page in pages.items()} == {
        "startupProbe": "/livez", "livenessProbe": "/livez", "readinessProbe": "/readyz",
    }  # fmt: skip
    ports = {each["name"]: each["containerPort"] for each in container["ports"]}
    assert ports == {"client": 7411, "peer": 7412, "http": 7413}
    assert all(page["port"] == "http" for page in pages.values())
    startup = container["startupProbe"]
    assert startup["periodSeconds"] * startup["failureThreshold"] >= 300, "a long log is replayed first"


def test_a_stop_has_time_to_drain(pod: dict[str, Any], container: dict[str, Any]) -> None:
    command = container["lifecycle"]["preStop"]["exec"]["command"]
    assert command == ["leafdb", "node", "drain", "--wait", "--timeout", f"{DRAIN_S}s"]
    config = tomllib.loads(objects()["ConfigMap", "leafdb"]["data"]["leafdb.toml"])
    own_s = int(config["node"]["drain_timeout"].removesuffix("s"))
    assert pod["terminationGracePeriodSeconds"] > DRAIN_S + own_s + 30


def test_one_node_at_a_time(stateful: dict[str, Any]) -> None:
    budget = objects()["PodDisruptionBudget", "leafdb"]["spec"]
    assert budget["maxUnavailable"] == 1
    assert stateful["updateStrategy"] == {"type": "OnDelete"}
    kept = stateful["persistentVolumeClaimRetentionPolicy"]
    assert set(kept.values()) == {"Retain"}


def test_no_two_nodes_on_one_machine(pod: dict[str, Any]) -> None:
    (apart,) = pod["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert apart["topologyKey"] == "kubernetes.io/hostname"
    assert apart["labelSelector"]["matchLabels"] == LABELS
    (spread,) = pod["topologySpreadConstraints"]
    assert spread["topologyKey"] == "topology.kubernetes.io/zone"


def test_memory_is_bounded_and_processor_time_is_not(container: dict[str, Any]) -> None:
    wanted, bounded = container["resources"]["requests"], container["resources"]["limits"]
    assert wanted["memory"] == bounded["memory"]
    assert "cpu" in wanted
    assert "cpu" not in bounded


def test_pods_can_do_nothing_they_need_not() -> None:
    found = objects()
    for kind, name in (("StatefulSet", "leafdb"), ("Job", "leafdb-found")):
        pod = found[kind, name]["spec"]["template"]["spec"]
        assert pod["automountServiceAccountToken"] is False
        assert pod["enableServiceLinks"] is False, "LEAFDB_... in the environment is ours"
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] == 10001
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for each in containers_of(pod):
            assert each["securityContext"] == CONFINED, each["name"]
            assert each["resources"]["limits"]["memory"], each["name"]


def test_secrets_are_mounted_and_no_volume_is_missing(stateful: dict[str, Any], pod: dict[str, Any]) -> None:
    volumes = {each["name"]: each for each in pod["volumes"]}
    claims = {each["metadata"]["name"] for each in stateful["volumeClaimTemplates"]}
    founder = objects()["Job", "leafdb-found"]["spec"]["template"]["spec"]
    assert {each["name"]: each for each in founder["volumes"]} == {name: volumes[name] for name in ("given", "secret")}
    for each in [*containers_of(pod), *containers_of(founder)]:
        for mount in each["volumeMounts"]:
            assert mount["name"] in volumes or mount["name"] in claims
        assert not [one for one in each.get("env", ()) if "secretKeyRef" in str(one)], "environments are shown"
    given = volumes["given"]["projected"]["sources"]
    assert [each["secret"]["name"] for each in given] == ["leafdb-secret", "leafdb-tls"]
    assert volumes["secret"]["emptyDir"]["medium"] == "Memory"
    for one in (pod, founder):
        (copy,) = one["initContainers"]
        assert copy["command"][:2] == ["install", "--mode=0400"], "leafdbd refuses a secret that its group can read"
        assert [each["name"] for each in containers_of(one) if "given" in str(each["volumeMounts"])] == ["secret"]


def test_tls_and_accounts_are_asked_of_everybody(
    tmp_path: Path, pod: dict[str, Any], container: dict[str, Any]
) -> None:
    config = config_of_a_pod(tmp_path, container)
    assert not config_rules.warnings(config)
    assert (config.auth.mode, config.auth.insecure, config.tls.optional) == ("required", False, False)
    (copy,) = pod["initContainers"]
    brought = [filled(word, POD_NAME="leafdb-0").rpartition("/")[2] for word in copy["args"]]
    assert brought == ["secret", "ca.crt", "leafdb-0.crt", "leafdb-0.key"], "of its own, and never the key of the CA"
    (where,) = [each["mountPath"] for each in container["volumeMounts"] if each["name"] == "secret"]
    assert copy["command"][2] == f"--target-directory={where}"
    named = [config.cluster.secret_file, config.tls.ca_file, config.tls.cert_file, config.tls.key_file]
    assert named == [f"{where}/{name}" for name in brought]


def test_commands_in_a_pod_find_their_node_and_log_in(tmp_path: Path, container: dict[str, Any]) -> None:
    config, said = config_of_a_pod(tmp_path, container), environment_of(container)
    assert said["LEAFDB_NODE"] == str(config.listen.advertised(config.listen.client))
    assert (said["LEAFDB_CA_FILE"], said["LEAFDB_SECRET_FILE"]) == (config.tls.ca_file, config.cluster.secret_file)
    (founder,) = objects()["Job", "leafdb-found"]["spec"]["template"]["spec"]["containers"]
    others = environment_of(founder)
    assert {name: others[name] for name in others if name.endswith("_FILE")} == {
        name: said[name] for name in ("LEAFDB_CA_FILE", "LEAFDB_SECRET_FILE")
    }


def test_the_configuration_is_one_that_leafdbd_takes(tmp_path: Path, container: dict[str, Any]) -> None:
    config = config_of_a_pod(tmp_path, container)
    mounts = {each["name"]: each["mountPath"] for each in container["volumeMounts"]}
    assert config.node.data_dir.startswith(f"{mounts['data']}/")
    assert config.cluster.secret_file.startswith(f"{mounts['secret']}/")
    assert str(config.listen.advertised(config.listen.peer)) == "leafdb-0.leafdb-nodes.db.svc:7412"


def test_whoever_founds_names_every_pod(stateful: dict[str, Any]) -> None:
    (founder,) = objects()["Job", "leafdb-found"]["spec"]["template"]["spec"]["containers"]
    config = tomllib.loads(objects()["ConfigMap", "leafdb"]["data"]["leafdb.toml"])
    assert founder["command"] == ["leafdb", "cluster", "init", config["cluster"]["name"]]
    service = stateful["serviceName"]
    assert founder["args"] == [
        f"--member=name=leafdb-{number},client=leafdb-{number}.{service}.$(POD_NAMESPACE).svc:7411"
        for number in range(stateful["replicas"])
    ]


def test_zones_come_from_the_label_that_pods_carry() -> None:
    component = yaml.safe_load((FOLDER / "zones" / "kustomization.yaml").read_text(encoding="utf-8"))
    (patch,) = yaml.safe_load(component["patches"][0]["patch"])
    assert patch["path"] == "/spec/template/spec/containers/0/env/-"
    assert patch["value"]["name"] == "LEAFDB__NODE__ZONE"
    assert "topology.kubernetes.io/zone" in patch["value"]["valueFrom"]["fieldRef"]["fieldPath"]
