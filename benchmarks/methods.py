"""What a training step of each method costs: beside full fine-tuning, and beside peft's form of the same method.

    python benchmarks/methods.py                                  # every method, on the demo's model and texts
    python benchmarks/methods.py lora dora --rounds 30            # some of them
    python benchmarks/methods.py --json docs/reference/method_costs.json

A step is forward, backward and AdamW on 16 texts of 40 tokens, without dropout. Two contestants are timed in turns, so
that what else the machine does strikes both; printed are the median of the paired ratios and its quartiles. A ratio
below 1 says that ours is the faster.
"""

import argparse
import importlib.metadata
import json
import platform
import time
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import torch
import torch.nn.functional as F

from deltaproof.backbones import load_backbone
from deltaproof.backbones.quiet import quiet
from deltaproof.methods import METHODS, Method, method_from
from deltaproof.methods.tuned import Tuned, attach

OURS = {
    "peft": None,
    "together": "together(serial, parallel, prefix)",
    "on_layers": "on_layers(lora, layers=[3, 4, 5])",
    "only": "only(lora, roles=['query', 'value'])",
    "density_penalty": "density_penalty(lora)",
}
"""How methods that need settings are run; None: not at all."""
_TARGETS = "['query', 'key', 'value', 'attention.output.dense', 'intermediate.dense', 'output.dense']"
PEFTS = {
    "lora": f"peft_lora(r=8, lora_alpha=16, target_modules={_TARGETS})",
    "lora(rank_stabilised=True)": f"peft_lora(r=8, lora_alpha=16, use_rslora=True, target_modules={_TARGETS})",
    "dora": f"peft_lora(r=8, lora_alpha=16, use_dora=True, target_modules={_TARGETS})",
    "ia3": r"peft_ia3(target_modules='.*(key|value|layer[.][0-9]+[.]output[.]dense)', "
    r"feedforward_modules='.*layer[.][0-9]+[.]output[.]dense')",
    "vera": None,
    "ln_tune": "ln_tuning",
    "prefix": "prefix_tuning(num_virtual_tokens=20)",
}
"""The same method as peft has it; None: `peft_` and the name."""
TEXT = "def {0}(values): return the {0} of all values in the list, or None where there are none at all of them"
WORDS = ("sum", "mean", "largest", "smallest", "median", "length", "product", "first", "last", "spread", "mode", "rank",
         "range", "norm", "count", "order")  # fmt: skip


class Contestant:
    """A method on a model of its own, ready to take steps."""

    def __init__(self, text: str, model: str, precision: str) -> None:
        backbone = load_backbone(model, "classification", 2)
        for module in backbone.model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        self.method: Method = method_from(text)
        with quiet():
            self.tuned: Tuned = attach(backbone, self.method)
        texts = [TEXT.format(word) for word in WORDS]
        tokenizer = backbone.tokenizer
        self.batch = dict(tokenizer(texts, padding="max_length", truncation=True, max_length=40, return_tensors="pt"))
        self.targets = torch.arange(len(texts)) % 2
        self.optimizer = torch.optim.AdamW(self.tuned.trained().values(), lr=1e-4, fused=True)
        self.precision = precision
        self.n_taken = 0
        for _, edit in self.tuned.placed():
            edit.begin(10_000)

    def step(self) -> float:
        """Take one step; returns its seconds."""
        started = time.perf_counter()
        self.tuned.train()
        with torch.autocast("cpu", torch.bfloat16, enabled=self.precision == "bf16"):
            logits = self.tuned(**self.batch).logits
        loss = F.cross_entropy(logits.float(), self.targets)
        penalties = [penalty for _, edit in self.tuned.placed() if (penalty := edit.penalty()) is not None]
        (loss + sum(penalties)).backward()
        torch.nn.utils.clip_grad_norm_(self.tuned.trained().values(), 1.0)
        self.optimizer.step()
        for _, edit in self.tuned.placed():
            edit.after_step(self.n_taken)
        self.n_taken += 1
        self.tuned.zero_grad(set_to_none=True)
        return time.perf_counter() - started


def in_turns(one: Contestant, other: Contestant, n_rounds: int, n_steps: int = 3) -> tuple[list[float], float]:
    """The ratio of one's time to the other's in every round, and one's median seconds per step."""
    for contestant in (one, other):
        for _ in range(3):
            contestant.step()
    ratios, seconds = [], []
    for number in range(n_rounds):
        took = {}
        for contestant in (one, other) if number % 2 else (other, one):
            took[contestant] = min(contestant.step() for _ in range(n_steps))
        ratios.append(took[one] / took[other])
        seconds.append(took[one])
    return ratios, median(seconds)


def spread(ratios: list[float]) -> tuple[float, float, float]:
    low, _, high = quantiles(ratios, n=4)
    return round(median(ratios), 3), round(low, 3), round(high, 3)


def shown(ratio: tuple[float, float, float] | None) -> str:
    return "-" if ratio is None else "{:.2f} ({:.2f} to {:.2f})".format(*ratio)


def measure(name: str, model: str, precision: str, n_rounds: int) -> dict[str, Any]:
    """One method beside full fine-tuning and, where there is one, beside peft's form of it."""
    text = OURS.get(name, name)
    assert text is not None, f"`{name}` stands for other methods"
    contestant = Contestant(text, model, precision)
    ratios, seconds = in_turns(contestant, Contestant("full", model, precision), n_rounds)
    found: dict[str, Any] = {
        "as": contestant.method.label,
        "n_trainable": contestant.tuned.n_trainable,
        "seconds_per_step": round(seconds, 5),
        "step_ratio": spread(ratios),
    }
    if name in PEFTS:
        theirs = PEFTS[name] or f"peft_{name}(target_modules={_TARGETS})"
        other = Contestant(theirs, model, precision)
        assert other.tuned.n_trainable == contestant.tuned.n_trainable, f"`{theirs}` trains other places than `{text}`"
        ratios, _ = in_turns(contestant, other, n_rounds)
        found["step_ratio_to_peft"] = spread(ratios)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    everything = [*(name for name in METHODS if OURS.get(name, name)), "lora(rank_stabilised=True)"]
    parser.add_argument("methods", nargs="*", default=everything)
    parser.add_argument("--model", default="minilm")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    figures = {}
    print(f"{'method':34}{'trained':>11}{'ms/step':>9}  {'to full: median (quartiles)':30}to peft")
    for name in options.methods:
        figures[name] = found = measure(name, options.model, options.precision, options.rounds)
        to_full, to_peft = shown(found["step_ratio"]), shown(found.get("step_ratio_to_peft"))
        milliseconds = 1000 * found["seconds_per_step"]
        print(f"{name:34}{found['n_trainable']:11,}{milliseconds:9.1f}  {to_full:30}{to_peft}")
    if options.json:
        versions = {package: importlib.metadata.version(package) for package in ("torch", "transformers", "peft")}
        made = {"model": options.model, "precision": options.precision, "threads": options.threads,
                "rounds": options.rounds, "machine": platform.machine(), **versions}  # fmt: skip
        options.json.write_text(json.dumps({"made": made, "methods": figures}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
