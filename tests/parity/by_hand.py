"""A training as one writes it by hand with peft, and rows of text to train on."""

import numpy as np
import torch
import torch.nn.functional as F
from transformers import get_scheduler

from deltaproof.quick.mode import Quick
from deltaproof.seeding import seed_everything
from deltaproof.tasks.batches import epoch_batches
from deltaproof.tasks.text import Encoded, TextTask, collate

WORDS = [
    "the", "a", "good", "bad", "film", "story", "dog", "fox", "quick", "lazy", "text", "function", "numbers", "actors",
]  # fmt: skip
TASK = TextTask("classification", ("no", "yes"), ("accuracy",), 32)


def texts(n_rows: int, seed: int = 0) -> tuple[list[tuple[str]], np.ndarray]:
    """Rows of 2 to 12 words; the label says whether `good` is among them."""
    random = np.random.default_rng(seed)
    rows = [list(random.choice(WORDS, random.integers(2, 12))) for _ in range(n_rows)]
    return [(" ".join(row),) for row in rows], np.array([["good" in row] for row in rows], dtype=float)


def encoded(tokenizer, n_rows: int, seed: int = 0) -> Encoded:
    rows, targets = texts(n_rows, seed)
    return TASK.encode_texts(tokenizer, rows, targets)


def train_by_hand(model, rows: Encoded, pad_token_id: int, *, learning_rate, batch_size, n_epochs, seed) -> list[float]:
    """The loop as one writes it with peft: AdamW, linear warm-up and decay of transformers, clipping at 1; the losses.

    Ours are the order of the rows, the masks of dropout, and that the scheduler moves one step ahead, so that no step
    is at rate 0.
    """
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    is_matrix = {name: p.dim() >= 2 and "ia3_l" not in name for name, p in trained}  # peft keeps gains as (d, 1)
    decayed = [p for name, p in trained if is_matrix[name]]
    plain = [p for name, p in trained if not is_matrix[name]]
    optimizer = torch.optim.AdamW([{"params": decayed}, {"params": plain, "weight_decay": 0.0}], lr=learning_rate)
    batches = [batch for epoch in range(n_epochs) for batch in epoch_batches(rows.lengths, batch_size, seed, epoch)]
    n_warmup = round(len(batches) * 0.1)
    schedule = get_scheduler("linear", optimizer, num_warmup_steps=n_warmup, num_training_steps=len(batches))
    losses = []
    seed_everything(seed, "dropout")
    for step, batch in enumerate(batches):
        if step < n_warmup:
            schedule.step()
        with Quick():
            logits = model.train()(**collate(rows, batch, pad_token_id, TASK.max_length)).logits
        loss = F.cross_entropy(logits, torch.tensor(rows.targets[batch, 0]).long())
        loss.backward()
        torch.nn.utils.clip_grad_norm_([*decayed, *plain], 1.0)
        optimizer.step()
        if step >= n_warmup:
            schedule.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses
