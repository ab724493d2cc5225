"""JSON of every kind, for tests that send what no client would."""

import random
from typing import Any


def random_json(chance: random.Random, names: list[str], depth: int = 0) -> Any:
    """A value of any kind; objects have known names and others."""
    kind = chance.randrange(9 if depth < 3 else 6)
    if kind < 3:
        return chance.choice([None, True, False, 0, 1, -1, 3, 10**9, 2**70, 0.5, -0.1, 1e300])
    if kind < 6:
        return chance.choice(
            ["", "a", "Hi there", "x" * 70, "user", "text", "你好", "\u0000", "fake"]
        )
    if kind == 6:
        return [random_json(chance, names, depth + 1) for _ in range(chance.randrange(4))]
    return {
        chance.choice([*names, "role", "content", "other"]): random_json(chance, names, depth + 1)
        for _ in range(chance.randrange(5))
    }
