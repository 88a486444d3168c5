"""What does a diagnosis cost? Spectra of every matrix of a model of BERT-base's shape against evaluation passes.

    python benchmarks/spectra.py
    python benchmarks/spectra.py --layers 2 --examples 50

Both sides run in one process on one thread. Weights are random: times depend on shapes alone. The evaluation is
a forward pass over examples of 128 tokens in float32, in batches of 32.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import BertConfig, BertForSequenceClassification

from deltaproof.theory.diagnose import diagnose
from deltaproof.theory.updates import read_update

N_TOKENS, BATCH = 128, 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--examples", type=int, default=1000)
    given = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)  # processor time of several threads counts their waiting too
    model = BertForSequenceClassification(BertConfig(num_hidden_layers=given.layers)).eval()
    n_parameters = sum(parameter.numel() for parameter in model.parameters())
    print(f"{n_parameters / 1e6:.0f} M parameters, one thread", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        base, tuned = Path(folder) / "base", Path(folder) / "tuned"
        write(model, base, 0.0)
        write(model, tuned, 1e-3)
        spectra = timed("spectra", lambda: diagnose(read_update(str(base), str(tuned)), with_intruders=False))
        whole = timed("spectra and intruders", lambda: diagnose(read_update(str(base), str(tuned))))
    passes = sum(
        timed(f"pass {at} over {given.examples} examples", lambda: evaluate(model, given.examples)) for at in (1, 2)
    )
    print(f"spectra / passes {spectra / passes:.2f}, with intruders {whole / passes:.2f}")


def write(model: BertForSequenceClassification, folder: Path, noise: float) -> None:
    folder.mkdir()
    model.config.save_pretrained(folder)
    tensors = {name: tensor + noise * torch.randn_like(tensor) for name, tensor in model.named_parameters()}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


@torch.no_grad()
def evaluate(model: BertForSequenceClassification, n_examples: int) -> None:
    for start in range(0, n_examples, BATCH):
        rows = min(BATCH, n_examples - start)
        model(torch.randint(1000, 20_000, (rows, N_TOKENS)), attention_mask=torch.ones(rows, N_TOKENS))


def timed(what: str, run: Callable[[], object]) -> float:
    """Run it and return seconds of processor time, which other processes on the machine leave alone."""
    clock, processor = time.perf_counter(), time.process_time()
    run()
    clock, processor = time.perf_counter() - clock, time.process_time() - processor
    print(f"{what:30} {clock:8.1f} s by the clock, {processor:8.1f} s of processor time", flush=True)
    return processor


if __name__ == "__main__":
    main()
