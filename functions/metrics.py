"""Counters, gauges and histograms in the text format of Prometheus, version 0.0.4.

The format is a few lines of text. Importing its client library would take a tenth of the time in
which a function starts, at every start, whether it is scraped or not.
"""

import threading
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
SECONDS = (0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)

Labels = Mapping[str, str]
M = TypeVar("M", bound="Metric")


class Registry:
    """Every metric of a process; many threads may use it at once."""

    def __init__(self) -> None:
        self._metrics: dict[str, Metric] = {}
        self._lock = threading.Lock()

    def counter(self, name: str, help_: str) -> "Counter":
        """Add a number that only grows."""
        return self._add(Counter(name, help_, self._lock))

    def histogram(self, name: str, help_: str, bounds: Sequence[float] = SECONDS) -> "Histogram":
        """Add a distribution of values, counted up to each bound."""
        return self._add(Histogram(name, help_, self._lock, bounds))

    def read(self, name: str, help_: str, read: Callable[[], float], kind: str = "gauge") -> None:
        """Add a number that `read` returns at each scrape; a `counter` if it only grows."""
        self._add(Read(name, help_, self._lock, read, kind))

    def info(self, name: str, help_: str, read: Callable[[], Labels | None]) -> None:
        """Add a constant 1 with the labels that `read` returns; None while there are none."""
        self._add(Info(name, help_, self._lock, read))

    def text(self) -> str:
        """Return all metrics in the text format."""
        return "".join(metric.text() for metric in list(self._metrics.values()))

    def _add(self, metric: M) -> M:
        self._metrics[metric.name] = metric
        return metric


class Metric:
    """A name, a help text, and lines of samples."""

    kind = "untyped"

    def __init__(self, name: str, help_: str, lock: threading.Lock) -> None:
        self.name, self._help, self._lock = name, help_, lock

    def text(self) -> str:
        """Return the metric in the text format."""
        head = f"# HELP {self.name} {self._help}\n# TYPE {self.name} {self.kind}\n"
        return head + "".join(f"{line}\n" for line in self.samples())

    def samples(self) -> list[str]:
        """Return a line for each sample."""
        raise NotImplementedError


class Counter(Metric):
    """A number that only grows, for each set of labels."""

    kind = "counter"

    def __init__(self, name: str, help_: str, lock: threading.Lock) -> None:
        super().__init__(name, help_, lock)
        self._values: dict[str, float] = {}

    def add(self, amount: float = 1, **labels: str) -> None:
        """Increase the number with these labels."""
        key = _labels(labels)
        with self._lock:
            self._values[key] = self._values.get(key, 0) + amount

    def samples(self) -> list[str]:
        """Return a line for each set of labels."""
        with self._lock:
            return [f"{self.name}{key} {_number(value)}" for key, value in self._values.items()]


class Read(Metric):
    """A number that is kept elsewhere."""

    def __init__(
        self, name: str, help_: str, lock: threading.Lock, read: Callable[[], float], kind: str
    ) -> None:
        super().__init__(name, help_, lock)
        self._read, self.kind = read, kind

    def samples(self) -> list[str]:
        """Return the line with the present number."""
        return [f"{self.name} {_number(self._read())}"]


class Info(Metric):
    """A constant 1 whose labels hold the information."""

    kind = "gauge"

    def __init__(
        self, name: str, help_: str, lock: threading.Lock, read: Callable[[], Labels | None]
    ) -> None:
        super().__init__(name, help_, lock)
        self._read = read

    def samples(self) -> list[str]:
        """Return the line, or nothing while there are no labels."""
        labels = self._read()
        return [] if labels is None else [f"{self.name}{_labels(labels)} 1"]


class Histogram(Metric):
    """How many values were at most each bound, and the sum of all values."""

    kind = "histogram"

    def __init__(
        self, name: str, help_: str, lock: threading.Lock, bounds: Sequence[float]
    ) -> None:
        super().__init__(name, help_, lock)
        self._bounds = tuple(bounds)
        self._counts = [0] * (len(self._bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        """Add one value."""
        with self._lock:
            self._counts[bisect_left(self._bounds, value)] += 1
            self._sum += value

    def samples(self) -> list[str]:
        """Return the cumulative buckets, the sum and the count."""
        with self._lock:
            counts, total = list(self._counts), self._sum
        lines, below = [], 0
        for bound, count in zip((*self._bounds, float("inf")), counts, strict=True):
            below += count
            shown = "+Inf" if bound == float("inf") else f"{bound:g}"
            lines.append(f'{self.name}_bucket{{le="{shown}"}} {below}')
        return [*lines, f"{self.name}_sum {_number(total)}", f"{self.name}_count {below}"]


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(float(value))


def _labels(labels: Labels) -> str:
    def escaped(value: str) -> str:
        return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")

    inside = ",".join(f'{name}="{escaped(value)}"' for name, value in sorted(labels.items()))
    return f"{{{inside}}}" if inside else ""
