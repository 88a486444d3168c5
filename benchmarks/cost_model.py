"""The cost model held against measured runs, and what it says of an experiment nobody has run.

    python benchmarks/cost_model.py runs/suite/*      # operations and seconds, predicted beside counted and measured
    python benchmarks/cost_model.py --plan            # 1,000 contestants on a model of 70 B parameters

The first table: operations by the formulas of `experiments/cost_model.py` from the model's shape and the lengths of the
training rows, beside those that the run counted; and seconds by those operations at the pace of full fine-tuning in
the same folder, beside those that were measured. The pace is the only number taken from the runs.
"""

import argparse
import functools
import json
from collections import defaultdict
from pathlib import Path
from statistics import fmean, median
from typing import Any

import numpy as np
from scipy.special import stdtrit

from deltaproof.experiments.cost_model import (
    HALF_PRECISION_BYTES,
    Protocol,
    Shape,
    Trained,
    devices_for,
    experiment_flops,
    flops_per_token,
    state_bytes,
)

MINILM = Shape(n_layers=6, width=384, n_products=6 * 12 * 384**2, n_parameters=22_713_216)
"""Four square projections and two of width 4 d per layer."""
SEVENTY_B = Shape(n_layers=80, width=8192, n_products=68_451_041_280, n_parameters=70_553_706_496)
"""Llama 3 70B by its configuration: 80 layers of width 8192, feed-forward width 28672, 8 key-value heads of 128,
a vocabulary of 128256 twice. Products: 80 (2 8192^2 + 2 8192 1024 + 3 8192 28672)."""
H100_BYTES, H100_FLOPS = 80e9, 798e12
"""Memory by its data sheet; a bf16 product of 8192 x 8192 matrices as measured on one."""


def trained_by(name: str, cost: dict[str, Any]) -> Trained:
    """What the methods of the recorded runs train, by the equations of their files."""
    n = int(cost["n_trainable"])
    return {
        "full": Trained("full", n, trains_base=True),
        "lora": Trained("lora", n, n_factors=n - 2 * 385),
        "head": Trained("head", n, backward_fraction=0.0),
    }.get(name, Trained(name, n))


@functools.cache
def tokenizer_of(model: str) -> Any:
    from deltaproof.backbones import load_backbone

    return load_backbone(model, "classification", 2).tokenizer


def padded_tokens(folder: Path, spec: dict[str, Any]) -> tuple[int, float]:
    """Tokens that a run of this spec sends through the model, and the mean length of its padded batches."""
    from deltaproof.data.run_folder import read_dataset
    from deltaproof.tasks.batches import training_batches
    from deltaproof.tasks.text import TextTask
    from deltaproof.training.loop import number_of_steps
    from deltaproof.training.settings import Training

    task = TextTask.from_json(spec["task"])
    lengths = task.encode(tokenizer_of(spec["model"]["name"]), read_dataset(folder / "data", ("train",)).train).lengths
    settings = Training(**{key: value for key, value in spec["training"].items() if key in Training.model_fields})
    steps = number_of_steps(len(lengths), settings)
    batches = [lengths[rows] for rows in training_batches(lengths, settings.batch_size, spec["seed"], steps)]
    n_tokens = sum(len(rows) * int(rows.max()) for rows in batches)
    return n_tokens, sum(len(rows) * int(rows.max()) ** 2 for rows in batches) / n_tokens


def against_records(folders: list[Path]) -> None:
    """Print predicted beside measured for every contestant of every folder, and their ratios over all."""
    operations: dict[str, list[float]] = defaultdict(list)
    seconds: dict[str, list[float]] = defaultdict(list)
    print(f"{'task':8} {'method':8} {'GFLOP pred.':>12} {'counted':>9} {'s pred.':>8} {'s measured, by seed':>24}")
    for folder in folders:
        document = json.loads((folder / "experiment.json").read_text())
        runs = {
            entry["name"]: [json.loads((folder / "records" / f"{key}.json").read_text()) for key in entry["final"]]
            for entry in document["contestants"]
        }
        full = [run["cost"] for run in runs["full"]]
        pace = fmean(cost["train_flops"] for cost in full) / median(cost["train_seconds"] for cost in full)
        for name, records in runs.items():
            predicted = []
            for record in records:
                n_tokens, length = padded_tokens(folder, record["spec"])
                predicted.append(n_tokens * flops_per_token(MINILM, trained_by(name, record["cost"]), length))
            counted = [record["cost"]["train_flops"] for record in records]
            measured = [record["cost"]["train_seconds"] for record in records]
            operations[name] += [p / c for p, c in zip(predicted, counted, strict=True)]
            seconds[name] += [p / pace / s for p, s in zip(predicted, measured, strict=True)]
            shown = " ".join(f"{value:7.1f}" for value in measured)
            print(
                f"{folder.name:8} {name:8} {fmean(predicted) / 1e9:12.0f} {fmean(counted) / 1e9:9.0f} "
                f"{fmean(predicted) / pace:8.1f} {shown:>24}"
            )
    print(f"\n{'method':8} {'operations, predicted / counted':>32} {'seconds, predicted / measured':>32}")
    for name in operations:
        print(f"{name:8} {_spread(operations[name]):>32} {_spread(seconds[name]):>32}")


def _spread(ratios: list[float]) -> str:
    low, high = np.quantile(ratios, [0.25, 0.75])
    return f"{median(ratios):.2f} ({low:.2f} to {high:.2f}), n = {len(ratios)}"


def a_thousand_contestants() -> None:
    """Print what 1,000 contestants on a 70 B model take: 4 trials and 3 seeds each of 10,000 texts of 512 tokens."""
    lora = Trained("lora", 103_546_880, n_factors=103_546_880)
    """Rank 8 on every product of every layer: 80 * 8 * (2 (8192 + 8192) + 2 (8192 + 1024) + 3 (8192 + 28672))."""
    full = Trained("full", SEVENTY_B.n_parameters, trains_base=True)
    protocol = Protocol(999, 4, 3, tokens_per_run=3 * 10_000 * 512, length=512)
    reference = Protocol(1, 4, 3, tokens_per_run=3 * 10_000 * 512, length=512)
    for name, trained, each in (("999 x LoRA", lora, protocol), ("full, once", full, reference)):
        flops = experiment_flops(SEVENTY_B, trained, each)
        hours = flops / H100_FLOPS / 3600
        for held, n_bytes in (("bf16 base", HALF_PRECISION_BYTES), ("fp32 base", 4)):
            state = state_bytes(SEVENTY_B, trained, n_bytes)
            devices = devices_for(state, H100_BYTES)
            print(f"{name:12} {held}: state {state / 1e9:7.0f} GB, at least {devices} devices of 80 GB a run")
        print(f"{name:12} {each.n_runs} runs, {flops:.3g} FLOP, {hours:,.0f} device hours at the pace of one product")
    stored = 3 * 999 * lora.n_trained * 4
    print(f"all adapters: {stored / 1e12:.2f} TB; of one full fine-tuning: {full.n_trained * 4 / 1e9:.0f} GB")
    loads = protocol.n_runs * SEVENTY_B.n_parameters * 4
    print(
        f"bytes read to load the base anew for every run: {loads / 1e15:.1f} PB in fp32, {loads / 2e15:.1f} PB in bf16"
    )
    for n in (4, 999):
        for seeds in (3, 5, 10):
            corrected = stdtrit(seeds - 1, 1 - 0.05 / 2 / n)
            print(f"{n:4} comparisons, {seeds:2} seeds: a difference needs {corrected:8.1f} standard errors")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", type=Path)
    parser.add_argument("--plan", action="store_true")
    given = parser.parse_args()
    if given.folders:
        against_records(given.folders)
    if given.plan:
        a_thousand_contestants()
