"""A test network as a compose file: `docker compose up` or `podman-compose up` in its folder runs it on one machine."""

from __future__ import annotations

from typing import Final

from .cluster import (
    CPU_MILLI_MAX,
    KEYS,
    LOAD_CPU_MILLI,
    LOAD_MEMORY_MIB,
    MEMORY_MIB_MAX,
    PORT,
    STATE,
    USER,
    Cluster,
    Group,
)
from .yaml_text import Value, to_yaml

FIRST: Final = "first"
KEY_FILE: Final = "bootstrap.key"


def compose_files(cluster: Cluster) -> dict[str, str]:
    """Files by name. The key is for the first node alone."""
    services: dict[str, Value] = {FIRST: _node(cluster, Group(FIRST, "host", 1))}
    services |= {group.name: _node(cluster, group) for group in cluster.groups}
    services["load"] = _load(cluster)
    content: dict[str, Value] = {
        "name": "fallow-testnet",
        "services": services,
        "secrets": {"bootstrap": {"file": f"./{KEY_FILE}"}},
    }
    return {"compose.yaml": to_yaml(content), KEY_FILE: cluster.seed_hex + "\n"}


def _node(cluster: Cluster, group: Group) -> dict[str, Value]:
    environment = cluster.environment(group, FIRST)
    node: dict[str, Value] = {
        **_container(cluster.image, "node", environment),
        "expose": [str(PORT)],
        "healthcheck": {
            "test": ["CMD", "python3", "-c", f"import socket; socket.create_connection(('localhost', {PORT}), 2)"],
            "interval": "5s",
            "timeout": "5s",
            "retries": 12,
            "start_period": "60s",
        },
        "stop_grace_period": "20s",
        "deploy": {"replicas": group.count, "resources": _limits(CPU_MILLI_MAX, MEMORY_MIB_MAX)},
    }
    if group.name == FIRST:
        node["environment"] = {**environment, "FALLOW_KEY": KEYS}
        node["secrets"] = [{"source": "bootstrap", "target": KEYS}]
    else:
        node["depends_on"] = {FIRST: {"condition": "service_healthy"}}
    return node


def _load(cluster: Cluster) -> dict[str, Value]:
    return {
        **_container(cluster.image, "load", cluster.environment(None, FIRST)),
        "depends_on": {FIRST: {"condition": "service_healthy"}},
        "deploy": {"resources": _limits(2 * LOAD_CPU_MILLI, 2 * LOAD_MEMORY_MIB)},
    }


def _container(image: str, part: str, environment: dict[str, str]) -> dict[str, Value]:
    return {
        "image": image,
        "command": [part],
        "environment": environment,
        "user": f"{USER}:{USER}",
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "tmpfs": [f"{STATE}:uid={USER},gid={USER},mode=0700"],
    }


def _limits(cpu_milli: int, memory_mib: int) -> dict[str, Value]:
    return {"limits": {"cpus": f"{cpu_milli / 1000:.2f}", "memory": f"{memory_mib}M"}}
