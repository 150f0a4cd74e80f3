"""What the operator adds to a ServingDeployment, from flags of `operator` and `plan`."""

from __future__ import annotations

from dataclasses import replace
from importlib.metadata import version

from serving_cli.flags import Given
from serving_operator.settings import Defaults, Images


def defaults_of(given: Given) -> Defaults:
    """Return the images of this version, or those that were named."""
    images = Images.of_version(version("ascend-serving"))
    named = {
        field: str(given[flag])
        for flag, field in (
            ("engine_image", "engine"),
            ("engine_cpu_image", "engine_cpu"),
            ("router_image", "router"),
        )
        if flag in given
    }
    return Defaults(
        images=replace(images, **named), network_policy=bool(given.get("network_policy", False))
    )
