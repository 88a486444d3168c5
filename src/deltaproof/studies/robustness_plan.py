"""Every set of a robustness study with what has to be asked for it: facts for the result, queries for the models."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deltaproof.data.split import Split
from deltaproof.robustness.answers import reached
from deltaproof.robustness.perturbations import EMBEDDING_PGD, PERTURBATIONS
from deltaproof.robustness.search_recipes import RECIPES
from deltaproof.robustness.sets import PerturbedSet, read_perturbed, write_perturbed
from deltaproof.robustness.weight_noise import QUESTIONS, Question
from deltaproof.studies.robustness_findings import Json, found_texts_path
from deltaproof.studies.robustness_queries import OfEmbeddings, OfRows, OfSearch, OfWeights, Query
from deltaproof.studies.robustness_sets import (
    WEIGHT_NOISE,
    Attack,
    Given,
    digest,
    file_name,
    text_sets,
    write_given,
)
from deltaproof.tasks.text import TextTask

SEARCH, TRANSFER = "search", "transfer"
NOISE_UNITS = {
    "all": "share of the weights' length",
    "trained": "share of the length of what was trained",
    "equal_norm": "length of the noise",
}


@dataclass
class Plan:
    """What is asked of whom."""

    clean: str
    """Name of the clean answers."""
    queries: list[Query] = field(default_factory=list)
    """Asked of every model."""
    on_the_way: list[Query] = field(default_factory=list)
    """Asked of snapshots too: clean rows, and the middle strength of what keeps labels."""
    sets: list[Json] = field(default_factory=list)
    """Facts of each set, and `draws`: the names of its answers."""
    contrast: list[Json] = field(default_factory=list)


def plan_for(rows: Split, attack: Attack, given: Sequence[Given], length: float = 1.0) -> Plan:
    """The plan without its text sets, which `add_texts` makes.

    Args:
        length: of the noise whose shares `equal_norm` puts into every method alike.
    """
    plan = Plan(f"clean-{rows.fingerprint[:8]}")
    plan.queries.append(OfRows((plan.clean,), rows))
    plan.on_the_way.append(plan.queries[0])
    if EMBEDDING_PGD in attack.perturbations and attack.epsilons:
        _add_pgd(plan, rows, attack)
    if WEIGHT_NOISE in attack.perturbations:
        _add_noise(plan, rows, attack, length)
    for name in attack.searches:
        _add_search(plan, rows, attack, name)
    for one in given:
        _add_given(plan, one)
    return plan


def add_texts(plan: Plan, rows: Split, attack: Attack) -> list[tuple[Json, list[PerturbedSet]]]:
    """Perturb the rows and ask for them before all else; returns what was made beside its facts."""
    made = list(text_sets(rows, attack))
    return [
        (_add_text(plan, name, strength, [one.split for one in draws], attack), draws)
        for name, strength, draws in reversed(made)
    ]


def store_texts(
    added: Sequence[tuple[Json, list[PerturbedSet]]], rows: Split, folder: Path, tokenizer: Any, task: TextTask
) -> None:
    """Store the exact texts in the run folder, and note how many rows they reach."""
    for entry, draws in added:
        hits = [int(reached(tokenizer, task, rows, made.split).sum()) for made in draws]
        entry["n_reached"] = round(sum(hits) / len(hits))
        entry["files"] = [_store(folder, answers, made) for answers, made in zip(entry["draws"], draws, strict=True)]
        entry["file"] = entry["files"][0]


def store_given(plan: Plan, given: Sequence[Given], folder: Path) -> None:
    """Store the exact rows of the user's files in the run folder."""
    places = {one.name: write_given(folder, one) for one in given}
    for entry in (*plan.sets, *plan.contrast):
        if entry["name"] in places:
            entry["file"] = places[entry["name"]]


def _add_text(plan: Plan, name: str, strength: float, draws: Sequence[Split], attack: Attack) -> Json:
    kind = PERTURBATIONS[name]
    files = [f"{name}@{strength:g}-{at}-{split.fingerprint[:8]}" for at, split in enumerate(draws)]
    queries: list[Query] = [OfRows((file,), split) for file, split in zip(files, draws, strict=True)]
    entry = {
        **_facts(name, "perturbation", strength, f"share of {kind.unit}", kind.summary, len(draws[0])),
        "promise": kind.promise(len(draws[0].texts[0])), "n_draws": len(draws), "draws": files, "source": kind.source(),
    }  # fmt: skip
    plan.queries[1:1] = queries  # behind the clean rows, before the attacks that take longer
    if entry["promise"] == "keeps label" and strength == attack.middle(name):
        plan.on_the_way[1:1] = queries
    plan.sets.insert(0, entry)
    return entry


def _store(folder: Path, answers: str, made: PerturbedSet) -> str:
    place = f"robustness/sets/{answers}.jsonl"
    if not (folder / place).exists():
        write_perturbed(folder / place, made)
    return place


def _add_pgd(plan: Plan, rows: Split, attack: Attack) -> None:
    epsilons = sorted(set(attack.epsilons))
    mark = digest([rows.fingerprint, epsilons, attack.pgd_steps, attack.seed, "until wrong"])
    files = [f"{EMBEDDING_PGD}@{epsilon:g}-{mark}" for epsilon in epsilons]
    summary = (
        f"The token vectors of a row move within a ball, at most {attack.pgd_steps} gradient steps until the answer is "
        f"wrong: white-box, and no text at all."
    )
    for epsilon, file in zip(epsilons, files, strict=True):
        facts = _facts(EMBEDDING_PGD, "embedding_pgd", epsilon, "share of the embeddings' length", summary, len(rows))
        plan.sets.append({**facts, "n_reached": len(rows), "draws": [file]})
    plan.queries.append(OfEmbeddings(tuple(files), rows, tuple(epsilons), attack.pgd_steps, attack.seed))


def _add_noise(plan: Plan, rows: Split, attack: Attack, length: float) -> None:
    mark = digest([rows.fingerprint, attack.seed])
    asked: dict[tuple[bool, int], list[tuple[str, Question, float]]] = {}
    for question, summary in QUESTIONS.items():
        for share in sorted(set(attack.noise_sizes)):
            size = float(f"{share * length:.3g}") if question == "equal_norm" else share
            name = f"{WEIGHT_NOISE}_{question}"
            files = [f"{name}@{size:g}-{draw}-{mark}" for draw in range(attack.noise_draws)]
            facts = _facts(name, WEIGHT_NOISE, size, NOISE_UNITS[question], summary.capitalize(), len(rows))
            plan.sets.append({**facts, "question": question, "n_draws": attack.noise_draws, "draws": files})
            for draw, file in enumerate(files):
                asked.setdefault((question == "all", draw), []).append((file, question, size))
    for (_, draw), same in asked.items():  # noise that differs in its size alone is drawn once
        names, sizes = tuple(file for file, _, _ in same), tuple((question, size) for _, question, size in same)
        plan.queries.append(OfWeights(names, rows, sizes, attack.seed, draw))


def _add_search(plan: Plan, rows: Split, attack: Attack, name: str) -> None:
    """A set for each strength; the texts are each model's own, found when it is asked."""
    recipe, strengths = RECIPES[name], attack.levels(name)
    mark = digest([rows.fingerprint, attack.most_queries, attack.seed, recipe.source()])
    files = tuple(f"{name}@{strength:g}-{mark}" for strength in strengths)
    for strength, file in zip(strengths, files, strict=True):
        facts = _facts(name, SEARCH, strength, "share of words", recipe.summary, len(rows))
        promise, place = recipe.promise(len(rows.texts[0])), f"robustness/sets/{file}"
        plan.sets.append({**facts, "promise": promise, "file": place, "source": recipe.source(), "draws": [file]})
    plan.queries.append(OfSearch(files, rows, name, tuple(strengths), attack.most_queries, attack.seed))


def transferred(plan: Plan, folder: Path, against: Mapping[str, str]) -> tuple[dict[str, list[Query]], list[Json]]:
    """Every model's questions about the texts that searches found against another, and the sets' facts.

    Args:
        against: model to the model of the same seed whose texts it is given.
    """
    queries: dict[str, list[Query]] = {model: [] for model in against}
    sets = []
    for entry in plan.sets:
        if entry["kind"] != SEARCH:
            continue
        file = f"{entry['name']}_{TRANSFER}@{entry['strength']:g}-{digest([entry['draws'], sorted(against.items())])}"
        summary = f"What {entry['name']} found against the reference's model of the same seed, given to every method."
        sets.append({
            **entry, "name": f"{entry['name']}_{TRANSFER}", "kind": TRANSFER, "summary": summary, "draws": [file],
        })  # fmt: skip
        for model, other in against.items():
            texts = read_perturbed(found_texts_path(folder, other, entry["draws"][0])).split
            queries[model].append(OfRows((file,), texts))
    return queries, sets


def _add_given(plan: Plan, one: Given) -> None:
    file = f"{file_name(one.name)}-{one.split.fingerprint[:8]}"
    what = "Contrast sets of the user's." if one.is_contrast else "Rows of the user's own, with their labels."
    facts = {**_facts(one.name, "adversarial", None, "", what, len(one.split)), "paired": False, "draws": [file]}
    (plan.contrast if one.is_contrast else plan.sets).append(facts)
    plan.queries.append(OfRows((file,), one.split))


def _facts(name: str, kind: str, strength: float | None, unit: str, summary: str, n_examples: int) -> Json:
    return {
        "name": name, "kind": kind, "promise": None, "question": None, "strength": strength, "unit": unit,
        "summary": summary, "n_examples": n_examples, "n_reached": None, "n_draws": 1, "file": None, "files": None,
        "source": None, "paired": True, "draws": [],
    }  # fmt: skip
