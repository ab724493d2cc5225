"""Train the demo model from scratch: `python -m model.demo.train`.

Writes a checkpoint folder in the hub's own format, `loss.csv`, and the plot of the held-out loss.
Resumable: a run that was interrupted goes on from its last saved state. The same seed trains on the
same text in the same order; weights can still differ in the last digits between machines, since
floating-point sums depend on the number of threads.

There are two phases: one on everything, to learn to talk, and a shorter one with more tables and
sums, to learn them by heart. Matrices are trained with Muon (Jordan et al. 2024), everything else
with AdamW; in each phase the learning rate warms up, stays, and falls linearly to zero.
"""

import argparse
import csv
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import Tensor, nn
from transformers import BloomConfig, BloomForCausalLM
from transformers.models.bloom.modeling_bloom import build_alibi_tensor

from model.demo import corpus

HIDDEN, LAYERS, HEADS, VOCABULARY = 256, 8, 4, 8192
ROWS, LENGTH = 16, 384  # sequences and tokens of one training step
CONTEXT = 1024  # what the model is offered for; ALiBi carries it beyond its training length
SPECIAL = ["<unk>", "<s>", "</s>", "<pad>"]  # ids 0-3, as BLOOM has them
BLOOM_SPLIT = r" ?[^(\s|[.,!?…。，、।۔،])]+"
WARM_UP, COOL_DOWN = 0.02, 0.35  # of the learning rate, as shares of a phase's steps
EVERY = 100  # steps between two measurements of the held-out loss


@dataclass(frozen=True)
class Phase:
    """A part of the training, with an optimizer of its own."""

    tokens: int
    kinds: Mapping[str, int]
    peak_rate: float


PHASES = (Phase(8_000_000, corpus.BROAD, 2e-3), Phase(5_000_000, corpus.FACTUAL, 1.5e-3))


def train_tokenizer(texts: Iterable[str], entries: int = VOCABULARY) -> Tokenizer:
    """Train a byte-level BPE with BLOOM's pre-tokenizer, decoder and special tokens."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(BLOOM_SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=entries,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator((text.replace(corpus.END, "") for text in texts), trainer)
    return tokenizer


def rows(tokenizer: Tokenizer, documents: Iterator[str]) -> Iterator[list[int]]:
    """Yield rows of LENGTH + 1 ids; each starts where a document starts, as a prompt does."""
    row: list[int] = []
    for document in documents:
        row += tokenizer.encode(document).ids
        if len(row) > LENGTH:
            yield row[: LENGTH + 1]
            row = []


class Loss(nn.Module):
    """The language-model loss of a `BloomForCausalLM`, by fused attention: twice as fast on a CPU.

    The parameters are the model's own; a test holds the two losses together.
    """

    bias: Tensor  # [1, heads, LENGTH, LENGTH]

    def __init__(self, model: BloomForCausalLM, length: int = LENGTH) -> None:
        super().__init__()
        self.model = model
        heads = model.config.n_head
        alibi = build_alibi_tensor(torch.ones(1, length), heads, torch.float32)  # [heads, 1, T]
        ahead = torch.ones(length, length, dtype=torch.bool).triu(1)
        self.register_buffer("bias", alibi.masked_fill(ahead, -torch.inf)[None], persistent=False)

    def forward(self, ids: Tensor, next_ids: Tensor) -> Tensor:
        """Return the mean cross-entropy, in nats a token, for ids [rows, LENGTH]."""
        bloom = self.model.transformer
        batch, length = ids.shape
        heads, size = bloom.config.n_head, bloom.config.hidden_size // bloom.config.n_head
        x = bloom.word_embeddings_layernorm(bloom.word_embeddings(ids))
        for block in bloom.h:
            attention, mlp = block.self_attention, block.mlp
            fused = attention.query_key_value(block.input_layernorm(x))
            q, k, v = fused.view(batch, length, heads, 3, size).permute(3, 0, 2, 1, 4)
            mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=self.bias.to(q.dtype))
            x = x + attention.dense(mixed.transpose(1, 2).reshape(batch, length, heads * size))
            inner = mlp.dense_h_to_4h(block.post_attention_layernorm(x))
            x = x + mlp.dense_4h_to_h(F.gelu(inner, approximate="tanh"))
        logits = F.linear(bloom.ln_f(x), bloom.word_embeddings.weight)
        return F.cross_entropy(logits.float().flatten(0, 1), next_ids.flatten())


def rate_at(step: int, steps: int) -> float:
    """Return the share of the peak learning rate at a step."""
    warm, cool = steps * WARM_UP, steps * COOL_DOWN
    return min(1.0, (step + 1) / warm, (steps - step) / cool)


def new_model(seed: int, layers: int = LAYERS, entries: int = VOCABULARY) -> BloomForCausalLM:
    """Make an untrained BLOOM, by default of the demo's shape."""
    torch.manual_seed(seed)
    config = BloomConfig(
        vocab_size=entries,
        hidden_size=HIDDEN,
        n_layer=layers,
        n_head=HEADS,
        seq_length=CONTEXT,
        unk_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=3,
        use_cache=True,
    )
    return BloomForCausalLM(config)


def new_optimizers(model: BloomForCausalLM) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the layers, AdamW for all the rest."""
    matrices = [p for p in model.transformer.h.parameters() if p.ndim == 2]
    others = [p for p in model.parameters() if not any(p is matrix for matrix in matrices)]
    return [
        torch.optim.Muon(matrices, weight_decay=0.05, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, betas=(0.9, 0.98), weight_decay=0.0, fused=True),
    ]


def train(out: Path, scale: float, seed: int) -> None:
    """Train through all phases, each `scale` times as long, and write the checkpoint to `out`."""
    out.mkdir(parents=True, exist_ok=True)
    state_file, tokenizer_file = out / "training.partial", out / "tokenizer.json"
    spoken = corpus.languages()
    if not state_file.exists():
        sample = islice(corpus.documents(spoken, seed=1, held_out=False), 60_000)
        train_tokenizer(sample).save(str(tokenizer_file))
    tokenizer = Tokenizer.from_file(str(tokenizer_file))
    unseen = corpus.documents(spoken, seed=2, held_out=True)
    held_out = torch.tensor(list(islice(rows(tokenizer, unseen), 4 * ROWS)))
    model = new_model(seed)
    loss_of = torch.compile(Loss(model))
    state: dict[str, Any] = {"phase": 0, "step": 0, "history": [], "optimizers": None}
    if state_file.exists():
        state = torch.load(state_file, weights_only=True)
        model.load_state_dict(state["model"])
    history: list[tuple[int, float, float]] = [tuple(row) for row in state["history"]]

    def measure(phase: int, step: int, tokens: int, recent: float) -> None:
        """Add to the history, and keep all that a later run needs to go on from here."""
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            losses = [loss_of(part[:, :-1], part[:, 1:]) for part in torch.split(held_out, ROWS)]
        history.append((tokens, recent, torch.stack(losses).mean().item()))
        print(
            f"{tokens / 1e6:6.2f} M tokens  training {recent:.3f}  held-out {history[-1][2]:.3f}",
            flush=True,
        )
        kept = {
            "phase": phase,
            "step": step,
            "history": history,
            "model": model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in optimizers],
        }
        torch.save(kept, state_file.with_suffix(".new"))
        state_file.with_suffix(".new").replace(state_file)

    before = 0  # tokens of the phases that are over
    for number, phase in enumerate(PHASES):
        steps = int(phase.tokens * scale) // (ROWS * LENGTH)
        if number >= state["phase"]:
            first, recent = 0, history[-1][1] if history else float("nan")
            optimizers = new_optimizers(model)
            if number == state["phase"] and state["optimizers"]:
                first = state["step"]
                for optimizer, kept in zip(optimizers, state["optimizers"], strict=True):
                    optimizer.load_state_dict(kept)
            seen = corpus.documents(corpus.languages(phase.kinds), seed + number, held_out=False)
            stream = islice(rows(tokenizer, seen), first * ROWS, None)
            for step in range(first, steps):
                batch = torch.tensor(list(islice(stream, ROWS)))
                with torch.autocast("cpu", torch.bfloat16):
                    loss = loss_of(batch[:, :-1], batch[:, 1:])
                loss.backward()
                nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                for optimizer in optimizers:
                    for group in optimizer.param_groups:
                        group["lr"] = phase.peak_rate * rate_at(step, steps)
                    optimizer.step()
                    optimizer.zero_grad()
                recent = loss.item() if recent != recent else 0.98 * recent + 0.02 * loss.item()
                if (step + 1) % EVERY == 0 or step + 1 == steps:
                    tokens = (before + step + 1) * ROWS * LENGTH
                    measure(number, step + 1, tokens, recent)
        before += steps

    write_checkpoint(model, tokenizer_file, out)
    write_history(history, out)
    state_file.unlink()


def write_checkpoint(model: BloomForCausalLM, tokenizer_file: Path, out: Path) -> None:
    """Write config, float16 weights, tokenizer and chat template as the hub's folders hold them."""
    model.config.dtype = torch.float16
    model.config.architectures = ["BloomForCausalLM"]
    model.config.save_pretrained(out)
    tensors = {
        f"transformer.{name}": tensor.detach().to(torch.float16).contiguous()
        for name, tensor in model.transformer.state_dict().items()
    }
    save_file(tensors, out / "model.safetensors.new", metadata={"format": "pt"})
    (out / "model.safetensors.new").replace(out / "model.safetensors")
    (out / "model.safetensors").chmod(0o644)
    special = dict(zip(("unk_token", "bos_token", "eos_token", "pad_token"), SPECIAL, strict=True))
    settings = {
        **special,
        "tokenizer_class": "PreTrainedTokenizerFast",
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": CONTEXT,
        "padding_side": "left",
    }
    (out / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")
    (out / "special_tokens_map.json").write_text(json.dumps(special, indent=2) + "\n")
    # A model that learnt tables by heart repeats words of the question, and should.
    defaults = {
        "eos_token_id": 2,
        "temperature": 0.7,
        "top_k": 40,
        "top_p": 0.95,
        "repetition_penalty": 1.0,
    }
    (out / "generation_config.json").write_text(json.dumps(defaults, indent=2) + "\n")
    (out / "chat_template.jinja").write_text(corpus.CHAT_TEMPLATE)


def write_history(history: list[tuple[int, float, float]], out: Path) -> None:
    """Write the losses as `loss.csv` and as the plot `loss.svg` and `loss.png`."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    with (out.parent / "loss.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["tokens", "training_loss", "held_out_loss"])
        writer.writerows((n, f"{t:.4f}", f"{h:.4f}") for n, t, h in history)
    figure, axes = pyplot.subplots(figsize=(7, 4), layout="constrained")
    seen = [n / 1e6 for n, _, _ in history]
    axes.plot(seen, [t for _, t, _ in history], color="#b9a7d6", label="training (smoothed)")
    axes.plot(seen, [h for _, _, h in history], color="#7a1f5c", label="held out")
    axes.set(
        xlabel="million tokens seen", ylabel="loss, nats a token", title="piBLOOM's demo model"
    )
    axes.set_ylim(0, 5)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(out.parent / "loss.svg")
    figure.savefig(out.parent / "loss.png", dpi=120)


def main() -> None:
    """Parse the command line and train."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "checkpoint")
    parser.add_argument("--scale", type=float, default=1.0, help="1 is as long as was shipped")
    parser.add_argument("--seed", type=int, default=560)
    options = parser.parse_args()
    train(options.out, options.scale, options.seed)


if __name__ == "__main__":
    main()
