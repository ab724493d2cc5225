"""The metrics of generation, for Prometheus."""

from functools import partial

from functions.metrics import Registry
from functions.service import Service
from model.load import LoadedModel
from model.serving.events import Done, Failed
from model.serving.scheduler import Observer

# A Raspberry Pi writes a few tokens a second, a server a hundred and more.
RATES = (0.5, 1, 2, 3, 5, 7.5, 10, 15, 20, 30, 50, 75, 100, 150, 200, 300)


class GenerationMetrics(Observer):
    """Counts generations, however they end, and reads what the scheduler does now."""

    def __init__(self, metrics: Registry, service: Service[LoadedModel]) -> None:
        self._service = service
        self._generations = metrics.counter(
            "pibloom_generations_total",
            "By outcome: stop, length, deadline, cancelled, draining, internal.",
        )
        self._prompt = metrics.counter("pibloom_prompt_tokens_total", "Tokens of prompts.")
        self._cached = metrics.counter(
            "pibloom_cached_tokens_total",
            "Tokens of prompts that the prefix cache knew from requests with the same key.",
        )
        self._written = metrics.counter("pibloom_generated_tokens_total", "Tokens written.")
        self._wait = metrics.histogram(
            "pibloom_queue_wait_seconds", "From submission to a place in the batch."
        )
        self._first = metrics.histogram(
            "pibloom_time_to_first_token_seconds",
            "From submission to the first token.",
        )
        self._rate = metrics.histogram(
            "pibloom_tokens_per_second", "How fast a generation was written.", RATES
        )
        for name, help_, stat, kind in (
            ("waiting", "Generations that wait for a place.", "waiting", "gauge"),
            ("running", "Generations that run: the size of the batch.", "running", "gauge"),
            ("steps_total", "Steps of the engine.", "steps", "counter"),
            (
                "step_sequences_total",
                "Sequences in those steps; over steps_total, the mean size of a batch.",
                "step_sequences",
                "counter",
            ),
            ("kv_bytes", "Keys and values in use.", "kv_used", "gauge"),
            ("kv_cached_bytes", "Keys and values kept for the next turn.", "kv_cached", "gauge"),
        ):
            metrics.read(f"pibloom_{name}", help_, partial(self._stat, stat), kind)
        metrics.info(
            "pibloom_model_info", "A constant 1, with the model that answers.", self._model
        )
        # A cold start has two phases in a process: the interpreter and imports, then the model.
        metrics.read(
            "pibloom_start_seconds",
            "From the start of the process to the start of loading.",
            lambda: service.start_seconds,
        )
        metrics.read(
            "pibloom_load_seconds",
            "From the start of loading to the first token, which makes it ready.",
            lambda: service.load_seconds,
        )

    def _model(self) -> dict[str, str] | None:
        model = self._service.peek()
        if model is None:
            return None
        info = model.info
        return {
            "name": info.name,
            "engine": info.engine,
            "bits": {"float32": "32", "bfloat16": "16"}.get(info.dtype, info.dtype.split()[0]),
            "max_context": str(info.max_context),
            "vocab_size": str(info.vocab_size),
        }

    def started(self, waited: float) -> None:
        """Note how long a generation waited."""
        self._wait.observe(waited)

    def first_token(self, seconds: float) -> None:
        """Note when a generation's first token came."""
        self._first.observe(seconds)

    def ended(self, last: Done | Failed, prompt: int, cached: int, written: int) -> None:
        """Count a generation, and what it took."""
        outcome = last.finish_reason if isinstance(last, Done) else last.kind
        self._generations.add(outcome=outcome)
        self._prompt.add(prompt)
        self._cached.add(cached)
        self._written.add(written)
        if isinstance(last, Done) and (rate := last.tokens_per_second):
            self._rate.observe(rate)

    def _stat(self, name: str) -> float:
        model = self._service.peek()
        return 0.0 if model is None else model.scheduler.stats()[name]
