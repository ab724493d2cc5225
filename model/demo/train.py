"""Train the demo model from scratch: `python -m model.demo.train`.

Writes a checkpoint folder in the hub's own format, `loss.csv`, and the plot of the held-out loss.
Resumable: a run that was interrupted goes on from its last saved state. The same seed trains on the
same text in the same order; weights can still differ in the last digits between machines, since
floating-point sums depend on the number of threads.

Matrices are trained with Muon (Jordan et al. 2024), everything else with AdamW; the learning rate
warms up, stays, and falls linearly to zero.
"""

import argparse
import csv
import json
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

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
PEAK_RATE, WARM_UP, COOL_DOWN = 2e-3, 0.02, 0.35  # the last two as shares of all steps
EVERY = 100  # steps between two measurements of the held-out loss


def train_tokenizer(spoken: list[corpus.Language]) -> Tokenizer:
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
        vocab_size=VOCABULARY,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    sample = islice(corpus.documents(spoken, seed=1, held_out=False), 60_000)
    tokenizer.train_from_iterator((text.replace(corpus.END, "") for text in sample), trainer)
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


def new_model(seed: int) -> BloomForCausalLM:
    """Make an untrained BLOOM of the demo's shape."""
    torch.manual_seed(seed)
    config = BloomConfig(
        vocab_size=VOCABULARY,
        hidden_size=HIDDEN,
        n_layer=LAYERS,
        n_head=HEADS,
        seq_length=CONTEXT,
        unk_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=3,
        use_cache=True,
    )
    return BloomForCausalLM(config)


def train(out: Path, tokens: int, seed: int) -> None:
    """Train for about `tokens` tokens and write the checkpoint to the folder `out`."""
    spoken = corpus.languages()
    out.mkdir(parents=True, exist_ok=True)
    state_file, tokenizer_file = out / "training.partial", out / "tokenizer.json"
    if not state_file.exists():
        train_tokenizer(spoken).save(str(tokenizer_file))
    tokenizer = Tokenizer.from_file(str(tokenizer_file))
    steps = tokens // (ROWS * LENGTH)
    held_out = torch.tensor(
        list(islice(rows(tokenizer, corpus.documents(spoken, seed=2, held_out=True)), 4 * ROWS))
    )
    stream = rows(tokenizer, corpus.documents(spoken, seed=seed, held_out=False))

    model = new_model(seed)
    matrices = [p for p in model.transformer.h.parameters() if p.ndim == 2]
    others = [p for p in model.parameters() if not any(p is matrix for matrix in matrices)]
    optimizers = [
        torch.optim.Muon(matrices, lr=PEAK_RATE, weight_decay=0.05, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=PEAK_RATE, betas=(0.9, 0.98), weight_decay=0.0, fused=True),
    ]
    history: list[tuple[int, float, float]] = []  # tokens seen, training loss, held-out loss
    first, recent = 0, float("nan")
    if state_file.exists():
        saved = torch.load(state_file, weights_only=True)
        model.load_state_dict(saved["model"])
        for optimizer, state in zip(optimizers, saved["optimizers"], strict=True):
            optimizer.load_state_dict(state)
        history, first, recent = (
            [tuple(row) for row in saved["history"]],
            saved["step"],
            saved["recent"],
        )
        stream = islice(stream, first * ROWS, None)
    loss_of = torch.compile(Loss(model))
    started = time.monotonic()

    for step in range(first, steps + 1):
        resumed_here = bool(history) and history[-1][0] == step * ROWS * LENGTH
        if (step % EVERY == 0 or step == steps) and not resumed_here:
            with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
                losses = [
                    loss_of(part[:, :-1], part[:, 1:]) for part in torch.split(held_out, ROWS)
                ]
            history.append((step * ROWS * LENGTH, recent, torch.stack(losses).mean().item()))
            pace = (step - first) * ROWS * LENGTH / (time.monotonic() - started)
            print(
                f"step {step}/{steps}  training {recent:.3f}  held-out {history[-1][2]:.3f}"
                f"  {pace:,.0f} tokens/s",
                flush=True,
            )
            torch.save(
                {
                    "model": model.state_dict(),
                    "optimizers": [optimizer.state_dict() for optimizer in optimizers],
                    "history": history,
                    "step": step,
                    "recent": recent,
                },
                state_file.with_suffix(".new"),
            )
            state_file.with_suffix(".new").replace(state_file)
        if step == steps:
            break
        batch = torch.tensor(list(islice(stream, ROWS)))
        with torch.autocast("cpu", torch.bfloat16):
            loss = loss_of(batch[:, :-1], batch[:, 1:])
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = PEAK_RATE * rate_at(step, steps)
            optimizer.step()
            optimizer.zero_grad()
        recent = loss.item() if step == 0 else 0.98 * recent + 0.02 * loss.item()

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
    parser.add_argument("--tokens", type=int, default=8_000_000)
    parser.add_argument("--seed", type=int, default=560)
    options = parser.parse_args()
    train(options.out, options.tokens, options.seed)


if __name__ == "__main__":
    main()
