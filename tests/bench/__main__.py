"""`make bench`: every measurement in turn; `make bench ONLY=engine,router,idle` for some.

Figures are ratios of contenders that took turns within one run; the machine is printed with them.
"""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path

ALL = ("scheduler", "engine", "router", "idle", "operator")


def main() -> int:
    """Run the measurements that were asked for."""
    chosen = sys.argv[1].split(",") if len(sys.argv) > 1 and sys.argv[1] else list(ALL)
    if unknown := [name for name in chosen if name not in ALL]:
        print(f"no measurement is called {', '.join(unknown)}; there are {', '.join(ALL)}")
        return 2
    print(f"# machine: {machine()}")
    for name in chosen:
        print(f"\n## {name}", flush=True)
        importlib.import_module(f"tests.bench.{name}").run()
    return 0


def machine() -> str:
    """Return what figures depend on: processor, cores, the flags that matter, Python."""
    info = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    model = next((line for line in info.splitlines() if line.startswith("model name")), ": ?")
    flags = [flag for flag in ("avx2", "avx512_bf16", "amx_bf16") if f" {flag}" in info]
    name = model.partition(":")[2].strip()
    version = ".".join(map(str, sys.version_info[:3]))
    return f"{name}, {len(os.sched_getaffinity(0))} cores, {' '.join(flags)}, Python {version}"


if __name__ == "__main__":
    sys.exit(main())
