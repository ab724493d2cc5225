"""The text that Prometheus scrapes."""

from prometheus_client.parser import text_string_to_metric_families as parse

from functions.metrics import Registry


def test_large_counters_keep_every_digit() -> None:
    metrics = Registry()
    counter = metrics.counter("a_total", "A.")
    counter.add(123_456_789_012)
    counter.add(1)
    assert "a_total 123456789013" in metrics.text()


def test_what_is_not_there_is_not_told_of() -> None:
    metrics = Registry()
    metrics.info("a_info", "A.", lambda: None)
    metrics.info("b_info", "B.", lambda: {"name": 'a "quoted"\n\\name'})
    found = {family.name: family.samples for family in parse(metrics.text())}
    assert not found["a_info"]
    assert found["b_info"][0].labels == {"name": 'a "quoted"\n\\name'}
