"""Continuous batching: many generations, one engine, one thread.

Sequences join and leave between two steps of the engine. Each step takes one token of every
sequence that is writing and one chunk of one prompt that is still being read, so that a long prompt
does not stall the others (Yu et al. 2022, Orca; Agrawal et al. 2023, Sarathi).
"""

import logging
import math
import queue
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from model.engine.contract import Engine, EngineSequence, Logits, OutOfMemory, Work
from model.limits import DEFAULT_LIMITS, Limits
from model.serving.events import (
    Done,
    Events,
    Failed,
    Generation,
    Likelihood,
    Prefill,
    PromptToken,
    Queued,
    Token,
)
from model.serving.request import GenerationRequest
from model.serving.sampler import Sampler
from model.serving.watch import Watch
from model.text.stops import StopStrings
from model.text.tokenizer import NEVER_DRAWN, StreamDecoder, Tokenizer

log = logging.getLogger(__name__)

_SHUTTING_DOWN = Failed("draining", "the server is shutting down")
_ENGINE_FAILED = Failed("internal", "the engine failed")


class Overloaded(Exception):
    """The queue is full; `retry_after` seconds from now there is likely to be room."""

    def __init__(self, retry_after: int) -> None:
        super().__init__(f"the queue is full; try again in {retry_after} s")
        self.retry_after = retry_after


class ContextFull(Exception):
    """A prompt leaves no room for a reply."""

    def __init__(self, prompt_tokens: int, max_context: int) -> None:
        super().__init__(
            f"the prompt has {prompt_tokens} tokens; with at least one token of reply it must stay"
            f" within the context of {max_context}"
        )
        self.prompt_tokens, self.max_context = prompt_tokens, max_context


class Draining(Exception):
    """The scheduler is shutting down and takes nothing new."""


class Observer:
    """What is told of generations as they go; this one listens to nothing."""

    def started(self, waited: float) -> None:
        """One got a place, `waited` seconds after its submission."""

    def first_token(self, seconds: float) -> None:
        """One wrote its first token, `seconds` after its submission."""

    def ended(self, last: Done | Failed, prompt: int, cached: int, written: int) -> None:
        """One ended: tokens of its prompt, of them known from the same tenant, and written."""


@dataclass(eq=False)
class _Running:
    """A generation that has a place in the batch."""

    generation: Generation
    sequence: EngineSequence
    sampler: Sampler
    decoder: StreamDecoder
    stops: StopStrings
    started: float
    next: list[int]  # what the engine has not seen yet: the rest of the prompt, or the last token
    ends: frozenset[int]  # tokens that end it, and are not shown
    decoding_since: float = 0.0  # 0 while the prompt is being read
    text: list[str] = field(default_factory=list)
    count: int = 0
    told: int = 0  # tokens of the prompt that the client believes are read


class Scheduler:
    """Runs generations on an engine; its thread starts with `start`, after any fork."""

    def __init__(
        self,
        engine: Engine[Any],
        tokenizer: Tokenizer,
        limits: Limits = DEFAULT_LIMITS,
        *,
        prefill_chunk: int = 64,
    ) -> None:
        memory = engine.kv_tokens_total
        self.max_context = min(engine.config.max_context, memory or engine.config.max_context)
        self.limits = limits
        self._engine, self._tokenizer = engine, tokenizer
        self._chunk = prefill_chunk
        self._never_drawn = NEVER_DRAWN.difference(engine.config.eos_token_ids)
        self._waiting: deque[Generation] = deque()
        self._running: list[_Running] = []
        self._reserved: set[Places] = set()  # for requests that are being made
        self._work = threading.Condition()
        self._draining = False
        self._kill = False
        self._watch = Watch(lambda: engine.progress)
        self._seconds_each = 1.0  # of a generation, smoothed: what Overloaded's estimate rests on
        self._steps = self._step_sequences = 0  # of the engine, and sequences in them
        self.observer = Observer()
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    def start(self) -> None:
        """Start the engine thread."""
        self._thread.start()

    def submit(self, request: GenerationRequest) -> Generation:
        """Queue a request; raises `Overloaded`, `ContextFull` or `Draining`, and never waits."""
        return self.submit_all([request])[0]

    def submit_all(self, requests: Sequence[GenerationRequest]) -> list[Generation]:
        """Queue requests that belong together, all or none; their events share one queue."""
        background = any(request.background for request in requests)
        with self.reserve(len(requests), background=background) as places:
            return places.fill(requests)

    def check_length(self, tokens: int) -> None:
        """Raise `ContextFull` for a prompt of so many tokens that no reply would fit."""
        if tokens >= self.max_context:
            raise ContextFull(tokens, self.max_context)

    def reserve(self, count: int = 1, *, background: bool = False) -> "Places":
        """Hold `count` places for requests that are yet to be made, which costs work.

        Raises `Overloaded` or `Draining`. The places are given back when the `with` block ends,
        but for those that were filled. There is room for a background request while nobody else
        is here, and others never wait for its place.
        """
        with self._work:
            if background and self._busy():
                raise Overloaded(1)
            self._check_room(count)
            places = Places(self, count, background=background)
            self._reserved.add(places)
        return places

    def _fill(self, places: "Places", requests: Sequence[GenerationRequest]) -> list[Generation]:
        for request in requests:
            self.check_length(len(request.prompt))
        events: Events = queue.SimpleQueue()
        alone = len(requests) == 1
        generations = [Generation(request, events, alone=alone) for request in requests]
        with self._work:
            tokens = sum(len(request.prompt) for request in requests)
            self._reserved.discard(places)
            self._check_room(len(requests), tokens)
            for position, generation in enumerate(generations, start=len(self._waiting) + 1):
                generation.put(Queued(position))
            self._waiting.extend(generations)
            self._work.notify()
        return generations

    def _give_back(self, places: "Places") -> None:
        with self._work:
            self._reserved.discard(places)

    def close(self, grace: float = 0.0) -> None:
        """Take nothing new, give the others `grace` seconds, then end them as "draining"."""
        with self._work:
            self._draining = True
            self._work.notify()
        if not self._thread.ident:  # never started, so nothing else will ever end them
            self._end_all()
            self._engine.close()
            return
        self._thread.join(grace)
        with self._work:
            self._kill = True
            self._work.notify()
        self._thread.join(10)
        if self._thread.is_alive():  # the engine hangs: its clients must still hear of the end
            with self._work:
                self._tell_all(_SHUTTING_DOWN)

    def figures(self) -> dict[str, float]:
        """Return what there is to watch: generations, steps, and bytes of keys and values."""
        used, cached = self._engine.kv_bytes
        return {
            "waiting": len(self._waiting),
            "running": len(self._running),
            "steps": self._steps,
            "step_sequences": self._step_sequences,
            "kv_used": used,
            "kv_cached": cached,
        }

    @property
    def idle(self) -> bool:
        """Whether nothing runs, waits or has a place reserved."""
        with self._work:
            return not self._busy()

    @property
    def healthy(self) -> bool:
        """Whether the engine thread still runs, and none of its steps has hung."""
        return self._thread.is_alive() and not self._watch.stuck

    def _busy(self) -> bool:
        return bool(self._running or self._waiting or self._reserved)

    def _check_room(self, count: int, tokens: int = 0) -> None:
        if self._draining:
            raise Draining
        waiting = [each.request for each in self._waiting if not each.request.background]
        running = sum(not each.generation.request.background for each in self._running)
        reserved = sum(places.count for places in self._reserved if not places.background)
        queued = sum(len(request.prompt) for request in waiting)
        if running + len(waiting) + reserved + count > self.limits.most_at_once or (
            queued and queued + tokens > self.limits.max_queue_tokens
        ):
            ahead = len(self._waiting) + len(self._running)
            # Those that run now may take longer than those that have ended.
            ages = [time.monotonic() - running.started for running in self._running]
            each = max(self._seconds_each, sum(ages) / max(1, len(ages)))
            raise Overloaded(max(1, math.ceil(each * ahead / self.limits.max_batch)))

    def _run(self) -> None:
        try:
            self._loop()
        except BaseException:
            log.exception("the engine thread ended")
            with self._work:
                self._draining = True  # nothing new is taken; readiness tells that it is over
                self._tell_all(_ENGINE_FAILED)
        finally:
            self._engine.close()

    def _loop(self) -> None:
        while True:
            with self._work:
                while not (self._waiting or self._running or self._draining):
                    self._work.wait()
                if self._kill:
                    self._end_all()
                if self._draining and not (self._waiting or self._running):
                    return
                self._drop_ended()
                self._admit()
            self._watch.begin()
            self._step()
            self._watch.end()

    def _tell_all(self, last: Failed) -> None:
        for generation in [*self._waiting, *(each.generation for each in self._running)]:
            self._tell_end(generation, last)

    def _tell_end(self, generation: Generation, last: Done | Failed) -> None:
        """Hand over the last event, once; this must not fail for any reason."""
        for event in (last, _ENGINE_FAILED):
            try:
                generation.put(event)
            except Exception:
                log.exception("a generation's end could not be told")
            else:
                return

    def _observe(self, tell: Callable[..., None], *what: Any) -> None:
        """Tell the observer, whose own failures are no reason to stop."""
        try:
            tell(*what)
        except Exception:
            log.exception("the scheduler's observer failed")

    def _end_all(self) -> None:
        for running in list(self._running):
            self._leave(running, _SHUTTING_DOWN)
        for generation in self._waiting:
            self._refuse(generation, _SHUTTING_DOWN)
        self._waiting.clear()

    def _drop_ended(self) -> None:
        """Take out what was cancelled or is past its deadline, waiting or running."""
        now = time.monotonic()
        here = [*self._waiting, *(running.generation for running in self._running)]
        if any(not generation.request.background for generation in here):
            for generation in here:
                if generation.request.background:
                    generation.cancel()
        for running in list(self._running):
            if failure := _failure(running.generation, now):
                self._leave(running, failure)
        kept: deque[Generation] = deque()
        for generation in self._waiting:
            if failure := _failure(generation, now):
                self._refuse(generation, failure)
            else:
                kept.append(generation)
        if len(kept) < len(self._waiting):
            self._waiting = kept
            self._tell_positions()

    def _admit(self) -> None:
        admitted = False
        # One prompt is read at a time, so the next one waits: it may begin like the one before. For
        # one that is read token by token nobody waits.
        while (
            self._waiting
            and len(self._running) < self.limits.max_batch
            and all(
                running.decoding_since or running.generation.request.prompt_logprobs
                for running in self._running
            )
        ):
            generation = self._first_in_line()
            if generation is None:
                break
            try:
                running = self._open(generation)
            except OutOfMemory:
                if self._running:
                    break  # the first in line waits until others have ended; nobody overtakes it
                self._refuse(generation, _no_memory(generation))
            except Exception:
                log.exception("a generation could not begin")
                self._refuse(generation, _ENGINE_FAILED)
            else:
                self._running.append(running)
                self._observe(self.observer.started, running.started - generation.submitted)
            self._waiting.remove(generation)
            admitted = True
        if admitted:
            self._tell_positions()

    def _open(self, generation: Generation) -> _Running:
        """Open a sequence for a generation, and what draws and decodes its tokens."""
        request = generation.request
        capacity = min(len(request.prompt) + request.max_new_tokens, self.max_context)
        known = () if request.prompt_logprobs else request.prompt
        sequence = self._engine.new_sequence(
            known, capacity, request.tenant, warms=request.background
        )
        try:
            return _Running(
                generation,
                sequence,
                Sampler(request.sampling, request.prompt, self._never_drawn),
                StreamDecoder(self._tokenizer),
                StopStrings(request.stop),
                started=time.monotonic(),
                next=list(request.prompt[sequence.length :]),
                ends=self._ends(request),
                told=sequence.own,
            )
        except BaseException:
            self._release(sequence)
            raise

    def _release(self, sequence: EngineSequence) -> None:
        try:
            self._engine.release(sequence)
        except Exception:
            log.exception("the engine could not release a sequence")

    def _ends(self, request: GenerationRequest) -> frozenset[int]:
        """Return what ends a reply: the model's own tokens, and hidden ones asked for as stops."""
        hidden = self._tokenizer.hidden
        asked = (hidden[stop] for stop in request.stop if stop in hidden)
        return frozenset(self._engine.config.eos_token_ids).union(asked)

    def _first_in_line(self) -> Generation | None:
        """Return whose turn it is: of those who have the fewest companions running, the oldest.

        Generations that were submitted together leave a place to others, who may come any time.
        """
        running = Counter(each.generation.shared for each in self._running)
        in_crowds = sum(not each.generation.alone for each in self._running)
        full = in_crowds >= max(1, self.limits.max_batch - 1)
        candidates = [each for each in self._waiting if each.alone or not full]
        return min(candidates, key=lambda each: running[each.shared], default=None)

    def _tell_positions(self) -> None:
        for position, generation in enumerate(self._waiting, start=1):
            try:
                generation.put(Queued(position))
            except Exception:
                log.exception("a generation could not be told its position")

    def _step(self) -> None:
        """Let the engine work once, and hand out what comes of it."""
        batch = list(self._running)
        if not batch:
            return
        try:
            works = [
                Work(
                    running.sequence,
                    running.next[: self._stride(running)],
                    len(running.next) <= self._stride(running)
                    or running.generation.request.prompt_logprobs,
                )
                for running in batch
            ]
            results = self._engine.forward(works)
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

    def _advance(self, running: _Running, logits: Logits | None) -> None:
        generation, request = running.generation, running.generation.request
        if not running.decoding_since:
            running.next = running.next[self._stride(running) :]
            total = len(request.prompt)
            self._tell_progress(running, total - len(running.next), total)
            if running.next:
                if request.prompt_logprobs:
                    assert logits is not None, "the engine owes logits for every token"
                    token = running.next[0]
                    generation.put(PromptToken(token, self._likelihood(logits, token, request)))
                return
            running.decoding_since = time.monotonic()
            if not request.max_new_tokens:
                self._leave(running, self._done(running, "length"))
                return
        assert logits is not None, "the engine owes logits for a sequence's last token"
        token = running.sampler.next(logits)
        asked = request.logprobs is not None
        likelihood = self._likelihood(logits, token, request) if asked else None
        running.next = [token]
        if not running.count:
            self._observe(self.observer.first_token, time.monotonic() - generation.submitted)
        running.count += 1
        ended = token in running.ends
        text, stopped = running.stops.push("" if ended else running.decoder.push(token))
        full = len(request.prompt) + running.count >= self.max_context
        last = ended or stopped or full or running.count >= request.max_new_tokens
        if last and not stopped:
            text += running.stops.flush()
        running.text.append(text)
        generation.put(Token(token, text, likelihood))
        if last:
            self._leave(running, self._done(running, "stop" if ended or stopped else "length"))

    def _tell_progress(self, running: _Running, done: int, total: int) -> None:
        """Tell of a prompt that is read, in the steps that it has for whom nothing was known.

        Or somebody could see, by what is skipped, how another tenant's prompt began.
        """
        stride = self._stride(running)
        while running.told + stride <= done or (done == total and running.told < total):
            running.told = min(running.told + stride, total)
            running.generation.put(Prefill(running.told, total))

    def _stride(self, running: _Running) -> int:
        """How many tokens of a prompt are read in a step."""
        return 1 if running.generation.request.prompt_logprobs else self._chunk

    def _likelihood(self, logits: Logits, token: int, request: GenerationRequest) -> Likelihood:
        log_total = logits.logsumexp(1.0, self._never_drawn)
        top = logits.top(request.logprobs, self._never_drawn) if request.logprobs else []
        return Likelihood(
            logits.at([token])[0] - log_total,
            tuple((id_, each - log_total) for id_, each in top),
        )

    def _done(self, running: _Running, reason: str) -> Done:
        now, generation = time.monotonic(), running.generation
        self._seconds_each += 0.2 * (now - running.started - self._seconds_each)
        return Done(
            text="".join(running.text),
            finish_reason="stop" if reason == "stop" else "length",
            prompt_tokens=len(generation.request.prompt),
            completion_tokens=running.count,
            seed=running.sampler.seed,
            queued_s=running.started - generation.submitted,
            prefill_s=running.decoding_since - running.started,
            decode_s=now - running.decoding_since,
            cached_tokens=running.sequence.own,
        )

    def _leave(self, running: _Running, last: Done | Failed) -> None:
        """End a generation that has a place; whatever fails meanwhile, its client hears of it.

        It may be called again for one that has left.
        """
        self._tell_end(running.generation, last)
        if running not in self._running:
            return
        self._release(running.sequence)
        self._running.remove(running)  # so that who finds it idle finds its memory too
        read = len(running.generation.request.prompt) if running.decoding_since else 0
        self._observe(self.observer.ended, last, read, running.sequence.own, running.count)

    def _refuse(self, generation: Generation, failure: Failed) -> None:
        """End a generation that never had a place."""
        self._tell_end(generation, failure)
        self._observe(self.observer.ended, failure, 0, 0, 0)


class Places:
    """Places in the queue that are held until their requests are made."""

    def __init__(self, scheduler: Scheduler, count: int, *, background: bool) -> None:
        self.count, self.background = count, background
        self._scheduler = scheduler

    def fill(self, requests: Sequence[GenerationRequest]) -> list[Generation]:
        """Queue requests that belong together, all or none; their events share one queue.

        Raises `ContextFull`, `Draining`, or `Overloaded` for more tokens than may wait.
        """
        return self._scheduler._fill(self, requests)

    def __enter__(self) -> "Places":
        return self

    def __exit__(self, *_: object) -> None:
        self._scheduler._give_back(self)


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
