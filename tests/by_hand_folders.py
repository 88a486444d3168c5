"""Folders as peft and transformers save them, made by hand: none of our code wrote them."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import peft
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

NAMES = ("bad", "fair", "good")
TARGETS = {"bert": ["query", "value"], "gpt2": ["c_attn"], "modernbert": ["Wqkv"]}


@dataclass(frozen=True)
class Made:
    """A base, an adapter on it and the two merged."""

    base: Path
    adapter: Path
    merged: Path

    def copied(self, to: Path) -> "Made":
        return Made(*(shutil.copytree(folder, to / folder.name) for folder in (self.base, self.adapter, self.merged)))


def classifier(base: Path, names: tuple[str, ...] | None = NAMES):
    """The base with a head that was drawn at random."""
    options = {}
    if names is not None:
        options = {"id2label": dict(enumerate(names)), "label2id": {name: at for at, name in enumerate(names)}}
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return AutoModelForSequenceClassification.from_pretrained(base, num_labels=3, **options)


def by_hand(base: Path, family: str, to: Path) -> Made:
    """What a user of peft does: LoRA, some training (here: noise), save, merge, save."""
    torch.manual_seed(1)
    config = peft.LoraConfig(task_type="SEQ_CLS", r=4, target_modules=TARGETS[family])
    if family == "modernbert":
        config.modules_to_save = ["head", "classifier"]
    wrapped = peft.get_peft_model(classifier(base), config)
    with torch.no_grad():
        for parameter in wrapped.parameters():
            if parameter.requires_grad:
                parameter += 0.1 * torch.randn_like(parameter)
    wrapped.save_pretrained(to / "adapter")
    wrapped.merge_and_unload().save_pretrained(to / "merged")
    AutoTokenizer.from_pretrained(base).save_pretrained(to / "merged")
    return Made(base, to / "adapter", to / "merged")
