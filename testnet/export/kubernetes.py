"""A test network as Kubernetes manifests: `kubectl apply -f` takes the folder as it is.

One StatefulSet for the first node and one for each kind and adversary, all behind one headless service, so that the first
node has a name before it has an address; a Secret with that node's key; a Job that asks. Pods are parallel, unprivileged,
bounded, and keep nothing: a test network is thrown away.
"""

from __future__ import annotations

from typing import Final

from .cluster import (
    CPU_MILLI,
    CPU_MILLI_MAX,
    DISK_MIB_MAX,
    KEYS,
    LOAD_CPU_MILLI,
    LOAD_MEMORY_MIB,
    MEMORY_MIB,
    MEMORY_MIB_MAX,
    PORT,
    STATE,
    USER,
    Cluster,
    Group,
)
from .yaml_text import Value, documents

SERVICE: Final = "fallow"
FIRST: Final = "first"
SECRET, CONFIG = "fallow-first", "fallow"
APP: Final = {"app.kubernetes.io/name": "fallow-testnet"}
LEAVE_S: Final = 20
"""For a node to hand back its jobs."""
DEADLINE_S: Final = 600
"""Beyond the load's own minutes, for images to be pulled and the first nodes to be ready."""


def manifests(cluster: Cluster, namespace: str) -> dict[str, str]:
    """Files by name, in the order in which they are to be applied."""
    groups = [Group(FIRST, "host", 1), *cluster.groups]
    bootstrap = f"{FIRST}-0.{SERVICE}.{namespace}.svc"
    return {
        "00-namespace.yaml": documents(
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace, "labels": APP}}
        ),
        "10-config.yaml": documents(_config(cluster, namespace, bootstrap), _secret(cluster, namespace)),
        "20-service.yaml": documents(_service(namespace)),
        "30-nodes.yaml": documents(*(_stateful_set(cluster, group, namespace) for group in groups)),
        "40-load.yaml": documents(_load(cluster, namespace)),
    }


def _config(cluster: Cluster, namespace: str, bootstrap: str) -> dict[str, Value]:
    shared = cluster.environment(Group("", "", 0), bootstrap) | cluster.environment(None, bootstrap)
    shared.pop("FALLOW_KIND")
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": _named(CONFIG, namespace), "data": shared}


def _secret(cluster: Cluster, namespace: str) -> dict[str, Value]:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": _named(SECRET, namespace),
        "type": "Opaque",
        "stringData": {"bootstrap.key": cluster.seed_hex},
    }


def _service(namespace: str) -> dict[str, Value]:
    """Headless: each pod has a name of its own, also before it is ready."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _named(SERVICE, namespace),
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": APP,
            "ports": [{"name": "libp2p", "port": PORT, "protocol": "TCP"}],
        },
    }


def _stateful_set(cluster: Cluster, group: Group, namespace: str) -> dict[str, Value]:
    labels = {**APP, "fallow/group": group.name}
    own = {"FALLOW_KIND": group.kind, **({"FALLOW_ADVERSARY": group.adversary} if group.adversary else {})}
    environment: list[Value] = [{"name": name, "value": value} for name, value in own.items()]
    environment.append({"name": "FALLOW_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}})
    mounts: list[Value] = [{"name": "state", "mountPath": STATE}]
    volumes: list[Value] = [{"name": "state", "emptyDir": {"sizeLimit": f"{DISK_MIB_MAX}Mi"}}]
    if group.name == FIRST:
        environment.append({"name": "FALLOW_KEY", "value": KEYS})
        mounts.append({"name": "key", "mountPath": KEYS.rpartition("/")[0], "readOnly": True})
        volumes.append({"name": "key", "secret": {"secretName": SECRET, "defaultMode": 0o440}})
    container: dict[str, Value] = {
        "name": "node",
        "image": cluster.image,
        "args": ["node"],
        "envFrom": [{"configMapRef": {"name": CONFIG}}],
        "env": environment,
        "ports": [{"name": "libp2p", "containerPort": PORT}],
        "readinessProbe": {"tcpSocket": {"port": "libp2p"}, "periodSeconds": 5},
        "resources": _resources(CPU_MILLI, MEMORY_MIB, CPU_MILLI_MAX, MEMORY_MIB_MAX),
        "securityContext": _CONFINED,
        "volumeMounts": mounts,
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {**_named(group.name, namespace), "labels": labels},
        "spec": {
            "serviceName": SERVICE,
            "replicas": group.count,
            "podManagementPolicy": "Parallel",
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    **_POD,
                    "terminationGracePeriodSeconds": LEAVE_S,
                    "containers": [container],
                    "volumes": volumes,
                },
            },
        },
    }


def _load(cluster: Cluster, namespace: str) -> dict[str, Value]:
    labels = {"app.kubernetes.io/name": "fallow-load"}
    container: dict[str, Value] = {
        "name": "load",
        "image": cluster.image,
        "args": ["load"],
        "envFrom": [{"configMapRef": {"name": CONFIG}}],
        "resources": _resources(LOAD_CPU_MILLI, LOAD_MEMORY_MIB, 2 * LOAD_CPU_MILLI, 2 * LOAD_MEMORY_MIB),
        "securityContext": _CONFINED,
        "volumeMounts": [{"name": "state", "mountPath": STATE}],
    }
    spec: dict[str, Value] = {
        **_POD,
        "restartPolicy": "Never",
        "containers": [container],
        "volumes": [{"name": "state", "emptyDir": {"sizeLimit": f"{DISK_MIB_MAX}Mi"}}],
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {**_named("load", namespace), "labels": labels},
        "spec": {
            "backoffLimit": 0,
            "activeDeadlineSeconds": cluster.minutes * 60 + DEADLINE_S,
            "template": {"metadata": {"labels": labels}, "spec": spec},
        },
    }


def _named(name: str, namespace: str) -> dict[str, Value]:
    return {"name": name, "namespace": namespace, "labels": APP}


def _resources(cpu_milli: int, memory_mib: int, cpu_milli_max: int, memory_mib_max: int) -> dict[str, Value]:
    return {
        "requests": {"cpu": f"{cpu_milli}m", "memory": f"{memory_mib}Mi"},
        "limits": {"cpu": f"{cpu_milli_max}m", "memory": f"{memory_mib_max}Mi"},
    }


_CONFINED: Final[dict[str, Value]] = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
_POD: Final[dict[str, Value]] = {
    "automountServiceAccountToken": False,
    "enableServiceLinks": False,
    "securityContext": {
        "runAsNonRoot": True, "runAsUser": USER, "runAsGroup": USER, "fsGroup": USER,
        "seccompProfile": {"type": "RuntimeDefault"},
    },
}  # fmt: skip
"""A thousand services' addresses in every environment would be 100 KB: `enableServiceLinks` keeps them out."""
