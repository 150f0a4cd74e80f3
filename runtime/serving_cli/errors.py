"""What ends a command.

CommandFailed   exit 1, one line
`-- UsageError  exit 2, one line: bad flags, model folder or port
"""

from __future__ import annotations


class CommandFailed(Exception):
    """A command that could not do its work."""

    exit_code = 1


class UsageError(CommandFailed):
    """Something that the user must write differently."""

    exit_code = 2


def first_cause(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return what failed first; the others are its consequences."""
    first = group.exceptions[0]
    return first_cause(first) if isinstance(first, BaseExceptionGroup) else first
