"""How often would the verdict err on real runs? Compare a method with itself, over triples of its stored seeds.

    deltaproof compare --model minilm --data demo --methods lora --learning-rates 1.6e-3 --seeds 12 --epochs 2 \\
        --batch-size 16 --max-length 40 --no-baselines --out runs/a_a
    python benchmarks/seed_variation.py runs/a_a

A description, no proof: all triples come from the same few seeds and one test set. The proof is the simulation in
`tests/slow/test_calibration.py`.
"""

import sys
from itertools import combinations
from pathlib import Path

import numpy as np

from deltaproof.metrics import per_unit
from deltaproof.records.store import Store
from deltaproof.stats import compare

N_PAIRS = 2000


def main(folder: Path, margin: float = 0.03) -> None:
    store = Store(folder)
    experiment = store.experiment()
    metric = experiment["task"]["metrics"][0]
    for entry in experiment["contestants"]:
        scores = np.stack([per_unit(metric, store.predictions(key)) for key in entry["final"]])
        if len(scores) < 6:
            sys.exit(f"at least 6 seeds are needed for two triples, `{entry['name']}` has {len(scores)}")
        verdicts = [
            compare({"one": scores[list(one)], "other": scores[list(other)]}, "other", margin)["one"].verdict
            for one, other in pairs_of_triples(len(scores))
        ]
        means = scores.mean(axis=1)
        print(f"{entry['name']}: {len(scores)} seeds, {len(verdicts)} pairs of disjoint triples")
        print(f"  mean {metric} {means.mean():.4f}, standard deviation between seeds {means.std(ddof=1):.4f}")
        for verdict in ("better", "worse", "equivalent", "cannot tell"):
            print(f"  {verdict:12} {verdicts.count(verdict) / len(verdicts):6.1%}")


def pairs_of_triples(n_seeds: int) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Disjoint triples of seeds, each pair once; a sample of `N_PAIRS` where there are more."""
    pairs = [
        (one, other)
        for one in combinations(range(n_seeds), 3)
        for other in combinations(range(n_seeds), 3)
        if one < other and not set(one) & set(other)
    ]
    chosen = np.random.default_rng(0).permutation(len(pairs))[:N_PAIRS]
    return [pairs[at] for at in chosen]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
