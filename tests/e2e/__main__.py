"""`make e2e`: is this machine able to, then what takes minutes, then the tests."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Final

import pytest
from tests.cluster.binary import binaries
from tests.cluster.errors import ClusterUnavailable
from tests.cluster.helm import helm
from tests.cluster.nodes import missing_for_nodes
from tests.cluster.tenancy import Tenancy
from tests.images.build import TARGETS, build, missing_for_images

_HERE: Final = Path(__file__).parent


def main(chosen: list[str]) -> int:
    """Run the tests that were chosen, or all; 2 if this machine cannot."""
    if missing := missing_for_nodes() or missing_for_images():
        print(f"e2e: {missing}", file=sys.stderr)
        return 2
    try:
        binaries(os.environ)
        helm(os.environ)
        build(TARGETS)
        # Waiting for another's cluster is to count against no test's time.
        Tenancy.begin().end()
    except ClusterUnavailable as error:
        print(f"e2e: {error}", file=sys.stderr)
        return 1
    return pytest.main(["-q", "--durations=15", *(chosen or [str(_HERE)])])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
