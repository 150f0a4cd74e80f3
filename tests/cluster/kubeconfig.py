"""Kubeconfig files: written for our own control planes, read for a cluster that is named to us."""

from __future__ import annotations

import base64
import json
from pathlib import Path


def write_kubeconfig(path: Path, *, server: str, ca: str, token: str) -> Path:
    """Write a file that reaches `server` with a bearer token, and return its path."""
    authority = base64.b64encode(ca.encode()).decode()
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "test",
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        "clusters": [
            {"name": "test", "cluster": {"server": server, "certificate-authority-data": authority}}
        ],
        "users": [{"name": "test", "user": {"token": token}}],
    }
    path.write_text(json.dumps(content, indent=2))  # JSON is YAML
    path.chmod(0o600)
    return path
