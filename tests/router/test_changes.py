from __future__ import annotations

from dataclasses import replace

import pytest

from serving_router.changes import describe
from serving_router.replica import Replica


def replica(number: int, *, uid: str = "a") -> Replica:
    return Replica(url=f"http://10.0.0.{number}", pod=f"m-{number}", uid=uid)


LOADING = replace(replica(0), ready=False, serving=False)
LEAVING = replace(replica(0), ready=False, terminating=True)
LEFT = replace(LEAVING, serving=False)

CHANGES: dict[str, tuple[list[Replica], list[Replica], str | None]] = {
    "nothing": ([replica(0)], [replica(0)], None),
    "added": ([], [replica(0)], "m-0 added (ready); 1 of 1 ready"),
    "added while it loads": ([], [LOADING], "m-0 added (not ready); 0 of 1 ready"),
    "removed": ([replica(0), replica(1)], [replica(1)], "m-0 removed; 1 of 1 ready"),
    "ready": ([LOADING], [replica(0)], "m-0 ready; 1 of 1 ready"),
    "not ready": ([replica(0)], [LOADING], "m-0 not ready; 0 of 1 ready"),
    "leaving": ([replica(0)], [LEAVING], "m-0 terminating; 0 of 1 ready"),
    "left": (
        [replica(0)],
        [LEFT],
        "m-0 terminating, not serving; 0 of 1 ready",
    ),
    "another pod of the same name": (
        [replica(0)],
        [replica(0, uid="b")],
        "m-0 removed, m-0 added (ready); 1 of 1 ready",
    ),
}


@pytest.mark.parametrize(("before", "after", "line"), CHANGES.values(), ids=CHANGES.keys())
def test_change_is_one_line(before: list[Replica], after: list[Replica], line: str | None) -> None:
    assert describe(before, after) == line


def test_many_changes_are_counted() -> None:
    line = describe([], [replica(number) for number in range(100)])
    assert line is not None
    assert line.endswith("m-15 added (ready), 84 other changes; 100 of 100 ready")
