"""helm as people use it, with folders of its own and the cluster that it is told."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from tests.images.content import ROOT
from tests.manifests.documents import Body, read

CHART: Final = ROOT / "charts" / "ascend-serving"
RELEASE: Final = "ascend-serving"
SYSTEM: Final = "ascend-serving-system"
_HOMES: Final = ("HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME")
_NOWHERE: Final = Path("/nonexistent")


class HelmRefused(Exception):
    """What helm said as it failed."""


@dataclass(frozen=True, slots=True)
class Helm:
    """One helm; without a kubeconfig it reaches no cluster."""

    binary: Path
    home: Path
    kubeconfig: Path = _NOWHERE

    def of(self, kubeconfig: Path) -> Helm:
        """Return the same helm for a cluster."""
        return replace(self, kubeconfig=kubeconfig)

    def __call__(self, *words: str | Path) -> str:
        """Run it and return what it prints.

        Raises:
            HelmRefused: it fails.
        """
        done = subprocess.run(
            [str(self.binary), *map(str, words)],
            env=self.environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise HelmRefused(done.stderr)
        return done.stdout

    def template(
        self,
        *settings: str,
        namespace: str = SYSTEM,
        chart: Path = CHART,
        options: tuple[str, ...] = (),
    ) -> list[Body]:
        """Return the objects of a release with these values, hooks included."""
        chosen = [word for setting in settings for word in ("--set", setting)]
        words = ("template", RELEASE, str(chart), "--namespace", namespace, *chosen, *options)
        return read(self(*words))

    def environment(self) -> dict[str, str]:
        """Return the environment in which it runs: nothing of the user's own helm."""
        others = {name: text for name, text in os.environ.items() if not name.startswith("HELM_")}
        own = {home: str(self.home / home.lower()) for home in _HOMES}
        return others | own | {"KUBECONFIG": str(self.kubeconfig)}


def installed(objects: list[Body]) -> list[Body]:
    """Return what an installation makes, without the pods of `helm test`."""
    return [one for one in objects if "helm.sh/hook" not in annotations_of(one)]


def annotations_of(one: Body) -> dict[str, str]:
    found: dict[str, str] = one["metadata"].get("annotations", {})
    return found


def key_of(one: Body) -> tuple[str, str, str]:
    metadata = one["metadata"]
    return one["kind"], metadata.get("namespace", ""), metadata["name"]
