"""How many lanes a device takes: a step of K LoRA runs in one pass, one after another, and by `peft`, K = 1, 2, 4, …

    python benchmarks/saturation.py                                # every size, on CUDA where there is one
    python benchmarks/saturation.py --sizes 110m --batch-size 16 --tokens 64 --most 32
    python benchmarks/saturation.py --compiled                     # peft under torch.compile beside it
    python benchmarks/saturation.py --device cpu --sizes demo --most 4 --rounds 3

Models have random weights of the sizes named: MiniLM-L6, BERT-base and a Llama of 1.1 billion parameters. A step is
forward, backward, clipping and AdamW over random texts of one length, with dropout where the family has it, LoRA of
rank 8 on all linear layers. `peft` is the loop that one writes by hand under autocast, with the fused AdamW, of one
run: K of them take K times as long. Ways go in turns within a round; printed are medians, per run and step. A device is
saturated at the K from which twice as many lanes no longer take a tenth off a run's step.
"""

import argparse
import copy
import time
from collections.abc import Callable
from statistics import median

import numpy as np
import peft
import torch
from transformers import AutoModelForSequenceClassification, BertConfig, LlamaConfig, PretrainedConfig

from deltaproof.backbones.backbone import Backbone
from deltaproof.backbones.load import backbone_of
from deltaproof.backbones.quiet import quiet
from deltaproof.backbones.sharing import move_together, own, sharing_copy
from deltaproof.backbones.tiny import tiny_tokenizer
from deltaproof.methods.lora import LoRA
from deltaproof.methods.tuned import attach
from deltaproof.tasks.text import Encoded, TextTask, collate
from deltaproof.training.gradient import Alone, BatchGradient
from deltaproof.training.lanes.together import Lanes
from deltaproof.training.loop import Run
from deltaproof.training.precision import accelerator_for, pick_device, pick_precision
from deltaproof.training.settings import Training

SIZES: dict[str, tuple[str, Callable[[], PretrainedConfig]]] = {
    "demo": ("bert", lambda: BertConfig(
        hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536, num_labels=2)),
    "110m": ("bert", lambda: BertConfig(num_labels=2)),
    "1.1b": ("llama", lambda: LlamaConfig(
        hidden_size=2048, num_hidden_layers=22, num_attention_heads=32, num_key_value_heads=4, intermediate_size=5632,
        max_position_embeddings=2048, num_labels=2, pad_token_id=0)),
}  # fmt: skip
TASK = TextTask("classification", ("no", "yes"), ("accuracy",), 512)
CLEAR = 1.1
"""A step per run that is shorter by less is no gain."""

Step = Callable[[], None]


def base_of(size: str) -> Backbone:
    """A classifier of this size with random weights."""
    family, config = SIZES[size]
    torch.manual_seed(0)
    return backbone_of(AutoModelForSequenceClassification.from_config(config()), tiny_tokenizer(family), size)


def texts(batch_size: int, n_tokens: int) -> Encoded:
    random = np.random.default_rng(0)
    ids = random.integers(1000, 20000, (batch_size, n_tokens)).tolist()
    return Encoded({"input_ids": ids}, random.integers(0, 2, (batch_size, 1)).astype(float), 0.0)


def runs_over(base: Backbone, n: int, rows: Encoded, device: torch.device, precision: str) -> list[Run]:
    """So many LoRA runs over one copy of the base."""
    accelerator, settings = accelerator_for(device, precision), Training(batch_size=len(rows), examples=10**9)
    tuned = [attach(sharing_copy(base), LoRA(rank=8), seed) for seed in range(n)]
    for each in tuned:
        own(parameter for parameter in each.backbone.model.parameters() if parameter.requires_grad)
    move_together(base.model, tuned, device)
    runs = [Run(each, TASK, rows, rows, settings, 1e-3, 0, accelerator) for each in tuned]
    for run in runs:
        run.begin()
    return runs


def ours(base: Backbone, runs: list[Run], rows: Encoded, in_lanes: bool) -> Step:
    """A step of all of them, in one pass or one after another."""
    lead, every = runs[0], np.arange(len(rows))
    forward = Lanes(base, [run.tuned for run in runs]) if in_lanes else Alone()
    gradient = BatchGradient(TASK, rows, base.tokenizer.pad_token_id, lead.accelerator, forward)

    def step() -> None:
        for some in [runs] if in_lanes else [[run] for run in runs]:
            losses = gradient(some, [every] * len(some))
            for run, loss in zip(some, losses, strict=True):
                run.step(loss)

    return step


def by_peft(base: Backbone, rows: Encoded, device: torch.device, precision: str, compiled: bool) -> Step:
    """A step of one run, as a loop by hand has it."""
    config = peft.LoraConfig(task_type="SEQ_CLS", r=8, lora_alpha=16, target_modules="all-linear")
    with quiet():
        model = peft.get_peft_model(copy.deepcopy(base.model), config).to(device).train()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-3, fused=device.type in ("cpu", "cuda"))
    batch = {key: value.to(device) for key, value in collate(rows, np.arange(len(rows)), 0).items()}
    labels = torch.as_tensor(rows.targets[:, 0], dtype=torch.long, device=device)
    forward = torch.compile(model) if compiled else model

    def step() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            loss = forward(**batch, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        loss.item()

    return step


def timed(step: Step, n_steps: int, device: torch.device) -> float:
    """Seconds of a step."""
    started = time.perf_counter()
    for _ in range(n_steps):
        step()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - started) / n_steps


def tell(columns: list[str]) -> None:
    print("".join(f"{text:>18}" for text in columns), flush=True)


def curve(options: argparse.Namespace, size: str, device: torch.device, precision: str) -> None:
    """Print a line for each K, until twice as many gain nothing, memory runs out, or the most is reached."""
    rows, base = texts(options.batch_size, options.tokens), base_of(size)
    peft_ways = {"peft": False, **({"compiled": True} if options.compiled else {})}
    others = {name: by_peft(base, rows, device, precision, compiled) for name, compiled in peft_ways.items()}
    print(f"\n{size}: {sum(each.numel() for each in base.model.parameters()) / 1e6:.0f} million parameters")
    slower = ("alone", *others)
    tell(["K", *(f"{name}, ms" for name in ("lanes", *slower)), *(f"{name} / lanes" for name in slower), "GB"])
    n, before = 1, float("inf")
    while n <= options.most:
        try:
            runs = runs_over(base, n, rows, device, precision)
            ways: dict[str, tuple[Step, int]] = {
                "lanes": (ours(base, runs, rows, n > 1), n),
                "alone": (ours(base, runs, rows, False), n),
                **{name: (step, 1) for name, step in others.items()},
            }
            found: dict[str, list[float]] = {name: [] for name in ways}
            for number in range(options.rounds + 1):
                for name, (step, n_runs) in ways.items():
                    seconds = timed(step, options.steps, device) / n_runs
                    if number:  # the first warms up, and compiles
                        found[name].append(seconds)
        except torch.cuda.OutOfMemoryError:
            print(f"K = {n} does not fit")
            return
        each = {name: median(times) for name, times in found.items()}
        peak = torch.cuda.max_memory_allocated() / 1e9 if device.type == "cuda" else float("nan")
        milliseconds = [f"{1e3 * each[name]:.2f}" for name in ("lanes", *slower)]
        tell([str(n), *milliseconds, *(f"{each[name] / each['lanes']:.2f}" for name in slower), f"{peak:.2f}"])
        if before < CLEAR * each["lanes"]:
            print(f"saturated at K = {n // 2}")
            return
        n, before = 2 * n, each["lanes"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--most", type=int, default=64, help="the largest K")
    parser.add_argument("--steps", type=int, default=5, help="of a way, in a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", choices=("auto", "fp32", "bf16"), default="auto")
    parser.add_argument("--compiled", action="store_true", help="peft under torch.compile, too; needs a compiler")
    options = parser.parse_args()
    device = pick_device(options.device)
    precision = pick_precision(options.precision, device)
    if device.type == "cpu":
        torch.set_num_threads(1)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{device.type}, one thread"
    print(f"{name}: {options.batch_size} texts of {options.tokens} tokens, {precision}, {options.rounds} rounds of "
          f"{options.steps} steps")  # fmt: skip
    for size in options.sizes:
        curve(options, size, device, precision)


if __name__ == "__main__":
    main()
