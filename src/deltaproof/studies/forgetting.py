"""What tuning cost of what the base knew: the loss of its own pretraining task, before and after, on the same text.

Biderman et al., 2024, arXiv:2405.09673, plot learning against forgetting; so does the report. The edits of a tuned
model are put on the checkpoint with its pretraining head, which no method trains, so that the loss speaks of the base.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from deltaproof.backbones.backbone import Backbone
from deltaproof.backbones.language_model import is_masked, load_language_model
from deltaproof.data.library import library_files
from deltaproof.errors import BackboneError, DataError
from deltaproof.methods.tuned import Tuned, attach
from deltaproof.seeding import generator
from deltaproof.stats import mean_interval
from deltaproof.studies.kept_models import Bed, KeptModel, kept_models

Say = Callable[[str], None]
MASKED_SHARE = 0.15
"""Of the tokens, as in BERT's pretraining: Devlin et al., 2018, arXiv:1810.04805, sec. 3.1."""
N_CHUNKS, CHUNK_TOKENS, LEAST_CHUNKS = 64, 96, 4


@dataclass(frozen=True)
class Corpus:
    """Text in chunks of equal length, with what is asked of each token."""

    inputs: Tensor
    """(chunks, tokens), masks in place."""
    targets: Tensor
    """(chunks, tokens): the token to be named, or -100 where nothing is asked."""


def read_corpus(path: Path | None) -> str:
    """The user's text, or, when none is given, English prose that every Python brings: the library's docstrings.

    Raises:
        DataError: the file cannot be read as UTF-8 text.
    """
    if path is not None:
        try:
            return path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"`{path}` must be a text file in UTF-8, got {error}; give another one") from None
    return "\n".join(_docstrings())


def _docstrings() -> list[str]:
    import ast

    home = find_spec("argparse")
    assert home is not None
    assert home.origin is not None
    found: list[str] = []
    for path in library_files(Path(home.origin).parent)[:120]:
        try:
            tree = ast.parse(path.read_bytes())
        except (SyntaxError, ValueError):
            continue
        found += [text for node in tree.body if isinstance(node, ast.ClassDef) and (text := ast.get_docstring(node))]
    return found


def corpus_for(backbone: Backbone, text: str, seed: int) -> Corpus:
    """Cut a text into chunks and say what is asked: masked tokens, or each next token.

    Raises:
        DataError: the text is too short.
    """
    tokenizer = backbone.tokenizer
    ids = tokenizer(text, add_special_tokens=False, truncation=False, verbose=False)["input_ids"]
    length = min(CHUNK_TOKENS, backbone.max_length)
    chunks = torch.tensor(ids[: len(ids) // length * length]).reshape(-1, length)[:N_CHUNKS]
    if len(chunks) < LEAST_CHUNKS:
        raise DataError(
            f"a corpus must have at least {LEAST_CHUNKS * length} tokens, got {len(ids)}; give a longer text"
        )
    targets = chunks.clone()
    if is_masked(backbone.model.config, tokenizer):
        asked = torch.rand(chunks.shape, generator=generator(seed, "forgetting")) < MASKED_SHARE
        asked[:, 0] |= ~asked.any(dim=1)  # something is asked of every chunk
        targets[~asked] = -100
        chunks = chunks.masked_fill(asked, tokenizer.mask_token_id)
    else:
        targets = torch.cat([chunks[:, 1:], torch.full((len(chunks), 1), -100)], dim=1)
    return Corpus(chunks, targets)


@dataclass(frozen=True)
class Recall:
    """How well a model still does its pretraining task, chunk by chunk."""

    losses: np.ndarray
    """(chunks,) mean cross-entropy, in nats per token."""
    right: np.ndarray
    """(chunks,) share of the tokens asked for that it names first."""


@torch.inference_mode()
def recall(model: torch.nn.Module, corpus: Corpus, device: torch.device, batch_size: int = 16) -> Recall:
    """Ask a language model for every token that the corpus asks for."""
    model.to(device).eval()
    losses, right = [], []
    for inputs, targets in zip(
        torch.split(corpus.inputs, batch_size), torch.split(corpus.targets, batch_size), strict=True
    ):
        logits = model(input_ids=inputs.to(device), attention_mask=torch.ones_like(inputs).to(device)).logits
        each = F.cross_entropy(logits.float().transpose(1, 2), targets.to(device), reduction="none", ignore_index=-100)
        n_asked = (targets != -100).sum(dim=1).to(device)
        losses.append(each.sum(dim=1) / n_asked)
        right.append((logits.argmax(dim=2) == targets.to(device)).sum(dim=1) / n_asked)
    return Recall(*(torch.cat(parts).cpu().double().numpy() for parts in (losses, right)))


@torch.no_grad()
def with_edits_of(tuned: Tuned, language_model: Backbone, seed: int) -> Tuned:
    """The tuned model's change of the base, on the same base with its pretraining head."""
    copy = attach(language_model, tuned.method, seed)
    own, state = copy.state(), tuned.state()
    for name, value in own.items():
        if name in state and state[name].shape == value.shape:
            value.copy_(state[name])
    edits = {name for place in tuned.places() for name in state if name.startswith(f"{place}.")}
    if lost := sorted(edits - own.keys()):  # a parameter of the pooler has no part in the pretraining task
        raise BackboneError(
            f"the edits must have their place on the language model too, `{lost[0]}` has none; leave "
            f"`{tuned.method.label}` out of this study"
        )
    return copy.eval()


def forgetting(
    bed: Bed, corpus: Path | None = None, contestants: Sequence[str] = (), say: Say = lambda text: None
) -> dict[str, Any]:
    """The rise of the base's own loss through each kept model, with intervals over chunks of text and seeds.

    A base without a language model's output layer cannot be asked: the result then says why.
    """
    models = kept_models(bed.store, contestants)
    text = read_corpus(corpus)
    facts = {"format": 1, "corpus": str(corpus) if corpus else "docstrings of Python's standard library"}
    try:
        before, task = _of_base(models[0], text, bed)
    except BackboneError as error:
        return {**facts, "applicable": False, "reason": str(error), "methods": []}
    found: dict[str, list[Recall]] = {}
    left_out: dict[str, str] = {}
    for kept in models:
        say(f"the base's own task after {kept.label}, seed {kept.seed}")
        try:
            found.setdefault(kept.label, []).append(_after(kept, text, bed))
        except BackboneError as error:
            left_out[kept.label] = str(error)
    methods = []
    for label, after in found.items():
        if label in left_out:
            continue
        rise = mean_interval(np.stack([one.losses - before.losses for one in after]))
        right = mean_interval(np.stack([one.right for one in after]))
        methods.append({
            "label": label, "rise": rise.mean, "low": rise.low, "high": rise.high, "n_seeds": len(after),
            "right": {"mean": right.mean, "low": right.low, "high": right.high},
        })  # fmt: skip
    return {
        **facts,
        "applicable": True,
        "task": task,
        "unit": "nats per token",
        "n_chunks": len(before.losses),
        "before": float(before.losses.mean()),
        "right_before": float(before.right.mean()),
        "methods": methods,
        "left_out": left_out,
    }


def _language_model(kept: KeptModel) -> Backbone:
    model = kept.record.spec.model
    return load_language_model(model["name"], revision=model.get("revision") or None)


def _of_base(kept: KeptModel, text: str, bed: Bed) -> tuple[Recall, str]:
    base = _language_model(kept)
    task = "masked tokens" if is_masked(base.model.config, base.tokenizer) else "next token"
    return recall(base.model, corpus_for(base, text, seed=0), bed.device), task


def _after(kept: KeptModel, text: str, bed: Bed) -> Recall:
    tuned, _ = kept.load()
    base = _language_model(kept)
    return recall(with_edits_of(tuned, base, kept.seed), corpus_for(base, text, seed=0), bed.device)
