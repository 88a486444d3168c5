"""Does a low rank bind? The full update is cut to rank r and asked again; LoRA trained at that rank stands beside it.

The theorem that parameter-efficient tuning reaches a strict subset of what full fine-tuning reaches says nothing of the
loss. Cutting the update that full fine-tuning found does: what is lost from the full update to its best rank-r form is
what rank r cannot express of it; what is lost from there to LoRA trained at that rank is left to optimisation.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from deltaproof.backbones.backbone import Backbone
from deltaproof.backbones.sites import Site, weight_of
from deltaproof.errors import RecordError
from deltaproof.methods import method_from
from deltaproof.methods.base import LINEAR_ROLES
from deltaproof.methods.lora import LoRA
from deltaproof.metrics import per_unit
from deltaproof.records.record import Predictions
from deltaproof.stats import compare
from deltaproof.studies.kept_models import Bed, KeptModel, kept_models

Say = Callable[[str], None]
RANKS = (0, 1, 2, 4, 8, 16, 32, 64, 128, 256)


@dataclass
class Update:
    """What full fine-tuning did to one weight, W1 = W0 + U diag(s) V^T, and where that weight is in the model."""

    site: Site
    place: Tensor
    """The model's own weight, (d_out, d_in): writing into it changes the model."""
    before: Tensor
    after: Tensor
    u: Tensor
    s: Tensor
    v: Tensor

    @property
    def energy(self) -> Tensor:
        """Squared singular values, largest first."""
        return self.s.square()

    def cut(self, rank: int) -> Tensor:
        """W0 plus the best update of this rank in the Frobenius norm. Source: Eckart and Young, 1936,
        doi:10.1007/BF02288367."""
        if rank >= len(self.s):
            return self.after
        change = (self.u[:, :rank] * self.s[:rank]) @ self.v[:rank]
        return self.before + change.to(self.before.dtype)


def updates_of(tuned: Backbone, base: Backbone) -> list[Update]:
    """The update of every linear map in the layers, taken apart; the tuned model's weights are views into it."""
    roles = [role for role in LINEAR_ROLES if any(site.role == role for site in tuned.all_sites)]
    found = []
    for site in tuned.sites(roles):
        place = weight_of(tuned.module(site), site)
        before = weight_of(base.module(site), site).detach().to(place.device)
        after = place.detach().clone()
        u, s, v = torch.linalg.svd((after - before).double(), full_matrices=False)
        found.append(Update(site, place.detach(), before, after, u, s, v))
    return found


def n_directions(update: Update, rank: int) -> int:
    """Dimension of the matrices of this rank and shape: r (m + n - r)."""
    m, n = update.before.shape
    rank = min(rank, m, n)
    return rank * (m + n - rank)


def ranks_at_budget(updates: Sequence[Update], rank: int) -> list[int]:
    """Ranks per weight that spend no more dimensions than rank r everywhere does, but where the update's energy is.

    Direction after direction goes to the weight where the next one holds most energy for the weight's size: a
    heuristic, as the best choice is a knapsack problem.
    """
    budget = sum(n_directions(update, rank) for update in updates)
    ranks, spent = [0] * len(updates), 0
    offers = [
        (-energy / sum(update.before.shape), number, at)
        for at, update in enumerate(updates)
        for number, energy in enumerate(update.energy.tolist())
    ]
    for _, _, at in sorted(offers):
        cost = n_directions(updates[at], ranks[at] + 1) - n_directions(updates[at], ranks[at])
        if spent + cost <= budget:
            ranks[at], spent = ranks[at] + 1, spent + cost
    return ranks


@torch.no_grad()
def put(updates: Sequence[Update], ranks: Sequence[int]) -> None:
    """Write each update, cut to its rank, into the model."""
    for update, rank in zip(updates, ranks, strict=True):
        update.place.copy_(update.cut(rank))


def measured_ranks(updates: Sequence[Update], ranks: Sequence[int]) -> list[int]:
    """The ranks asked for that are below the largest possible one, which comes last and leaves the update whole."""
    whole = max(len(update.s) for update in updates)
    return [*sorted({rank for rank in ranks if 0 <= rank < whole}), whole]


def expressivity(bed: Bed, ranks: Sequence[int] = RANKS, say: Say = lambda text: None) -> dict[str, Any]:
    """Cut every kept full update to each rank, choose a rank on validation, report that one on the test set.

    Raises:
        RecordError: no fully tuned model was kept.
    """
    models = [kept for kept in kept_models(bed.store) if kept.method.name == "full"]
    if not models:
        raise RecordError(
            f"the truncation test needs a fully tuned model, `{bed.store.folder}` kept none; run the same `compare` "
            f"with `full` among the methods and `--keep all`"
        )
    curves = []
    for kept in models:
        say(f"cutting the update of {kept.label}, seed {kept.seed}")
        curves.append(_curve(bed, kept, ranks))
    chosen = choose_rank(curves, bed.experiment["margin"], bed.metric.higher_is_better)
    lora = _trained_at(bed, chosen)
    say(f"the test set, once, at rank {chosen}")
    answers = {"full": [bed.store.predictions(kept.key) for kept in models]}
    answers["truncated"] = [_test_at(bed, kept, chosen) for kept in models]
    if lora is not None and len(lora["keys"]) == len(models):
        answers["lora"] = [bed.store.predictions(key) for key in lora["keys"]]
    return {
        "format": 1,
        "metric": bed.metric.name,
        "margin": bed.experiment["margin"],
        "ranks": [point["rank"] for point in curves[0]["points"]],
        "curves": curves,
        "trained": _all_trained(bed),
        "chosen_rank": chosen,
        "lora": lora,
        "test": _verdicts(bed, answers),
    }


def choose_rank(curves: Sequence[dict[str, Any]], margin: float, higher_is_better: bool) -> int:
    """The lowest rank whose mean validation score is within the margin of the whole update's."""
    sign = 1 if higher_is_better else -1
    scores = np.array([[sign * point["validation"] for point in curve["points"]] for curve in curves]).mean(axis=0)
    ranks = [point["rank"] for point in curves[0]["points"]]
    return int(next(rank for rank, score in zip(ranks, scores, strict=True) if score >= scores[-1] - margin))


def _curve(bed: Bed, kept: KeptModel, ranks: Sequence[int]) -> dict[str, Any]:
    """Validation scores of one full update, cut per weight, cut at equal budget, and cut with the rest at the base."""
    tuned, task = kept.load()
    base = kept.load_base()
    updates = updates_of(tuned.backbone, base)
    total = float(sum(update.energy.sum() for update in updates))
    points = []

    def score() -> float:
        tokenizer = tuned.backbone.tokenizer
        return bed.score(bed.answers(tuned, task, tokenizer, bed.dataset.validation, kept))

    for rank in measured_ranks(updates, ranks):
        put(updates, [rank] * len(updates))
        point: dict[str, Any] = {
            "rank": rank,
            "energy": float(sum(update.energy[:rank].sum() for update in updates)) / max(total, 1e-300),
            "n_dimensions": sum(n_directions(update, rank) for update in updates),
            "validation": score(),
        }
        put(updates, ranks_at_budget(updates, rank))
        points.append({**point, "validation_at_budget": score()})
    put(updates, [len(update.s) for update in updates])
    _rest_to_base(tuned.backbone, base, updates)
    for point in points:
        put(updates, [point["rank"]] * len(updates))
        point["validation_rest_at_base"] = score()
    return {"key": kept.key, "seed": kept.seed, "points": points}


@torch.no_grad()
def _rest_to_base(tuned: Backbone, base: Backbone, updates: Sequence[Update]) -> None:
    """Put norms, biases and embeddings back; the head stays as tuned, for an untrained one answers by chance."""
    linear = {f"{update.site.path}.weight" for update in updates}
    start = dict(base.model.named_parameters())
    for name, parameter in tuned.model.named_parameters():
        if name not in linear and not name.startswith(tuned.head):
            parameter.copy_(start[name].to(parameter.device))


def _test_at(bed: Bed, kept: KeptModel, rank: int) -> Predictions:
    tuned, task = kept.load()
    updates = updates_of(tuned.backbone, kept.load_base())
    put(updates, [rank] * len(updates))
    return bed.answers(tuned, task, tuned.backbone.tokenizer, bed.open_test(f"{kept.key}/rank-{rank}"), kept)


def _is_lora_everywhere(method: Any) -> bool:
    return isinstance(method, LoRA) and method.name == "lora" and method.layers is None and method.roles == LINEAR_ROLES


def _all_trained(bed: Bed) -> list[dict[str, Any]]:
    """LoRA contestants on the same weights, by rank, with the validation score of each seed."""
    found = []
    for entry in bed.experiment["contestants"]:
        method = method_from(entry["method"])
        records = [record for key in entry["final"] if (record := bed.store.find(key)) and record.status == "done"]
        if _is_lora_everywhere(method) and records:
            assert isinstance(method, LoRA)
            scores = [record.validation[bed.metric.name] for record in records]
            keys = [record.spec.key for record in records]
            found.append({"rank": method.rank, "label": entry["name"], "keys": keys, "validation": scores})
    return sorted(found, key=lambda entry: int(entry["rank"]))


def _trained_at(bed: Bed, rank: int) -> dict[str, Any] | None:
    """The LoRA contestant at this rank, or at the next one above; None where there is none."""
    return next((entry for entry in _all_trained(bed) if entry["rank"] >= rank), None)


def _verdicts(bed: Bed, answers: dict[str, list[Predictions]]) -> dict[str, Any]:
    """Test scores, and the two gaps with their verdicts: full to truncated, truncated to LoRA."""
    units = {name: np.stack([per_unit(bed.metric, answer) for answer in found]) for name, found in answers.items()}
    margin, alpha = bed.experiment["margin"], bed.experiment["alpha"]
    scores = {name: [bed.score(answer) for answer in found] for name, found in answers.items()}
    gaps = {}
    for name, reference in (("truncated", "full"), ("lora", "truncated")):
        if name in units:
            pair = {reference: units[reference], name: units[name]}
            found = compare(pair, reference, margin, alpha, bed.metric.higher_is_better, bed.metric.unit)[name]
            kind = "expressivity" if name == "truncated" else "optimisation"
            gaps[kind] = {
                "of": name, "against": reference, "difference": found.difference, "low": found.low, "high": found.high,
                "verdict": found.verdict, "note": found.note,
            }  # fmt: skip
    return {"scores": scores, "gaps": gaps}
