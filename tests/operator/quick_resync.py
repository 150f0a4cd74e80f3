"""The operator with a resync every few seconds instead of minutes; the rest is the command's."""

from __future__ import annotations

import dataclasses
import sys

from serving_cli import operator
from serving_cli.main import run
from serving_operator.settings import Settings

_settings_of = operator.settings_of


def _quick(resync_s: float) -> None:
    def settings_of(given: dict[str, object], namespace: str) -> Settings:
        return dataclasses.replace(_settings_of(given, namespace), resync_s=resync_s)

    operator.settings_of = settings_of


if __name__ == "__main__":
    _quick(float(sys.argv[1]))
    sys.exit(run(sys.argv[2:]))
