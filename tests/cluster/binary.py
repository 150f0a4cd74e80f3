"""The binaries of the test cluster: built once from the pinned module, kept outside the tree.

The one binary holds every component. `KUBEBUILDER_ASSETS` replaces it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.cluster.errors import ClusterUnavailable
from tests.cluster.go_program import GoProgram

VERSION: Final = "v1.34.2"
ASSETS: Final = "KUBEBUILDER_ASSETS"
_STAMP: Final = "k8s.io/component-base/version"
KUBE: Final = GoProgram(
    name="kube",
    folder=Path(__file__).parent,
    title=f"the test cluster's binary (Kubernetes {VERSION}, about 7 minutes, once)",
    # Unstamped components call themselves v0.0.0-master, and what checks the version refuses that.
    linker_flags=(
        f"-s -w -X {_STAMP}.gitVersion={VERSION} -X {_STAMP}.gitMajor=1 -X {_STAMP}.gitMinor=34"
        f" -X {_STAMP}.gitTreeState=clean"
    ),
)


@dataclass(frozen=True, slots=True)
class Binaries:
    """Where each component is: one binary that is told its part, or a folder with one file each."""

    one: Path | None = None
    folder: Path | None = None

    def command(self, component: str) -> list[str]:
        """Return how the command line of a component begins."""
        if self.one is not None:
            return [str(self.one), component]
        assert self.folder is not None
        return [str(self.folder / component)]

    def has(self, component: str) -> bool:
        """Return whether the component can be started."""
        return self.one is not None or Path(self.command(component)[0]).exists()


def binaries(environment: Mapping[str, str]) -> Binaries:
    """Return the binaries, building them if need be.

    Raises:
        ClusterUnavailable: if they can neither be found nor built.
    """
    if assets := environment.get(ASSETS):
        return _assets(Path(assets))
    return Binaries(one=KUBE.built(cache_folder(environment)))


def _assets(folder: Path) -> Binaries:
    found = Binaries(folder=folder)
    needed = ("etcd", "kube-apiserver", "kubectl")
    if missing := [component for component in needed if not found.has(component)]:
        raise ClusterUnavailable(
            f"{ASSETS}={folder} lacks {', '.join(missing)}; "
            "name a folder that holds them, or unset it to have them built"
        )
    return found


def cache_folder(environment: Mapping[str, str]) -> Path:
    """Return the folder of everything that the test cluster keeps between runs."""
    home = environment.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "ascend-serving" / "cluster"
