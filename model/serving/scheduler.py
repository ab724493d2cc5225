"""Continuous batching: many generations, one engine, one thread.

Sequences join and leave between two steps of the engine. Each step takes one token of every
sequence that is writing and one chunk of one prompt that is still being read, so that a long prompt
does not stall the others (Yu et al. 2022, Orca; Agrawal et al. 2023, Sarathi).
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from model.engine.contract import Engine, EngineSequence, Logits, OutOfMemory
from model.limits import DEFAULT_LIMITS, Limits
from model.serving.admission import Admission, Reservation
from model.serving.events import Done, Failed, Generation
from model.serving.request import GenerationRequest
from model.serving.running import Running
from model.serving.watch import Watch
from model.text.tokenizer import NEVER_DRAWN, Tokenizer

log = logging.getLogger(__name__)

_SHUTTING_DOWN = Failed("draining", "the server is shutting down")
_ENGINE_FAILED = Failed("internal", "the engine failed")


class Observer:
    """Hears of generations as they go, from the scheduler's thread; this one does nothing."""

    def started(self, waited: float) -> None:
        """One got a place, `waited` seconds after its submission."""

    def first_token(self, seconds: float) -> None:
        """One wrote its first token, `seconds` after its submission."""

    def ended(self, last: Done | Failed, prompt: int, cached: int, written: int) -> None:
        """One ended, with so many tokens.

        `prompt` of its prompt were read, `cached` of them known from the same tenant before, and
        `written` are its reply's.
        """


class Scheduler:
    """Runs generations on an engine; its thread starts with `start`, after any fork.

    Which thread owns what:

    - any thread: `submit`, `submit_all`, `reserve`, `check_length`, `stats`, `idle`, `healthy` and
      `close`. They share state with the scheduler's thread through `_admission`, which has its own
      lock, through `_watch`, and through `Generation`, which is handed over by a queue.
    - the scheduler's thread alone: `_batch` and all that it holds, and calls of the engine (but
      for `kv_bytes` and `progress`, which any thread may read). A test enforces it.
    - written by the scheduler's thread, read by any: `_steps` and `_step_sequences`.
    - written once, before `start`: the others.
    """

    def __init__(
        self,
        engine: Engine[Any],
        tokenizer: Tokenizer,
        limits: Limits = DEFAULT_LIMITS,
        *,
        prefill_chunk: int = 64,
    ) -> None:
        """Take generations within `limits`; a step reads at most `prefill_chunk` of a prompt."""
        memory = engine.kv_tokens_total
        self.max_context = min(engine.config.max_context, memory or engine.config.max_context)
        self.limits = limits
        self.observer = Observer()
        self._engine, self._tokenizer, self._chunk = engine, tokenizer, prefill_chunk
        self._admission = Admission(limits, self.max_context)
        self._never_drawn = NEVER_DRAWN.difference(engine.config.eos_token_ids)
        self._batch: list[Running] = []
        self._steps = self._step_sequences = 0  # of the engine, and sequences in them
        self._watch = Watch(lambda: engine.progress)
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    def start(self) -> None:
        """Start the scheduler's thread."""
        self._thread.start()

    def submit(self, request: GenerationRequest) -> Generation:
        """Queue a request, without waiting.

        Raises `QueueFull`, `PromptTooLong` or `ShuttingDown`.
        """
        return self.submit_all([request])[0]

    def submit_all(self, requests: Sequence[GenerationRequest]) -> list[Generation]:
        """Queue requests that belong together, all or none; their events share one queue."""
        background = any(request.background for request in requests)
        with self.reserve(len(requests), background=background) as reservation:
            return reservation.fill(requests)

    def reserve(self, count: int = 1, *, background: bool = False) -> Reservation:
        """Reserve room for requests that are yet to be made; see `Admission.reserve`."""
        return self._admission.reserve(count, background=background)

    def check_length(self, tokens: int) -> None:
        """Raise `PromptTooLong` for a prompt of so many tokens that no reply would fit."""
        self._admission.check_length(tokens)

    @property
    def idle(self) -> bool:
        """Whether nothing runs, waits or has room reserved."""
        return self._admission.idle

    @property
    def healthy(self) -> bool:
        """Whether the scheduler's thread still runs, and none of its steps has hung."""
        return self._thread.is_alive() and not self._watch.stuck

    def stats(self) -> dict[str, float]:
        """Return what there is to watch: generations, steps, and bytes of keys and values."""
        waiting, running = self._admission.counts()
        used, cached = self._engine.kv_bytes
        return {
            "waiting": waiting,
            "running": running,
            "steps": self._steps,
            "step_sequences": self._step_sequences,
            "kv_used": used,
            "kv_cached": cached,
        }

    def close(self, grace: float = 0.0) -> None:
        """Take nothing new, give the others `grace` seconds, then end them as "draining"."""
        self._admission.drain()
        if not self._thread.ident:  # never started, so nothing else will ever end them
            self._refuse(dict.fromkeys(self._admission.waiting(), _SHUTTING_DOWN))
            self._engine.close()
            return
        self._thread.join(grace)
        self._admission.end()
        self._thread.join(10)
        if self._thread.is_alive():  # the engine hangs: its clients must still hear of the end
            self._send_last_to_all(_SHUTTING_DOWN)

    # From here on, only the scheduler's thread calls the methods.

    def _run(self) -> None:
        try:
            while self._admission.wait_for_work():
                if self._admission.ending:
                    self._end_all()
                    continue
                self._drop_ended()
                self._admit()
                self._watch.begin()
                self._step()
                self._watch.end()
        except BaseException:
            log.exception("the scheduler's thread ended")
            self._admission.drain()  # nothing new is taken; `healthy` is false from now on
            self._send_last_to_all(_ENGINE_FAILED)
        finally:
            self._engine.close()

    def _end_all(self) -> None:
        for running in list(self._batch):
            self._leave(running, _SHUTTING_DOWN)
        self._refuse(dict.fromkeys(self._admission.waiting(), _SHUTTING_DOWN))

    def _drop_ended(self) -> None:
        """Take out what was cancelled or is past its deadline, waiting or running."""
        now, waiting = time.monotonic(), self._admission.waiting()
        here = [*waiting, *(running.generation for running in self._batch)]
        if any(not generation.request.background for generation in here):
            for generation in here:
                if generation.request.background:
                    generation.cancel()
        for running in list(self._batch):
            if failure := _failure(running.generation, now):
                self._leave(running, failure)
        if refused := {each: failure for each in waiting if (failure := _failure(each, now))}:
            self._refuse(refused)
            self._admission.send_positions()

    def _admit(self) -> None:
        """Give places in the batch to those whose turn it is, while there is memory for them."""
        admitted = False
        while not self._must_wait() and (generation := self._admission.next()):
            try:
                running = self._open(generation)
            except OutOfMemory:
                if self._batch:
                    break  # the first in line waits until others have ended; no other overtakes it
                self._refuse({generation: _no_memory(generation)})
            except Exception:
                log.exception("a generation could not begin")
                self._refuse({generation: _ENGINE_FAILED})
            else:
                self._batch.append(running)
                self._admission.begin(generation, running.started)
                self._observe(self.observer.started, running.started - generation.submitted)
            admitted = True
        if admitted:
            self._admission.send_positions()

    def _must_wait(self) -> bool:
        """Whether a prompt is being read that the next one waits for.

        One prompt is read at a time, since the next one may begin like it and then find that part
        in the cache. A prompt whose log-probabilities are asked for is read token by token, which
        takes long, so others do not wait for it.
        """
        return any(
            running.reads_prompt and not running.generation.request.prompt_logprobs
            for running in self._batch
        )

    def _open(self, generation: Generation) -> Running:
        """Open a sequence for a generation."""
        request = generation.request
        capacity = min(len(request.prompt) + request.max_new_tokens, self.max_context)
        known = () if request.prompt_logprobs else request.prompt
        sequence = self._engine.new_sequence(
            known, capacity, request.tenant, warms=request.background
        )
        try:
            return Running(
                generation,
                sequence,
                self._tokenizer,
                chunk=self._chunk,
                max_context=self.max_context,
                end_tokens=self._end_tokens(request),
                never_drawn=self._never_drawn,
            )
        except BaseException:
            self._release(sequence)
            raise

    def _release(self, sequence: EngineSequence) -> None:
        try:
            self._engine.release(sequence)
        except Exception:
            log.exception("the engine could not release a sequence")

    def _end_tokens(self, request: GenerationRequest) -> frozenset[int]:
        """Return what ends a reply: the model's own tokens, and hidden ones asked for as stops."""
        hidden = self._tokenizer.hidden
        asked = (hidden[stop] for stop in request.stop if stop in hidden)
        return frozenset(self._engine.config.eos_token_ids).union(asked)

    def _step(self) -> None:
        """Let the engine work once, and hand out what comes of it."""
        batch = list(self._batch)
        if not batch:
            return
        try:
            results = self._engine.forward([running.work() for running in batch])
            if len(results) != len(batch):
                raise RuntimeError(f"the engine gave {len(results)} results for {len(batch)} works")
        except Exception:
            log.exception("the engine failed in a step of %d sequences", len(batch))
            for running in batch:
                self._leave(running, _ENGINE_FAILED)
            return
        self._steps += 1
        self._step_sequences += len(batch)
        for running, logits in zip(batch, results, strict=True):
            try:
                self._advance(running, logits)
            except Exception:
                log.exception("a sequence could not be continued")
                self._leave(running, _ENGINE_FAILED)

    def _advance(self, running: Running, logits: Logits | None) -> None:
        """Take a step's result for one generation, which may end with it."""
        if running.reads_prompt:
            if not running.note_prompt_read(logits):
                return
            if not running.generation.request.max_new_tokens:
                self._leave(running, running.done("length"))
                return
        assert logits is not None, "the engine owes logits for a sequence's last token"
        token, likelihood = running.draw(logits)
        if running.completion_tokens == 1:
            waited = time.monotonic() - running.generation.submitted
            self._observe(self.observer.first_token, waited)
        if reason := running.write(token, likelihood):
            self._leave(running, running.done(reason))

    def _leave(self, running: Running, last: Done | Failed) -> None:
        """End a generation that has a place; whatever fails meanwhile, its client hears of it.

        It may be called again for one that has left.
        """
        self._send_last(running.generation, last)
        if running not in self._batch:
            return
        self._release(running.sequence)
        self._batch.remove(running)
        # After the release: when the scheduler is idle, its memory is free.
        self._admission.leave(running.generation, finished=isinstance(last, Done))
        self._observe(
            self.observer.ended,
            last,
            running.prompt_tokens_read,
            running.sequence.cached_for_tenant,
            running.completion_tokens,
        )

    def _refuse(self, failures: Mapping[Generation, Failed]) -> None:
        """End generations that never had a place."""
        for generation, failure in failures.items():
            self._send_last(generation, failure)
            self._observe(self.observer.ended, failure, 0, 0, 0)
        self._admission.remove(failures)

    def _send_last_to_all(self, last: Failed) -> None:
        for generation in self._admission.everyone():
            self._send_last(generation, last)

    def _send_last(self, generation: Generation, last: Done | Failed) -> None:
        """Hand over the last event, once; this must not fail for any reason."""
        for event in (last, _ENGINE_FAILED):
            try:
                generation.put(event)
            except Exception:
                log.exception("a generation's end could not be sent")
            else:
                return

    def _observe(self, hear: Callable[..., None], *what: Any) -> None:
        """Call the observer; its failures are logged and do not stop the scheduler."""
        try:
            hear(*what)
        except Exception:
            log.exception("the scheduler's observer failed")


def _no_memory(generation: Generation) -> Failed:
    if generation.request.background:
        return Failed("cancelled", "there is no memory to read ahead")
    return Failed("internal", "there is no memory for this request")


def _failure(generation: Generation, now: float) -> Failed | None:
    if generation.cancelled:
        return Failed("cancelled", "the client left")
    deadline = generation.request.deadline
    if deadline is not None and now > deadline:
        return Failed("deadline", "the request took longer than its deadline allows")
    return None
