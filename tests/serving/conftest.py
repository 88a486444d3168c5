"""Experts of several kinds on one tiny base, saved as their makers save them."""

import peft
import pytest
import torch
from transformers import AutoModelForSequenceClassification

from deltaproof.backbones import save_tiny
from deltaproof.compression.folder import compress_folder
from deltaproof.tasks.text import TextTask
from experiment_fixtures import _own_ledger
from own_folders import PAIR, save_own

__all__ = ["_own_ledger"]
TRIPLE = TextTask("classification", ("bad", "fair", "good"), ("accuracy",), 24)
NUMBER = TextTask("regression", None, ("mae",), 16, 20.0, 4.0)
TAGS = TextTask("multilabel", ("a", "b", "c"), ("accuracy",), 16)


def save_peft(config, base, folder, n_labels=2, seed=0, dtype=None):
    """What a user of peft saves."""
    torch.manual_seed(seed)
    model = peft.get_peft_model(AutoModelForSequenceClassification.from_pretrained(base, num_labels=n_labels), config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.1 * torch.randn_like(parameter)
    if dtype is not None:
        model.to(dtype)
    model.save_pretrained(folder)
    return folder


def lora(**settings):
    return peft.LoraConfig(task_type="SEQ_CLS", **{"r": 4, "target_modules": ["query", "value"], **settings})


OWN = {
    "lora": ("lora(rank=4)", PAIR),
    "other-seed": ("lora(rank=4)", PAIR),
    "three": ("lora(rank=4)", TRIPLE),
    "number": ("lora(rank=4)", NUMBER),
    "tags": ("dora(rank=2)", TAGS),
    "gains": ("ia3", PAIR),
    "principal": ("pica(rank=4)", PAIR),
    "random": ("vera(rank=8)", PAIR),
    "biases": ("bitfit", PAIR),
    "whole": ("full", PAIR),
    "prompts": ("prefix(length=2)", PAIR),
    "hidden": ("loreft(rank=2)", PAIR),
    "of-peft": ("loha(r=2)", PAIR),
    "both": ("together(lora(rank=2), ln_tune)", PAIR),
}
PEFT = {
    "p-lora": (lora(lora_alpha=16), 2),
    "p-three": (lora(), 3),
    "p-patterns": (lora(rank_pattern={"0.attention.self.query": 2}, alpha_pattern={"value": 5}, use_rslora=True), 2),
    "p-biases": (lora(bias="all"), 2),
    "p-dora": (lora(use_dora=True), 2),
    "p-gains": (peft.IA3Config(task_type="SEQ_CLS", target_modules=["key", "value", "output.dense"],
                               feedforward_modules=["output.dense"]), 2),
    "p-vera": (peft.VeraConfig(task_type="SEQ_CLS", r=8, target_modules=["query"]), 2),
    "p-loha": (peft.LoHaConfig(task_type="SEQ_CLS", r=2, target_modules=["query"]), 2),
    "p-prefix": (peft.PrefixTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=3), 2),
    "p-prompt": (peft.PromptTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=3), 2),
    "p-pooler": (lora(modules_to_save=["pooler", "classifier"]), 2),
}  # fmt: skip
SMALL = ("lora", "three", "number", "tags", "gains", "principal", "whole", "both", "p-lora", "p-patterns", "p-gains")
"""Those that are there compressed too, as `NAME-small`."""


@pytest.fixture(scope="session")
def base(tmp_path_factory):
    return save_tiny("bert", tmp_path_factory.mktemp("base") / "bert")


@pytest.fixture(scope="session")
def folder(base, tmp_path_factory):
    """A folder of experts; tests that break something copy it first."""
    place = tmp_path_factory.mktemp("experts")
    for at, (name, (method, task)) in enumerate(OWN.items()):
        save_own(method, base, place / name, task, seed=at)
    for at, (name, (config, n_labels)) in enumerate(PEFT.items()):
        save_peft(config, base, place / name, n_labels, seed=at)
    for name in SMALL:
        compress_folder(place / name, place / f"{name}-small.dpz", density=0.3)
    return place
