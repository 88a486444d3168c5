"""One sweep of LoRA contestants by `peft` + `Trainer` and by ours: time, memory, accuracy, distance to the floor.

    python benchmarks/sweep.py                              # four contestants, made-up texts, every way
    python benchmarks/sweep.py --data reviews.csv --contestants 8 --rows 1000 --precision fp32
    python benchmarks/sweep.py --ways trainer,lanes --contestants 2 --seeds 10    # are the accuracies equal?
    python benchmarks/sweep.py --rates 5e-4,1e-3,2e-3,4e-3 --ways trainer,lanes,halved

Ways:
    trainer           `peft` + `transformers.Trainer` one after another: documented defaults, dynamic padding
    trainer_tuned     the same with batches of like length, pinned threads, and the allocator settings that ours has
    trainer_compiled  `trainer_tuned` with torch.compile; needs a C++ compiler
    trainer_two       `trainer_tuned` in two processes of one thread each
    local             `deltaproof compare`, each run a process of its own, two side by side
    lanes             `deltaproof compare --engine lanes`
    halved            `lanes` with `--tuning halving`; needs several rates

Every way loads the model, trains each contestant to the end with an evaluation per epoch and scores the test rows; ours
also does what an experiment does beside that: probes, latencies, records. With several rates, peft's ways train each
contestant with each of them to the end and take the best on validation; ours try them as `compare` does, and train the
best once more for the result. So with several rates `trainer` is a sweep in which every trial goes to its end, against
which `halved` is held: each way says which contestant it found the best. Ways run in turns, each in a process of its
own; printed are medians over the rounds, and of the ratios within a round. Memory is the peak of the proportional set
size of the process and its children; of a process of lanes also its own peak, what was foretold of it, and as many
times what the probe of one of its runs took alone. Look at the load that is printed: on a busy machine no time means
anything.
"""

import argparse
import csv
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import psutil

RANKS = (8, 4, 16, 2, 8, 4, 16, 2)
ALPHAS = (16, 16, 16, 16, 24, 24, 24, 24)
TARGETS = ["query", "key", "value", "attention.output.dense", "intermediate.dense", "output.dense"]
WAYS = ("trainer", "trainer_tuned", "trainer_compiled", "trainer_two", "local", "lanes", "halved")
PLAIN = ("trainer", "trainer_tuned", "trainer_two", "local", "lanes")
OURS = ("local", "lanes", "halved")
ALLOCATOR = {"MALLOC_TRIM_THRESHOLD_": "1073741824", "MALLOC_MMAP_THRESHOLD_": "1073741824",
             "MALLOC_TOP_PAD_": "67108864"}  # fmt: skip


def contestants(n: int) -> list[tuple[int, int]]:
    """Rank and alpha of each."""
    return [(RANKS[at % 8], ALPHAS[at % 8] + 4 * (at // 8)) for at in range(n)]


def made_up(n_rows: int, seed: int) -> Iterator[tuple[str, str]]:
    """Texts whose label is whether praise outweighs blame, lengths as of short reviews (some 19 words)."""
    draw = random.Random(seed)
    praise, blame = ["superb", "moving", "clever", "warm", "honest"], ["dull", "clumsy", "cold", "hollow", "tired"]
    filler = ["the", "film", "has", "a", "story", "and", "its", "cast", "plays", "in", "every", "scene", "of", "this"]
    for number in range(n_rows):
        n_words = min(60, max(3, round(draw.lognormvariate(2.75, 0.65))))
        words = [draw.choice(filler) for _ in range(n_words)]
        is_good = number % 2
        for _ in range(max(1, n_words // 6)):
            words[draw.randrange(n_words)] = draw.choice(praise if draw.random() < (0.8 if is_good else 0.2) else blame)
        yield f"{' '.join(words)} {number}", ("bad", "good")[is_good]


def prepare(folder: Path, data: Path | None, n_rows: int) -> None:
    """Write train, validation and test files that every way reads; of a file given, its rows in a drawn order."""
    if data is None:
        rows = list(made_up(n_rows + 400, 0))
    else:
        delimiter = "\t" if data.suffix == ".tsv" else ","
        with data.open(encoding="utf-8", newline="") as file:
            read = list(csv.DictReader(file, delimiter=delimiter))
        label = "label" if "label" in read[0] else next(reversed(read[0]))
        text = next(name for name in ("text", "sentence", *read[0]) if name in read[0] and name != label)
        rows = list(dict.fromkeys((row[text], row[label]) for row in read))
    random.Random(0).shuffle(rows)
    parts = {"train": rows[:n_rows], "validation": rows[n_rows : n_rows + 200], "test": rows[n_rows + 200 :][:200]}
    for name, part in parts.items():
        with (folder / f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([("text", "label"), *part])


def by_trainer(options: argparse.Namespace, way: str, which: list[int]) -> list[list[float]]:
    """Test accuracies of some contestants, by seed, one after another, as the guides of both libraries have it."""
    import numpy as np
    import peft
    import torch
    from datasets import load_dataset
    from transformers import (
        AutoModelForSequenceClassification,
        AutoTokenizer,
        DataCollatorWithPadding,
        Trainer,
        TrainingArguments,
    )

    from deltaproof.backbones.source import find_source

    is_tuned = way != "trainer"
    folder = find_source(options.model, None).folder
    tokenizer = AutoTokenizer.from_pretrained(folder)
    files = {name: str(options.folder / f"{name}.csv") for name in ("train", "validation", "test")}
    data = load_dataset("csv", data_files=files, cache_dir=str(options.folder / "cache"))
    names = sorted(set(data["train"]["label"]))
    data = data.map(
        lambda row: {**tokenizer(row["text"], truncation=True, max_length=256), "labels": names.index(row["label"])},
        remove_columns=["text", "label"],
    )

    def trained(rank: int, alpha: int, rate: float, seed: int) -> tuple[float, float]:
        """Accuracies on validation and test."""
        torch.manual_seed(seed)
        model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=len(names))
        config = peft.LoraConfig(task_type="SEQ_CLS", r=rank, lora_alpha=alpha, target_modules=TARGETS)
        arguments = TrainingArguments(
            output_dir=tempfile.mkdtemp(dir=options.folder),
            learning_rate=rate,
            per_device_train_batch_size=options.batch_size,
            per_device_eval_batch_size=2 * options.batch_size,
            num_train_epochs=options.epochs,
            warmup_steps=0.1,
            eval_strategy="epoch",
            save_strategy="no",
            logging_strategy="no",
            report_to="none",
            disable_tqdm=True,
            use_cpu=True,
            seed=seed,
            bf16=options.precision == "bf16",
            torch_compile=way == "trainer_compiled",
            train_sampling_strategy="group_by_length" if is_tuned else "random",
        )
        trainer = Trainer(
            peft.get_peft_model(model, config), arguments, train_dataset=data["train"],
            eval_dataset=data["validation"], data_collator=DataCollatorWithPadding(tokenizer),
            compute_metrics=lambda found: {"accuracy": (np.argmax(found.predictions, -1) == found.label_ids).mean()},
        )  # fmt: skip
        trainer.train()
        validation = [entry["eval_accuracy"] for entry in trainer.state.log_history if "eval_accuracy" in entry]
        return validation[-1], trainer.predict(data["test"]).metrics["test_accuracy"]

    return [
        [max(trained(*contestants(options.contestants)[number], rate, seed) for rate in options.rates)[1]
         for seed in range(options.seeds)]
        for number in which
    ]  # fmt: skip


def by_two(options: argparse.Namespace) -> list[list[float]]:
    """`trainer_tuned`, every other contestant in each of two processes."""
    halves = [range(at, options.contestants, 2) for at in (0, 1)]
    running = [start(options, "trainer_tuned", [str(at) for at in half], n_threads=1) for half in halves]
    found = [json.loads(process.communicate()[0].splitlines()[-1])["accuracies"] for process in running]
    return [found[at % 2][at // 2] for at in range(options.contestants)]


def by_ours(options: argparse.Namespace, way: str) -> dict[str, Any]:
    import deltaproof
    from deltaproof.records.store import Store

    out = options.folder / f"{way}-{os.getpid()}"
    methods = [f"lora(rank={rank}, alpha={alpha})" for rank, alpha in contestants(options.contestants)]
    files = {name: str(options.folder / f"{name}.csv") for name in ("validation", "test")}
    deltaproof.compare(
        model=options.model, data=str(options.folder / "train.csv"), **files, methods=methods,
        learning_rates=options.rates, seeds=options.seeds, baselines=False, epochs=options.epochs,
        batch_size=options.batch_size, precision=options.precision, engine="local" if way == "local" else "lanes",
        tuning="halving" if way == "halved" else "grid", device="cpu", workers=2, keep="none", out=out,
    )  # fmt: skip
    from deltaproof.methods.lora import LoRA  # loads torch, which `compare` does beside its server of workers

    labels = [LoRA(rank=rank, alpha=alpha).label for rank, alpha in contestants(options.contestants)]
    every = list(Store(out).records())
    records = {(record.spec.contestant, record.spec.seed): record for record in every if record.spec.stage == "final"}
    costs = [record.cost for record in every if record.status == "done"]
    seeds = sorted({seed for _, seed in records})
    return {
        "accuracies": [[records[name, seed].test["accuracy"] for seed in seeds] for name in labels],
        "training_flops": sum(cost.train_flops for cost in costs),
        "training_seconds": sum(cost.train_seconds for cost in costs),
        "lanes": groups(every),
    }


def groups(records: list[Any]) -> list[dict[str, Any]]:
    """What was measured of processes of lanes; those of the same contestants, stage and seed count as one."""
    found: dict[Any, dict[str, Any]] = {}
    for record in records:
        if lanes := record.environment.get("lanes"):
            key = (record.spec.stage, record.spec.seed, *lanes["contestants"])
            group = found.setdefault(key, {**lanes, "stage": record.spec.stage, "alone_bytes": 0})
            group["peak_memory_bytes"] = max(group["peak_memory_bytes"], lanes["peak_memory_bytes"])
            alone_bytes = lanes["lanes"] * record.cost.peak_memory_bytes
            group["alone_bytes"] = max(group["alone_bytes"], alone_bytes)
    return list(found.values())


def one_way(options: argparse.Namespace) -> None:
    """What the process of one way does; its last line is what was found."""
    started = time.perf_counter()
    if options.one in OURS:
        found = by_ours(options, options.one)
    elif options.one == "trainer_two":
        found = {"accuracies": by_two(options)}
    else:
        which = [int(at) for at in options.which or range(options.contestants)]
        found = {"accuracies": by_trainer(options, options.one, which)}
    print("\n" + json.dumps({"seconds": time.perf_counter() - started, **found}))


def start(
    options: argparse.Namespace, way: str, which: list[str] | None = None, n_threads: int | None = None
) -> "subprocess.Popen[str]":
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    if way == "trainer":
        environment.pop("OMP_NUM_THREADS", None)
    else:
        is_pinned = way in ("trainer_tuned", "trainer_compiled")
        n_threads = n_threads or (options.threads if is_pinned else 1)
        environment |= {"OMP_NUM_THREADS": str(n_threads), **ALLOCATOR}
    given = [f"--{name}={getattr(options, name)}" for name in
             ("contestants", "epochs", "batch_size", "precision", "model", "folder", "seeds", "threads")]  # fmt: skip
    given.append(f"--rates={','.join(map(str, options.rates))}")
    command = [sys.executable, __file__, *(each.replace("batch_size", "batch-size") for each in given), f"--one={way}"]
    command += ["--which", *which] if which else []
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment)


def measured(options: argparse.Namespace, way: str) -> dict[str, Any]:
    """Run one way in a process of its own and watch its memory."""
    process = start(options, way)
    peak, is_over = [0], threading.Event()

    def watch() -> None:
        while not is_over.wait(0.5):
            try:
                root = psutil.Process(process.pid)
                family = [root, *root.children(recursive=True)]
                peak[0] = max(peak[0], sum(each.memory_full_info().pss for each in family))
            except psutil.Error:
                continue

    watcher = threading.Thread(target=watch)
    watcher.start()
    output, _ = process.communicate()
    is_over.set()
    watcher.join()
    if process.returncode:
        raise SystemExit(f"`{way}` must come to its end, it ended with code {process.returncode}; run it with --one")
    return {**json.loads(output.splitlines()[-1]), "peak_bytes": peak[0], "load": os.getloadavg()[0]}


def known_precision() -> str:
    """What ours would pick on this processor."""
    import torch

    from deltaproof.training.precision import pick_precision

    return pick_precision("auto", torch.device("cpu"))


def peak_flops_per_second(precision: str) -> float:
    """What matrix products reach on one core."""
    import torch

    torch.set_num_threads(1)
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    a, b = torch.randn(2048, 384, dtype=dtype), torch.randn(384, 1536, dtype=dtype)
    times = []
    for _ in range(20):
        started = time.perf_counter()
        a @ b
        times.append(time.perf_counter() - started)
    return 2 * 2048 * 384 * 1536 / median(times)


def spread(values: list[float]) -> str:
    return f"{median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def best(options: argparse.Namespace, accuracies: list[list[float]]) -> str:
    """The contestants of the highest mean accuracy; several where they tie."""
    means = [sum(by_seed) / len(by_seed) for by_seed in accuracies]
    named = [f"rank {rank}, alpha {alpha}" for (rank, alpha), mean in
             zip(contestants(options.contestants), means, strict=True) if mean == max(means)]  # fmt: skip
    return f"{' and '.join(named)} ({max(means):.3f})"


def difference(ours: list[list[float]], theirs: list[list[float]]) -> str:
    """Mean difference of accuracies over seeds, contestants averaged, with a 95 % interval (Welch)."""
    from scipy import stats

    one, other = ([sum(by_seed) / len(by_seed) for by_seed in zip(*each, strict=True)] for each in (ours, theirs))
    found = stats.ttest_ind(one, other, equal_var=False)
    low, high = found.confidence_interval()
    mean = sum(one) / len(one) - sum(other) / len(other)
    return f"{100 * mean:+.1f} points ({100 * low:+.1f} to {100 * high:+.1f}) over {len(one)} seeds a side"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="CSV or TSV with a text and a label column; made-up texts otherwise")
    parser.add_argument("--contestants", type=int, default=4)
    parser.add_argument("--rows", type=int, default=500, help="training rows; 200 more each to validate and to test")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--precision", choices=("auto", "fp32", "bf16"), default="auto",
                        help="of every way; auto: bf16 where the processor has instructions for it")  # fmt: skip
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--ways", default=",".join(PLAIN), help=f"of {', '.join(WAYS)}")
    parser.add_argument("--rates", type=lambda text: [float(rate) for rate in text.split(",")], default=[1e-3],
                        help="learning rates, with commas; with several, each contestant tries them")  # fmt: skip
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of trainer_tuned and trainer_compiled")
    parser.add_argument("--model", default="minilm")
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--one", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--which", nargs="*", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        one_way(options)
        return
    if options.precision == "auto":
        options.precision = known_precision()
    if unknown := set(options.ways.split(",")) - set(WAYS):
        parser.error(f"--ways takes names of {', '.join(WAYS)}, got {', '.join(sorted(unknown))}")
    with tempfile.TemporaryDirectory() as folder:
        options.folder = Path(folder)
        os.environ["DELTAPROOF_HOME"] = str(options.folder / "home")
        prepare(options.folder, options.data, options.rows)
        ways = [way for way in WAYS if way in options.ways.split(",")]
        if "trainer_compiled" in ways and not any(map(shutil.which, ("c++", "g++", "clang++"))):
            print("trainer_compiled is left out: torch.compile needs a C++ compiler, none was found", file=sys.stderr)
            ways.remove("trainer_compiled")
        sweep(options, ways)


def sweep(options: argparse.Namespace, ways: list[str]) -> None:
    """All rounds, and the table."""
    found: dict[str, list[dict[str, Any]]] = {way: [] for way in ways}
    for number in range(options.rounds):
        for way in ways if number % 2 == 0 else reversed(ways):
            found[way].append(measured(options, way))
            print(f"round {number + 1} {way}: {found[way][-1]['seconds']:.1f} s", file=sys.stderr)
    first = ways[0]
    print(f"{options.contestants} contestants, {options.rows} rows, {options.epochs} epoch(s), batches of "
          f"{options.batch_size}, {options.precision}, {options.rounds} round(s)")  # fmt: skip
    print(f"{'way':15}{'seconds':>9}  {first + ' / way':27}{'peak GB':>8}  {'accuracy':26}load")
    for way, runs in found.items():
        ratios = [base["seconds"] / run["seconds"] for base, run in zip(found[first], runs, strict=True)]
        accuracies = [accuracy for run in runs for by_seed in run["accuracies"] for accuracy in by_seed]
        print(f"{way:15}{median(run['seconds'] for run in runs):9.1f}  {spread(ratios):27}"
              f"{max(run['peak_bytes'] for run in runs) / 1e9:8.2f}  {spread(accuracies):26}"
              f"{max(run['load'] for run in runs):.1f}")  # fmt: skip
    for way in ways if len(options.rates) > 1 else ():
        print(f"{way} found the best: {best(options, found[way][0]['accuracies'])}")
    if options.seeds > 1:
        for way in ways[1:]:
            print(f"{way} - {first}: {difference(found[way][0]['accuracies'], found[first][0]['accuracies'])}")
    peak = peak_flops_per_second(options.precision)
    for way in OURS:
        for run in found.get(way, [])[:1]:
            floor = run["training_flops"] / peak
            print(f"{way}: {run['training_flops']:.3g} FLOPs of matrix products in training would take {floor:.1f} s "
                  f"at the {peak / 1e9:.0f} GFLOP/s that one core reaches; it took {run['training_seconds']:.1f} s of "
                  f"one core")  # fmt: skip
            for lanes in run["lanes"]:
                measured_step = f"; a step {lanes['gain']:.2f} times as fast as alone" if lanes["gain"] else ""
                print(f"{way}: {lanes['lanes']} lanes ({lanes['stage']}), {lanes['side_by_side']} in one pass"
                      f"{measured_step}; peak {lanes['peak_memory_bytes'] / 1e6:.0f} MB, "
                      f"{lanes['predicted_memory_bytes'] / 1e6:.0f} foretold, {lanes['alone_bytes'] / 1e6:.0f} for as "
                      f"many alone")  # fmt: skip
    if options.json:
        named = ("contestants", "rows", "epochs", "batch_size", "precision", "rates", "seeds", "threads")
        made = {name: getattr(options, name) for name in named}
        options.json.write_text(json.dumps({"made": made, "ways": found}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
