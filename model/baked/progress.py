"""How far a bake has come."""

from collections.abc import Callable

BakeProgress = Callable[[str, int, int], None]
"""Called with the tensor that is written next, the bytes that are done, and the bytes in all."""


def no_progress(tensor: str, done: int, total: int) -> None:
    """Show nothing."""
