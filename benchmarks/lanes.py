"""A training step in lanes against the same runs alone: how much faster, by what the lanes change.

    python benchmarks/lanes.py                                    # bf16 where the processor is good at it
    python benchmarks/lanes.py --precision fp32 --rounds 9
    python benchmarks/lanes.py --only "lora*4" --tokens 32
    python benchmarks/lanes.py --seeds                            # each lane of another seed, over other rows

A step is the gradient of 16 made-up texts of so many tokens with the model's dropout, on one thread. In each round
every way is timed once, in turns; printed are medians of the ratios within a round, with their quartiles.
"""

import argparse
from statistics import median, quantiles

import numpy as np
import torch

from deltaproof.backbones.load import load_backbone
from deltaproof.backbones.sharing import own, sharing_copy
from deltaproof.methods.tuned import attach
from deltaproof.tasks.text import Encoded, TextTask
from deltaproof.training.lanes import trial
from deltaproof.training.lanes.together import Lanes
from deltaproof.training.loop import Run
from deltaproof.training.precision import accelerator_for, pick_precision
from deltaproof.training.settings import Training

GROUPS = {
    "head*4": ["head"] * 4,
    "lora(layers=[5])*2, head*2": ["lora(layers=[5])"] * 2 + ["head"] * 2,
    "lora(layers=[3, 4, 5])*4": ["lora(layers=[3, 4, 5])"] * 4,
    "lora*4": ["lora"] * 4,
    "lora*8": ["lora"] * 8,
    "lora of ranks 2, 4, 8, 16": [f"lora(rank={rank})" for rank in (2, 4, 8, 16)],
    "pica*4": ["pica"] * 4,
    "ia3*4": ["ia3"] * 4,
    "bitfit*4": ["bitfit"] * 4,
    "lora, ia3, bitfit, ln_tune": ["lora", "ia3", "bitfit", "ln_tune"],
}
TASK = TextTask("classification", ("no", "yes"), ("accuracy",), 256)


def ready(methods: list[str], lengths: list[int], precision: str) -> tuple[Lanes, list[Run], list[np.ndarray]]:
    """Lanes of these methods over one copy of the demo's model, and the rows of each.

    Args:
        lengths: tokens of the 16 texts that all lanes see; or of each lane's own, which are then of as many seeds.
    """
    base = load_backbone("minilm", "classification", 2)
    random = np.random.default_rng(0)
    ids = [random.integers(1000, 20000, n_tokens).tolist() for n_tokens in lengths for _ in range(16)]
    rows = Encoded({"input_ids": ids}, random.integers(0, 2, (len(ids), 1)).astype(float), 0.0)
    batches = np.split(np.arange(len(ids)), len(lengths))
    accelerator = accelerator_for(torch.device("cpu"), precision)
    runs = []
    for number, method in enumerate(methods):
        tuned = attach(sharing_copy(base), method, 0)
        own(parameter for parameter in tuned.backbone.model.parameters() if parameter.requires_grad)
        runs.append(Run(tuned, TASK, rows, rows, Training(batch_size=16), 1e-3, number % len(batches), accelerator))
        runs[-1].begin()
    return Lanes(base, [run.tuned for run in runs]), runs, [batches[run.seed] for run in runs]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=GROUPS, help="one group; all when left out")
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--precision", choices=("auto", "fp32", "bf16"), default="auto")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--seeds", action="store_true", help="each lane has rows of its own, of half to one and a half times the tokens"
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    trial.CLEAR_GAIN = float("inf")  # every way is wanted here
    precision = pick_precision(options.precision, torch.device("cpu"))
    print(f"16 texts of {options.tokens} tokens, {precision}, one thread, {options.rounds} rounds")
    print(f"{'lanes':30}{'alone, ms':>10}  {'all in one pass':22}one at a time")
    for name in [options.only] if options.only else GROUPS:
        spread = np.linspace(0.5, 1.5, len(GROUPS[name])) if options.seeds else np.ones(1)
        lanes, runs, rows_of = ready(GROUPS[name], (spread * options.tokens).astype(int).tolist(), precision)
        ratios: dict[int, list[float]] = {len(runs): [], 1: []}
        alone = []
        for _ in range(options.rounds + 1):
            for size, found in ratios.items():
                tried = trial.try_lanes(lanes, runs, rows_of, (size,), True)
                assert not tried.strays, f"gradients differ: {tried.strays}"
                found.append(tried.gain)
                alone.append(tried.alone_seconds)
        shown = [f"{median(found[1:]):.2f} ({quantiles(found[1:])[0]:.2f} to {quantiles(found[1:])[2]:.2f})"
                 for found in ratios.values()]  # fmt: skip
        print(f"{name:30}{1e3 * median(alone[2:]):10.0f}  {shown[0]:22}{shown[1]}", flush=True)


if __name__ == "__main__":
    main()
