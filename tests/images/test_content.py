"""What the Dockerfile says by itself, and what the archives' key is made of; needs no root."""

from __future__ import annotations

import re
import tomllib

from tests.images.content import ROOT, content_key, project_version

_DOCKERFILE = (ROOT / "Dockerfile").read_text()
_IGNORE = (ROOT / ".dockerignore").read_text().splitlines()


def test_the_version_of_a_plain_docker_build_is_that_of_the_project() -> None:
    assert re.findall(r"^ARG VERSION=(\S+)$", _DOCKERFILE, re.MULTILINE) == [project_version()]


def test_every_package_of_the_wheel_is_sent_to_the_build() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert {f"!{package}" for package in packages} <= set(_IGNORE)


def test_nothing_is_sent_to_the_build_that_is_not_listed() -> None:
    assert next(line for line in _IGNORE if not line.startswith("#")) == "*"


def test_every_target_has_the_labels_and_runs_as_the_same_user() -> None:
    stages = re.split(r"^FROM ", _DOCKERFILE, flags=re.MULTILINE)
    targets = [stage for stage in stages if "ENTRYPOINT" in stage]
    assert len(targets) == 4
    assert all("org.opencontainers.image.licenses" in stage for stage in targets)
    assert _DOCKERFILE.count("USER 1000:1000") == 2  # engine-npu, and what the others stand on


def test_the_key_is_steady_and_follows_the_base_and_the_arguments() -> None:
    key = content_key("base", {"VERSION": "1"})
    assert key == content_key("base", {"VERSION": "1"})
    assert key != content_key("other base", {"VERSION": "1"})
    assert key != content_key("base", {"VERSION": "2"})
