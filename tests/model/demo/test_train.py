"""Training computes what transformers would, only faster."""

from itertools import islice
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer

from model.demo import corpus, train


def test_the_fused_loss_equals_transformers() -> None:
    model = train.new_model(seed=1)
    generator = torch.Generator().manual_seed(2)
    ids = torch.randint(4, train.VOCABULARY, (2, 49), generator=generator)
    ours = train.Loss(model, length=48)(ids[:, :-1], ids[:, 1:])
    theirs = model(ids, labels=ids).loss
    assert ours.item() == pytest.approx(theirs.item(), abs=1e-4)


def test_rows_start_where_documents_start(demo: Path) -> None:
    tokenizer = Tokenizer.from_file(str(demo / "tokenizer.json"))
    documents = corpus.documents(corpus.languages(), 1, held_out=False)
    starts = set(map(str, islice(corpus.documents(corpus.languages(), 1, held_out=False), 4000)))
    for row in islice(train.rows(tokenizer, documents), 20):
        assert len(row) == train.LENGTH + 1
        text = tokenizer.decode(row[:12], skip_special_tokens=False).rstrip("\ufffd")
        assert any(start.startswith(text) for start in starts)


def test_the_rate_warms_up_stays_and_falls_to_nothing() -> None:
    steps = 1000
    rates = [train.rate_at(step, steps) for step in range(steps + 1)]
    assert rates[0] < 0.1
    assert rates[steps // 2] == 1.0
    assert rates[steps] == 0.0
    assert max(rates) == 1.0
