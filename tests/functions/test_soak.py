"""The real server, engine and demo model under many clients for some seconds.

`python -m bench.http` does the same for minutes, and says what it costs.
"""

import asyncio

from bench.http import Server, overload, soak
from model.loader import default_model
from model.store import baked_copy


def test_many_streams_at_once_all_end_well_and_get_their_share() -> None:
    with Server(baked_copy(default_model(), 8), max_batch=8, max_queue=16) as server:
        found = asyncio.run(soak(server, streams=24, seconds=5, tokens=60))
        assert found["errors"] == 0
        assert found["replies"] > 24
        assert found["slowest share of the mean"] > 0.5
        before = server.descriptors
        asyncio.run(soak(server, streams=24, seconds=1, tokens=60))
        assert server.descriptors <= before


def test_more_clients_than_places_hurt_nobody_who_has_one() -> None:
    with Server(baked_copy(default_model(), 8), max_batch=2, max_queue=2) as server:
        found = asyncio.run(overload(server, places=4, seconds=2, tokens=60))
        assert found["errors"] == 0
        assert found["refused"] > 36
        assert found["rate kept"] > 0.5
