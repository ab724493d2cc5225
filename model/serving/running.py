"""One generation in the batch: its prompt is read in chunks, then its reply is written."""

import time
from collections.abc import Collection
from typing import Any

from model.engine.contract import EngineSequence, Logits, Work
from model.serving.events import (
    Done,
    FinishReason,
    Generation,
    Likelihood,
    Prefill,
    PromptToken,
    Token,
)
from model.serving.sampler import Sampler
from model.text.stops import StopStrings
from model.text.tokenizer import StreamDecoder, Tokenizer


class Running:
    """A generation that has a place in the batch; only the scheduler's thread uses it."""

    def __init__(
        self,
        generation: Generation,
        sequence: EngineSequence,
        tokenizer: Tokenizer,
        *,
        chunk: int,
        max_context: int,
        end_tokens: Collection[int],
        never_drawn: Collection[int],
    ) -> None:
        """Continue at the sequence's length.

        A step reads at most `chunk` tokens of the prompt. Prompt and reply have at most
        `max_context` tokens together. A token of `end_tokens` ends the reply and is not shown;
        those of `never_drawn` are never chosen.
        """
        request = generation.request
        self.generation, self.sequence = generation, sequence
        self.started = time.monotonic()
        self.completion_tokens = 0
        self._chunk = 1 if request.prompt_logprobs else chunk
        self._max_context = max_context
        self._end_tokens, self._never_drawn = end_tokens, never_drawn
        self._sampler = Sampler(request.sampling, request.prompt, never_drawn)
        self._decoder = StreamDecoder(tokenizer)
        self._stops = StopStrings(request.stop)
        # What the engine has not seen: the rest of the prompt, or the last token of the reply.
        self._unseen = list(request.prompt[sequence.length :])
        self._decoding_since: float | None = None  # None while the prompt is read
        self._text: list[str] = []
        self._prefill_sent = sequence.cached_for_tenant  # tokens that the client knows to be read

    @property
    def reads_prompt(self) -> bool:
        """Whether a part of the prompt is still to be read."""
        return self._decoding_since is None

    @property
    def prompt_tokens_read(self) -> int:
        """Tokens of the prompt once it was read to its end, and 0 before."""
        return 0 if self.reads_prompt else len(self.generation.request.prompt)

    def work(self) -> Work[Any]:
        """Return what the engine should read in the next step."""
        tokens = self._unseen[: self._chunk]
        is_last = len(self._unseen) <= self._chunk
        wants_logits = is_last or self.generation.request.prompt_logprobs
        return Work(self.sequence, tokens, wants_logits)

    def note_prompt_read(self, logits: Logits | None) -> bool:
        """Tell the client that the step read a part of the prompt; returns whether it was the last.

        `logits` are those after that part, where they were wanted.
        """
        request = self.generation.request
        self._unseen = self._unseen[self._chunk :]
        self._send_prefill(len(request.prompt) - len(self._unseen))
        if not self._unseen:
            self._decoding_since = time.monotonic()
            return True
        if request.prompt_logprobs:
            assert logits is not None, "the engine owes logits for every token"
            token = self._unseen[0]
            self.generation.put(PromptToken(token, self._likelihood(logits, token)))
        return False

    def draw(self, logits: Logits) -> tuple[int, Likelihood | None]:
        """Draw the next token; returns its id, and its likelihood for those who ask."""
        token = self._sampler.next(logits)
        asked = self.generation.request.logprobs is not None
        likelihood = self._likelihood(logits, token) if asked else None
        self._unseen = [token]
        self.completion_tokens += 1
        return token, likelihood

    def write(self, token: int, likelihood: Likelihood | None) -> FinishReason | None:
        """Hand a token's text to the client; returns why the reply ends with it, or None."""
        request = self.generation.request
        is_end = token in self._end_tokens
        text, stopped = self._stops.push("" if is_end else self._decoder.push(token))
        context_full = len(request.prompt) + self.completion_tokens >= self._max_context
        full = context_full or self.completion_tokens >= request.max_new_tokens
        if (is_end or full) and not stopped:
            text += self._stops.flush()
        self._text.append(text)
        self.generation.put(Token(token, text, likelihood))
        if is_end or stopped:
            return "stop"
        return "length" if full else None

    def done(self, reason: FinishReason) -> Done:
        """Return the last event of a generation whose prompt was read."""
        assert self._decoding_since is not None
        now, generation = time.monotonic(), self.generation
        return Done(
            text="".join(self._text),
            finish_reason=reason,
            prompt_tokens=len(generation.request.prompt),
            completion_tokens=self.completion_tokens,
            seed=self._sampler.seed,
            queued_s=self.started - generation.submitted,
            prefill_s=self._decoding_since - self.started,
            decode_s=now - self._decoding_since,
            cached_tokens=self.sequence.cached_for_tenant,
        )

    def _send_prefill(self, done: int) -> None:
        """Tell the client how much of the prompt is read, in steps as if nothing was cached.

        Steps that are left out would show how another tenant's prompt began.
        """
        total = len(self.generation.request.prompt)
        while self._prefill_sent + self._chunk <= done or (
            done == total and self._prefill_sent < total
        ):
            self._prefill_sent = min(self._prefill_sent + self._chunk, total)
            self.generation.put(Prefill(self._prefill_sent, total))

    def _likelihood(self, logits: Logits, token: int) -> Likelihood:
        count = self.generation.request.logprobs
        log_total = logits.logsumexp(1.0, self._never_drawn)
        top = logits.top(count, self._never_drawn) if count else []
        return Likelihood(
            logits.at([token])[0] - log_total,
            tuple((id_, logit - log_total) for id_, logit in top),
        )
