"""The errors a user can meet: each is one sentence that says what is wrong, where, and what to do."""

from __future__ import annotations


class LlmrankError(Exception):
    """Base of all errors of ours; its text is one sentence for people."""

    exit_code = 2


class InputError(LlmrankError):
    """Bad input: a file, a line, a flag or an option that cannot be used. Nothing was sent."""

    @classmethod
    def at(cls, path: object, line: int, problem: str) -> InputError:
        """An error in a line of a file, written `FILE:LINE: problem`."""
        return cls(f"{path}:{line}: {problem}")
