"""The real server, engine and demo model under many clients for some seconds.

`python -m bench.http` does the same for minutes, and says what it costs.
"""

import asyncio

import httpx
from prometheus_client.parser import text_string_to_metric_families as parse

from bench.http import Server, overload, soak
from model.baked.cache import baked_copy
from model.names import default_model
from tests.functions.servers import wait_until


def test_many_streams_at_once_all_end_well_and_get_their_share() -> None:
    with Server(baked_copy(default_model(), 8), max_batch=8, max_queue=16) as server:
        idle = server.descriptors
        found = asyncio.run(soak(server, streams=24, seconds=5, tokens=60))
        assert found["errors"] == 0
        assert found["replies"] > 24
        assert found["slowest share of the mean"] > 0.5
        # The server closes a connection a moment after its client has.
        wait_until(lambda: server.descriptors <= idle)


def test_more_clients_than_places_hurt_nobody_who_has_one() -> None:
    with Server(baked_copy(default_model(), 8), max_batch=2, max_queue=2) as server:
        found = asyncio.run(overload(server, places=4, seconds=2, tokens=60))
        assert found["errors"] == 0
        assert found["refused"] > 36
        # The steps stay full; how many there are in a second is for the benchmark to say.
        text = httpx.get(f"http://127.0.0.1:{server.port}/metrics").text
        counted = {sample.name: sample.value for each in parse(text) for sample in each.samples}
        assert counted["pibloom_step_sequences_total"] > 1.9 * counted["pibloom_steps_total"]
