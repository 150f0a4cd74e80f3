"""What may be imported where, beyond what the import contracts in pyproject say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCE_ROOTS = ("operator", "router", "runtime")

BLOCKED = {
    "serving_contract": ["torch", "transformers", "kopf", "kubernetes", "fastapi", "aiohttp"],
    "serving_http": ["torch", "transformers", "kopf", "kubernetes"],
    "serving_operator": ["torch", "transformers", "fastapi", "starlette", "uvicorn"],
    "serving_router": ["torch", "transformers", "kopf", "kubernetes"],
    "serving_runtime": ["torch", "kopf", "kubernetes", "serving_router"],
    "serving_cli": ["torch", "transformers", "kopf", "kubernetes"],
}
ENDS_IN_TORCH = ("device", "model", "parallel", "rank", "sampler")
NEEDS_TORCH = {f"serving_runtime.{module}" for module in ENDS_IN_TORCH}

IMPORT_ALL = """
import importlib, pkgutil, sys
package, blocked, left_out = sys.argv[1], sys.argv[2].split(","), sys.argv[3].split(",")
sys.modules.update(dict.fromkeys(blocked))
root = importlib.import_module(package)
for module in pkgutil.walk_packages(root.__path__, package + "."):
    if not any((module.name + ".").startswith(name + ".") for name in left_out):
        importlib.import_module(module.name)
"""

PLAN_WITHOUT = """
import sys
sys.modules.update(dict.fromkeys(sys.argv[1].split(",")))
from serving_cli.main import run
assert run(["plan", "-f", "/none"]) == 2
"""


@pytest.mark.parametrize("root", SOURCE_ROOTS)
def test_source_root_holds_packages_only(root: str) -> None:
    """A package called `operator` at the root would replace the standard library's module."""
    modules = list((ROOT / root).glob("*.py")) + list((ROOT / root).glob("*.so"))
    assert modules == []


def test_tests_are_no_packages() -> None:
    assert list((ROOT / "tests").rglob("__init__.py")) == []


@pytest.mark.parametrize("package", BLOCKED)
def test_package_imports_without_what_it_must_not_need(package: str) -> None:
    command = [sys.executable, "-P", "-c", IMPORT_ALL, package]
    blocked, left_out = ",".join(BLOCKED[package]), ",".join(NEEDS_TORCH)
    done = subprocess.run(
        [*command, blocked, left_out], capture_output=True, text=True, check=False, cwd="/"
    )
    assert done.returncode == 0, done.stderr


def test_plan_needs_neither_server_nor_engine() -> None:
    """The operator's image holds neither FastAPI nor torch, and its `plan` must run there."""
    command = [sys.executable, "-P", "-c", PLAN_WITHOUT, "fastapi,aiohttp,torch,transformers"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/")
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.startswith("ascend-serving plan: /none cannot be read")


def test_standard_library_operator_is_the_standard_librarys_from_the_repository_root() -> None:
    code = "import operator; print(operator.__file__)"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    assert not Path(done.stdout.strip()).is_relative_to(ROOT / "operator")
