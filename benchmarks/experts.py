"""How long does a switch from one expert to another take, and what do many take in memory, beside peft?

    python benchmarks/experts.py                                    # tiny, in a minute
    python benchmarks/experts.py --size minilm --experts 3,30,300   # a BERT of MiniLM's size, random weights
    python benchmarks/experts.py --model minilm --experts 30        # a model of yours

Experts are LoRA of rank 8 on every linear map, with a head, as peft saves them; and the same compressed at density 0.2.
For each number of experts one process loads all of them with `load_adapter`, beside `Experts`. Then every round picks
the next expert by chance and lets each side switch to it, in an order by chance: ratios are of the same round. Times
are processor time of this process on one thread. "cold" reads the expert's files, which the system has cached; "warm"
has it in memory. What n experts take in memory is the growth of a process of its own that holds all of them.

Before anything is timed, answers are compared: those of uncompressed experts with peft's, to 1e-5 of a logit.
"""

import argparse
import gc
import json
import multiprocessing
import random
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import peft
import psutil
import torch
from peft.utils.hotswap import hotswap_adapter
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification, BertConfig, BertForSequenceClassification

from deltaproof import Experts
from deltaproof.backbones import save_tiny
from deltaproof.backbones.quiet import quiet
from deltaproof.backbones.source import find_source
from deltaproof.compression.folder import compress_folder
from deltaproof.compression.restore import decompress

LINEAR = ["query", "key", "value", "attention.output.dense", "intermediate.dense", "output.dense"]
GIB = 2**30


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="a BERT-like base; by default one with random weights")
    parser.add_argument("--size", choices=["tiny", "minilm"], default="tiny", help="of the random one")
    parser.add_argument("--experts", default="3,30")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--json", type=Path, help="write the numbers here")
    given = parser.parse_args()
    torch.set_num_threads(1)
    numbers = [int(n) for n in given.experts.split(",")]
    with tempfile.TemporaryDirectory() as place, quiet():
        folder = Path(place)
        base = given.model or str(random_base(given.size, folder / "base"))
        n_values, n_dense, n_small = make_experts(base, folder, max(numbers))
        print(
            f"base {given.model or given.size + ', random weights'}; LoRA r=8 on {n_values:,} values with a head; "
            f"{n_dense:,} bytes dense, {n_small:,} compressed; {given.rounds} rounds, processor time of one thread"
        )
        found = {}
        for n in numbers:
            print(f"\n{n} experts", flush=True)
            times, growth = in_process(switch_times, base, folder, n, given.rounds)
            print_times(times)
            growth |= {side: in_process(memory_of, base, folder, n, side) for side in ("dense", "small")}
            print_memory(growth, n)
            found[n] = {"seconds": times, "bytes": growth}
    if given.json:
        given.json.write_text(json.dumps(found), encoding="utf-8")


def random_base(size: str, place: Path) -> Path:
    save_tiny("bert", place)
    if size == "minilm":
        config = BertConfig(
            vocab_size=30522, hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536
        )
        torch.manual_seed(0)
        BertForSequenceClassification(config).bert.save_pretrained(place)
    return place


def make_experts(base: str, folder: Path, n: int) -> tuple[int, int, int]:
    """Write n adapters and their compressed forms; returns values of LoRA and bytes of the first of each."""
    torch.manual_seed(0)
    config = peft.LoraConfig(task_type="SEQ_CLS", r=8, lora_alpha=16, target_modules=LINEAR)
    peft.get_peft_model(plain(base), config).save_pretrained(folder / "template")
    template = load_file(folder / "template" / "adapter_model.safetensors")
    for at in range(n):
        place = folder / "dense" / name_of(at)
        place.mkdir(parents=True)
        shutil.copy(folder / "template" / "adapter_config.json", place)
        draw = torch.Generator().manual_seed(at)
        noisy = {key: value + 0.05 * torch.randn(value.shape, generator=draw) for key, value in template.items()}
        save_file(noisy, place / "adapter_model.safetensors", {"format": "pt"})
        save_headless(noisy, place, folder / "headless" / name_of(at))
        (folder / "small").mkdir(exist_ok=True)
        compress_folder(place, folder / "small" / f"{name_of(at)}.dpz", density=0.2)
    values = sum(value.numel() for key, value in template.items() if "lora_" in key)
    sizes = [(folder / "dense" / name_of(0) / "adapter_model.safetensors"), folder / "small" / f"{name_of(0)}.dpz"]
    return values, *(path.stat().st_size for path in sizes)


def save_headless(tensors: dict[str, torch.Tensor], place: Path, out: Path) -> None:
    """What `hotswap_adapter` can take: it knows no head, and stops at one (KeyError, peft 0.21)."""
    out.mkdir(parents=True)
    config = json.loads((place / "adapter_config.json").read_text())
    (out / "adapter_config.json").write_text(json.dumps({**config, "task_type": None, "modules_to_save": None}))
    kept = {key: value for key, value in tensors.items() if "lora_" in key}
    save_file(kept, out / "adapter_model.safetensors", {"format": "pt"})


def plain(base: str) -> torch.nn.Module:
    return AutoModelForSequenceClassification.from_pretrained(find_source(base).folder, num_labels=2).eval()


def name_of(at: int) -> str:
    return f"e{at:03}"


def in_process(do: Callable, *arguments: object) -> object:
    """In a fresh process, so that nothing of one measurement is left in the next."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(do, arguments)


def switch_times(base: str, folder: Path, n: int, rounds: int) -> tuple[dict[str, list[float]], dict[str, int]]:
    """Seconds of each side, and by how many bytes peft's grew: what loads all is not done twice."""
    torch.set_num_threads(1)
    names = [name_of(at) for at in range(n)]
    with quiet():
        model = plain(base)
        with torch.inference_mode():
            model(**one_row())
        before = resident()
        model = peft.PeftModel.from_pretrained(model, folder / "dense" / names[0], adapter_name=names[0])
        loading = []
        for name in names[1:]:
            started = time.process_time()
            model.load_adapter(folder / "dense" / name, name)
            loading.append(time.process_time() - started)
        growth = {"peft": resident() - before}
        model.eval()
        lone = peft.PeftModel.from_pretrained(plain(base), folder / "dense" / names[0], adapter_name="x").eval()
        swapped = peft.PeftModel.from_pretrained(plain(base), folder / "headless" / names[0]).eval()
        places = {"dense": folder / "dense", "small": folder / "small"}
        warm = {kind: Experts(base, place, cache_bytes=4 * GIB) for kind, place in places.items()}
        cold = {kind: Experts(base, place, cache_bytes=0) for kind, place in places.items()}
        for name in names:
            for experts in warm.values():
                experts.use(name)
        check_answers(model, warm, names, folder, base)

        def load_and_delete(name: str) -> None:
            lone.load_adapter(folder / "dense" / name, "y")
            lone.set_adapter("y", inference_mode=True)
            lone.delete_adapter("x")
            lone.load_adapter(folder / "dense" / name, "x")  # the next round begins as this one did
            lone.set_adapter("x", inference_mode=True)
            lone.delete_adapter("y")

        def swap(name: str) -> None:
            hotswap_adapter(swapped, folder / "headless" / name, "default")

        sides: dict[str, Callable[[str], object]] = {
            "peft set_adapter, all loaded": lambda name: model.set_adapter(name, inference_mode=True),
            "warm": warm["dense"].use,
            "warm, compressed": warm["small"].use,
            "peft load, set, delete": load_and_delete,
            "peft hotswap_adapter, no head": swap,
            "cold": cold["dense"].use,
            "cold, compressed": cold["small"].use,
        }
        times = rounds_of(sides, names, rounds)
    times["peft load, set, delete"] = [value / 2 for value in times["peft load, set, delete"]]
    times["peft load_adapter"] = loading
    return times, growth


def rounds_of(sides: dict[str, Callable[[str], object]], names: list[str], rounds: int) -> dict[str, list[float]]:
    draw = random.Random(0)
    times: dict[str, list[float]] = {side: [] for side in sides}
    before = names[0]
    for number in range(-2, rounds):
        name = draw.choice([other for other in names if other != before])
        before = name
        for side in draw.sample(list(sides), len(sides)):
            gc.collect()
            started = time.process_time()
            sides[side](name)
            if number >= 0:
                times[side].append(time.process_time() - started)
    return times


@torch.inference_mode()
def check_answers(
    model: peft.PeftModel, warm: dict[str, Experts], names: list[str], folder: Path, base: str
) -> None:  # fmt: skip
    draw = torch.Generator().manual_seed(0)
    batch = {"input_ids": torch.randint(5, 40, (4, 12), generator=draw), "attention_mask": torch.ones(4, 12).long()}
    asked = [names[0], names[-1], names[len(names) // 2]]
    for name in asked:
        model.set_adapter(name, inference_mode=True)
        theirs, ours = model(**batch).logits, warm["dense"].use(name)(**batch).logits
        assert torch.allclose(theirs, ours, rtol=0, atol=1e-5), name
        out = folder / f"again-{name}"
        if not out.exists():
            decompress(folder / "small" / f"{name}.dpz", out)
        theirs = peft.PeftModel.from_pretrained(plain(base), out).eval()(**batch).logits
        assert torch.allclose(theirs, warm["small"].use(name)(**batch).logits, rtol=0, atol=1e-5), name
    print(f"  answers of {len(asked)} experts are peft's, uncompressed and compressed")


def memory_of(base: str, folder: Path, n: int, side: str) -> int:
    """Growth of the process in bytes, from a base that has answered to n experts held."""
    torch.set_num_threads(1)
    with quiet(), torch.inference_mode():
        experts = Experts(base, folder / side, cache_bytes=4 * GIB)
        experts.base.model(**one_row())
        before = resident()
        for at in range(n):
            experts.use(name_of(at))
        return resident() - before


def one_row() -> dict[str, torch.Tensor]:
    return {"input_ids": torch.ones(1, 8).long(), "attention_mask": torch.ones(1, 8).long()}


def resident() -> int:
    gc.collect()
    return psutil.Process().memory_info().rss


def print_times(times: dict[str, list[float]]) -> None:
    for side, values in times.items():
        print(f"  {side:30} {1e3 * statistics.median(values):9.3f} ms")
    pairs = [
        ("peft set_adapter, all loaded", "warm"), ("peft set_adapter, all loaded", "warm, compressed"),
        ("peft load, set, delete", "cold"), ("peft hotswap_adapter, no head", "cold"),
        ("peft hotswap_adapter, no head", "cold, compressed"),
    ]  # fmt: skip
    for theirs, ours in pairs:
        low, middle, high = np.quantile(np.array(times[theirs]) / np.array(times[ours]), [0.25, 0.5, 0.75])
        print(f"  {theirs} / {ours}: {middle:.2f} ({low:.2f} to {high:.2f}) times as long", flush=True)


def print_memory(growth: dict[str, int], n: int) -> None:
    for side, n_bytes in growth.items():
        said = {"peft": "peft, all loaded", "dense": "ours, all cached", "small": "ours, all cached, compressed"}[side]
        print(f"  {said:30} {n_bytes / 2**20:9.1f} MiB, {n_bytes / n / 2**20:.3f} an expert", flush=True)


if __name__ == "__main__":
    main()
