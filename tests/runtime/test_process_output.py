from __future__ import annotations

import asyncio
import sys

from serving_runtime.process_output import lines


async def test_line_beyond_any_limit_does_not_stop_the_child() -> None:
    code = "import sys; sys.stderr.write('x' * 300_000 + '\\nlast'); sys.exit(3)"
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, stderr=asyncio.subprocess.PIPE
    )
    assert child.stderr is not None
    read = [line async for line in lines(child.stderr)]
    assert await child.wait() == 3
    assert read[-1] == "last"
    assert sum(len(line) for line in read[:-1]) == 300_000
