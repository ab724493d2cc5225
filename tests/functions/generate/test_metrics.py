"""What is measured of generations."""

from prometheus_client.parser import text_string_to_metric_families as parse

from tests.functions.conftest import Generate


def test_generations_are_measured(generate: Generate) -> None:
    for _ in range(2):
        assert generate.post({"prompt": "Hi", "max_new_tokens": 4}).status_code == 200
    families = {f.name: f for f in parse(generate.client.get("/metrics").text)}

    def value(name: str, suffix: str = "") -> float:
        (found,) = [s.value for s in families[name].samples if s.name == name + suffix]
        return float(found)

    assert value("pibloom_prompt_tokens", "_total") == 4
    assert value("pibloom_generated_tokens", "_total") == 8
    for name in ("queue_wait_seconds", "time_to_first_token_seconds", "tokens_per_second"):
        assert value(f"pibloom_{name}", "_count") == 2
    (counted,) = families["pibloom_generations"].samples
    assert (counted.labels, counted.value) == ({"outcome": "length"}, 2)
    assert families["pibloom_steps"].type == "counter"
    assert value("pibloom_steps", "_total") <= value("pibloom_step_sequences", "_total")
    assert value("pibloom_start_seconds") > 0
    assert value("pibloom_running") == value("pibloom_waiting") == 0
