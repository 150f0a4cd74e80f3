"""The images as they are archived: what they hold, and that they run as Kubernetes runs them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from tests.cluster.image_archive import Archive
from tests.images import stand_in
from tests.images.archive import VERSION_LABEL, Contents, compressed_bytes, retag
from tests.images.build import NPU, TARGETS, build, image_name
from tests.images.content import project_version
from tests.images.installed import PROJECT, installed, locked_versions, needed
from tests.images.unpacked import LENT, Unpacked

_ALL: Final = (*TARGETS, NPU)
_EXTRAS: Final = {
    "operator": "operator",
    "router": "router",
    "engine-cpu": "runtime",
    NPU: "runtime",
}
_OURS: Final = "opt/ascend-serving/lib/python3.11/site-packages"
_OF_THE_BASE: Final = "usr/local/lib/python3.11/dist-packages"
_LIMIT_BYTES: Final = 180 * 10**6
_TORCH: Final = {"torch", "torch-npu", "triton"}
_FRAMEWORKS: Final = {"fastapi", "starlette", "uvicorn"}

# Starts the program and asks the image's own health check until it is content.
_UNTIL_HEALTHY: Final = """
"$@" >/tmp/log 2>&1 & child=$!
for attempt in $(seq 300); do
  if python -c "$HEALTH" 2>/dev/null; then kill $child; wait $child; exit 0; fi
  kill -0 $child || break
  sleep 0.2
done
cat /tmp/log; exit 1
"""


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Unpacked]]:
    """The image of every target, unpacked."""
    folder = tmp_path_factory.mktemp("images")
    yield {target: Unpacked.of(archive, folder / target) for target, archive in build(_ALL).items()}
    shutil.rmtree(folder)  # 5 GB


@pytest.fixture(params=_ALL)
def target(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def image(images: dict[str, Unpacked], target: str) -> Unpacked:
    return images[target]


def test_program_tells_its_version_on_a_read_only_root(image: Unpacked) -> None:
    done = image.run("ascend-serving", "--version")
    assert project_version() in done.stdout, done.stderr


def test_entrypoint_takes_the_flags_of_its_own_command(image: Unpacked, target: str) -> None:
    done = image.run_entrypoint("--help")
    command = {"operator": "operator", "router": "router"}.get(target, "replica")
    assert f"usage: ascend-serving {command}" in done.stdout, done.stderr


def test_program_is_nobody_of_note_and_can_write_to_tmp_alone(image: Unpacked) -> None:
    done = image.run(
        "sh",
        "-c",
        "id -u; id -g; id -un; cd; pwd; touch /tmp/x && echo yes; touch /opt/x || echo no",
    )
    user, group, name, home, *writes = done.stdout.split()
    assert (user, group, home, writes) == ("1000", "1000", "/tmp", ["yes", "no"])
    assert name  # torch asks for the user's name


def test_labels_say_what_the_image_is(image: Unpacked, target: str) -> None:
    labels = image.contents.labels
    assert labels["org.opencontainers.image.title"] == f"ascend-serving {target}"
    assert labels[VERSION_LABEL] == project_version()
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert image.contents.name == image_name(target)


def test_nothing_of_the_building_machine_stays(image: Unpacked) -> None:
    home = {"HOME", "PATH", "LANG", "PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED"}
    assert set(image.environment) == home
    left = ("etc/pip.conf", "build", "opt/uv", "opt/backend", "root/.cache", "root/.config")
    assert not [path for path in left if (image.root / path).exists()]
    assert not list((image.root / "tmp").iterdir())


def test_packages_are_exactly_what_the_extra_needs(image: Unpacked, target: str) -> None:
    ours = installed([image.root / _OURS])
    all_of_them = installed([image.root / _OURS, image.root / _OF_THE_BASE])
    wanted = needed(all_of_them, _EXTRAS[target])
    assert not {name: faults for name, faults in wanted.items() if faults}
    assert set(ours) == set(wanted) - (_TORCH if target == NPU else set())


def test_packages_are_those_of_the_lock(image: Unpacked) -> None:
    ours = installed([image.root / _OURS])
    found = {(name, package.version) for name, package in ours.items() if name != PROJECT}
    assert found <= locked_versions()


@pytest.mark.parametrize(
    ("small", "unwanted"),
    [
        pytest.param("operator", _TORCH | _FRAMEWORKS, id="operator"),
        pytest.param("router", _TORCH, id="router"),
    ],
)
def test_small_images_lack_what_makes_images_large(
    images: dict[str, Unpacked], small: str, unwanted: set[str]
) -> None:
    assert not unwanted & set(installed([images[small].root / _OURS]))
    for name in unwanted:
        assert images[small].run("python", "-c", f"import {name.replace('-', '_')}").returncode != 0


@pytest.mark.parametrize("small", ["operator", "router"])
def test_small_images_are_small(small: str) -> None:
    assert compressed_bytes(build([small])[small]) <= _LIMIT_BYTES


def test_every_module_has_its_byte_code(image: Unpacked) -> None:
    sources = list((image.root / _OURS).rglob("*.py"))
    lacking = [
        source
        for source in sources
        if not (source.parent / "__pycache__" / f"{source.stem}.cpython-311.pyc").exists()
    ]
    assert len(lacking) < len(sources) / 100  # some packages ship templates that do not compile
    assert "serving_cli" not in {source.parent.name for source in lacking}


def test_router_passes_its_health_check(images: dict[str, Unpacked]) -> None:
    router = images["router"]
    done = _until_healthy(router, "router", "--replicas", "http://127.0.0.1:1")
    assert done == ""


def test_engine_passes_its_health_check(images: dict[str, Unpacked], weights: Path) -> None:
    done = _until_healthy(images["engine-cpu"], "replica", f"{LENT}/tiny", lent=weights)
    assert done == ""


def test_engine_on_npus_leaves_the_torch_of_its_base_alone(images: dict[str, Unpacked]) -> None:
    image = images[NPU]
    assert not _TORCH & set(installed([image.root / _OURS]))
    code = "import torch, torch_npu; print(torch.__file__, torch_npu.__file__, torch.stand_in)"
    done = image.run("python", "-c", code)
    assert done.stdout.split() == [
        f"/{_OF_THE_BASE}/torch/__init__.py",
        f"/{_OF_THE_BASE}/torch_npu/__init__.py",
        "True",
    ], done.stderr


def test_engine_on_npus_sets_cann_up_by_itself(images: dict[str, Unpacked]) -> None:
    assert stand_in.SET_UP in images[NPU].run("ascend-serving", "--version").stderr


def test_archives_are_found_again_without_a_build(monkeypatch: pytest.MonkeyPatch) -> None:
    before = build(_ALL)
    monkeypatch.setenv("PATH", "/nowhere")
    assert build(_ALL) == before


def test_another_tag_is_another_image_of_the_same_layers() -> None:
    archive = build(["router"])["router"]
    other = Archive.read(retag(archive, "0.2.0-next"))
    assert other.names == (image_name("router", "0.2.0-next"),)
    assert other.identity != Archive.read(archive).identity
    assert other.path.stat().st_size < 100_000
    assert Contents.read(archive).labels[VERSION_LABEL] == project_version()


def _until_healthy(image: Unpacked, *command: str, lent: Path | None = None) -> str:
    """Return what the program said if it did not become healthy, else nothing."""
    _, python, flag, code = image.contents.config["config"]["Healthcheck"]["Test"]
    assert (python, flag) == ("python", "-c")
    script = ["env", f"HEALTH={code}", "sh", "-c", _UNTIL_HEALTHY, "until-healthy"]
    done = image.run(*script, "ascend-serving", *command, lent=lent)
    return "" if done.returncode == 0 else done.stdout + done.stderr
