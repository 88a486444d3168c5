"""Every claim, on studies whose answer is known: for, against, undecided, one seed, not measured, not applicable."""

import json
import subprocess
import sys
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import planted_studies as plant
import pytest
from synthetic_experiment import Experiment, build
from synthetic_robustness import robustness_study

from deltaproof.evidence import Evidence, evidence
from deltaproof.evidence.claim import Finding, Span
from deltaproof.evidence.judging import agreed, average, difference, judge, overall, together

Found = Callable[..., Evidence]


@pytest.fixture
def found(tmp_path: Path) -> Found:
    """Evidence of an invented experiment, with planted studies beside it."""

    def make(seeds: int = 3, skills: tuple[float, ...] = (0.9, 0.9, 0.9), methods: tuple[str, ...] = plant.LABELS,
             n: int = 400, fields: dict[str, Any] | None = None, **studies: dict[str, Any]) -> Evidence:  # fmt: skip
        folder = tmp_path / "run"
        build(folder, Experiment(methods=methods, skills=skills, seeds=seeds, n=n, **(fields or {})))
        return evidence(plant.write(folder, **studies))

    return make


def finding(made: Evidence, claim: str, of: str) -> Finding:
    return next(each for each in made.claim(claim).findings if each.of == of)


# T1


@pytest.mark.parametrize(
    ("verdict", "expected"),
    [
        ("equivalent", "contradicted"),
        ("better", "contradicted"),
        ("worse", "supported"),
        ("cannot tell", "cannot tell"),
    ],
)
def test_a_subset_binds_where_the_cut_update_is_worse_and_does_not_where_nothing_is_lost(found, verdict, expected):
    claim = found(expressivity=plant.expressivity(verdict)).claim("T1")
    assert claim.verdict == expected
    assert "says nothing of the loss" in claim.statement.not_shown


def test_a_lora_below_the_rank_that_was_enough_is_bound_though_that_rank_is_low(found):
    made = found(expressivity=plant.expressivity("equivalent", chosen=8, lora_rank=2))
    assert finding(made, "T1", "lora").verdict == "supported"
    assert finding(made, "T1", "full, cut").verdict == "contradicted"
    assert made.claim("T1").verdict == "supported"


def test_a_lora_of_a_rank_that_was_not_cut_to_cannot_be_judged_and_the_command_names_the_rank(found):
    claim = found(expressivity=plant.expressivity("equivalent", chosen=8, lora_rank=4)).claim("T1")
    assert claim.verdict == "cannot tell"
    assert claim.missing[0].command.endswith("--ranks 2,4,8,32")


def test_an_update_that_needs_most_dimensions_supports_that_the_subset_binds(found):
    scores = {0: 0.5, 2: 0.6, 8: 0.7, 16: 0.75, 64: 0.9}
    made = found(expressivity=plant.expressivity(chosen=64, validation=scores, lora_rank=8))
    assert finding(made, "T1", "full, cut").verdict == "supported"
    assert made.claim("T1").verdict == "supported"


def test_a_cut_says_nothing_of_methods_that_are_no_lora(found):
    assert finding(found(expressivity=plant.expressivity()), "T1", "bitfit").verdict == "not applicable"


# T2


@pytest.mark.parametrize(("used", "expected"), [(-6.0, "supported"), (0.4, "contradicted")])
def test_a_bound_holds_where_no_example_moves_further(found, used, expected):
    study = plant.displacement({"full": used, "lora": used, "bitfit": None})
    claim = found(displacement=study).claim("T2")
    assert claim.verdict == expected
    assert "no upper bound relative to full" in claim.statement.not_shown
    assert [each.verdict for each in claim.findings] == [expected, expected, "not applicable"]


def test_a_bound_that_leaves_changes_out_is_not_refuted_by_a_displacement_above_it(found):
    study = plant.displacement({"full": 0.4, "lora": 0.4}, not_in_bound=["embeddings"])
    assert found(displacement=study).claim("T2").verdict == "cannot tell"


# T3


def curve(of: Callable[[float], float], noise: float = 0.02, sizes: int = 6) -> dict[float, np.ndarray]:
    rng = np.random.default_rng(0)
    by_unit = rng.normal(0, 0.1, 200)
    return {float(2**k): of(2.0**k) + by_unit + noise * rng.normal(size=(3, 200)) for k in range(sizes)}


@pytest.mark.parametrize(
    ("of", "expected"),
    [
        (lambda x: 0.9 - 0.4 / x, "supported"),
        (lambda x: 0.5 + 0.01 * x, "contradicted"),
        (lambda x: 0.7, "cannot tell"),
    ],
)
def test_a_saturating_curve_supports_diminishing_returns_and_a_straight_one_contradicts_them(found, of, expected):
    study = plant.by_rank(plant.growth_of(curve(of)))
    assert found(scale_parameters=study).claim("T3").verdict == expected


def test_growth_with_the_logarithm_diminishes_per_parameter_though_not_per_doubling(found):
    made = found(scale_parameters=plant.by_rank(plant.growth_of(curve(lambda x: 0.5 + 0.05 * np.log2(x), 0.005))))
    assert finding(made, "T3", "lora, per doubling").verdict != "supported"
    assert finding(made, "T3", "lora, per parameter").verdict == "supported"
    assert made.claim("T3").verdict == "supported"


def test_too_few_ranks_say_nothing(found):
    assert found(scale_parameters=plant.by_rank(None)).claim("T3").verdict == "cannot tell"


# T4

FRAGILE = {"lora": "more fragile", "bitfit": "more fragile"}


@pytest.mark.parametrize(
    ("difference", "expected"),
    [
        (plant.around(0.08), "supported"),
        (plant.around(-0.08), "contradicted"),
        (plant.around(0.0), "contradicted"),
        (plant.around(0.0, 0.06), "cannot tell"),
    ],
)
def test_fragility_is_judged_at_matched_accuracy_and_not_by_the_raw_drop(found, difference, expected):
    study = plant.robustness(FRAGILE, dict.fromkeys(FRAGILE, difference))
    claim = found(robustness=study).claim("T4")
    assert claim.verdict == expected
    assert "lora and bitfit more fragile" in claim.because


def test_a_handful_of_matched_examples_tells_nothing(found):
    study = plant.robustness(FRAGILE, dict.fromkeys(FRAGILE, plant.around(0.9)))
    for against in study["overall"]["against_reference"]:
        against["matched"]["n_examples"] = 5
    assert found(robustness=study).claim("T4").verdict == "cannot tell"


def test_two_measures_at_equal_accuracy_that_disagree_cannot_tell(found):
    study = plant.robustness(
        FRAGILE, dict.fromkeys(FRAGILE, plant.around(0.08)), dict.fromkeys(FRAGILE, plant.around(-0.08))
    )
    assert found(robustness=study).claim("T4").verdict == "cannot tell"


def test_the_drop_regressed_on_accuracy_decides_where_matched_flips_do_not(found):
    study = plant.robustness(
        FRAGILE, dict.fromkeys(FRAGILE, plant.around(0.0, 0.06)), dict.fromkeys(FRAGILE, plant.around(0.08))
    )
    assert found(robustness=study).claim("T4").verdict == "supported"


def test_methods_that_differ_are_no_verdict_on_all_of_them(found):
    study = plant.robustness(FRAGILE, {"lora": plant.around(0.08), "bitfit": plant.around(-0.08)})
    made = found(robustness=study)
    assert made.claim("T4").verdict == "cannot tell"
    assert [finding(made, "T4", label).verdict for label in FRAGILE] == ["supported", "contradicted"]


def test_a_study_held_against_another_reference_says_nothing_of_full(found):
    study = plant.robustness({"full": "equivalent"}, {"full": None}, reference="lora")
    assert found(robustness=study).claim("T4").verdict == "not applicable"


def test_searches_alone_leave_the_claim_unmeasured_and_name_what_measures_it(found):
    """A search keeps labels, too, but the claim is judged on texts that are the same for every model."""
    study = plant.robustness(FRAGILE, {"lora": plant.around(0.08), "bitfit": plant.around(0.08)})
    sets = [{**entry, "kind": "search"} for entry in study["sets"]]
    reason = "no text perturbation that keeps labels was asked for"
    made = found(robustness={**study, "sets": sets, "overall": None, "at_equal_accuracy_reason": reason}).claim("T4")
    assert (made.verdict, made.because) == ("cannot tell", "no perturbation that keeps the label was tried")
    first, *others = made.missing
    assert first.what.startswith("perturbations that keep the label")
    assert "--perturbations all" in first.command
    assert not any("regressed" in missing.what for missing in others), "more seeds would not give it"


def test_a_whole_robustness_study_gives_findings_of_every_kind_of_set(found):
    methods = ("full", "lora", "ia3", "head")
    made = found(methods=methods, skills=(0.9, 0.85, 0.8, 0.75), robustness=robustness_study(methods))
    claim = made.claim("T4")
    beside = {each.of for each in claim.findings if not each.counts}
    assert beside == {"texts searched word by word", "attack on embeddings", "adversarial sets", "noise on all weights",
                      "noise on the trained weights", "noise of equal norm"}  # fmt: skip
    assert {each.of for each in claim.findings if each.counts} == set(methods) - {"full"}
    said = {
        each.of: each.verdict for each in claim.findings if each.quantity.startswith("turned wrong") and each.counts
    }
    assert said["head"] == "supported", "planted: the last method falls over most often, also where both were right"
    assert "contradicted" not in said.values()


@pytest.mark.parametrize(
    ("verdict", "n_seeds", "expected"),
    [
        ("more fragile", 3, "supported"),
        ("more robust", 3, "contradicted"),
        ("equivalent", 3, "contradicted"),
        ("cannot tell", 3, "cannot tell"),
        ("more fragile", 1, "cannot tell"),
    ],
)
def test_a_users_own_set_stands_beside_with_its_raw_drop(found, verdict, n_seeds, expected):
    study = plant.robustness(FRAGILE, dict.fromkeys(FRAGILE, plant.around(0.0, 0.06)), n_seeds=n_seeds)
    own = {**study["sets"][0], "kind": "adversarial", "promise": None, "name": "advglue", "n_examples": 148}
    against = [{**entry, "verdict": verdict, "matched": None} for entry in own["against_reference"]]
    study["sets"].append({**own, "strength": None, "against_reference": against})
    claim = found(robustness=study, seeds=n_seeds).claim("T4")
    (beside,) = [each for each in claim.findings if each.of == "adversarial sets"]
    assert (beside.verdict, beside.counts) == (expected, False)
    assert f"advglue, 148 rows: lora +10.0 points (+9.0 to +11.0) ({verdict}), bitfit" in beside.because
    assert claim.verdict == "cannot tell", "the raw drop does not decide"


# T5


def crossing(before: str, after: str, verdict: str = "crossover", other: str = "lora") -> dict[str, Any]:
    return {"one": "full", "other": other, "verdict": verdict, "at": {"value": 900.0, "low": 600.0, "high": 1400.0},
            "crossing_fraction": 0.99, "ahead_before": before, "ahead_after": after}  # fmt: skip


@pytest.mark.parametrize(
    ("at_few", "at_many", "before", "after", "expected"),
    [
        ((0.5, 0.7, 0.7), (0.95, 0.8, 0.8), "other", "full", "supported"),
        ((0.7, 0.5, 0.5), (0.8, 0.95, 0.95), "full", "other", "contradicted"),
    ],
)
def test_the_steeper_curve_over_examples_and_the_crossing_decide(tmp_path, at_few, at_many, before, after, expected):
    names = {"full": "full"}
    crossings = [crossing(names.get(before, other), names.get(after, other), other=other) for other in plant.LABELS[1:]]
    study = plant.by_examples(tmp_path / "run", {64: at_few, 4096: at_many}, crossings)
    claim = evidence(plant.write(tmp_path / "run", scale_examples=study)).claim("T5")
    assert claim.verdict == expected
    assert {each.verdict for each in claim.findings} == {expected}
    gains = [each.value for each in claim.findings if each.quantity.startswith("full's gain")]
    truth = (at_many[0] - at_few[0]) - (at_many[1] - at_few[1])
    assert all(abs(gain.mean - truth) < 0.06 for gain in gains)


def test_equal_gains_from_data_contradict_smaller_ones(tmp_path):
    skills = {64: (0.6, 0.6, 0.6), 4096: (0.9, 0.9, 0.9)}
    never = [crossing("full", "full", "no crossover in range", other) for other in plant.LABELS[1:]]
    study = plant.by_examples(tmp_path / "run", skills, never, n=4000)
    claim = evidence(plant.write(tmp_path / "run", scale_examples=study)).claim("T5")
    assert claim.verdict == "contradicted"
    assert {each.verdict for each in claim.findings if each.quantity.startswith("where")} == {"cannot tell"}


# LoRA Without Regret; learns less and forgets less; intruders


def test_a_match_of_lora_and_full_supports_one_claim_and_contradicts_the_other(found):
    made = found(n=4000)
    assert (made.claim("Without Regret").verdict, made.claim("Learns less").verdict) == ("supported", "contradicted")


def test_a_worse_lora_with_its_conditions_met_contradicts_the_match(found):
    made = found(skills=(0.95, 0.7, 0.7), expressivity=plant.expressivity())
    assert (made.claim("Without Regret").verdict, made.claim("Learns less").verdict) == ("contradicted", "supported")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"fields": {"at_edge": ("lora",)}}, "at the edge of those tried"),
        ({"expressivity": plant.expressivity(chosen=8, lora_rank=2)}, "its rank 2 is below 8"),
    ],
)
def test_a_worse_lora_whose_conditions_fail_says_nothing_of_the_match(found, options, reason):
    claim = found(skills=(0.95, 0.7, 0.7), **options).claim("Without Regret")
    assert claim.verdict == "cannot tell"
    assert reason in claim.because


@pytest.mark.parametrize(
    ("rises", "expected"),
    [
        ({"full": (1.0, 0.1), "lora": (0.2, 0.1)}, "supported"),
        ({"full": (0.2, 0.1), "lora": (1.0, 0.1)}, "contradicted"),
        ({"full": (0.5, 0.005), "lora": (0.5, 0.005)}, "contradicted"),
        ({"full": (0.5, 0.3), "lora": (0.4, 0.3)}, "cannot tell"),
    ],
)
def test_forgetting_less_is_judged_by_the_difference_of_the_rises(found, rises, expected):
    made = found(forgetting=plant.forgetting({**rises, "bitfit": (0.0, 0.01)}, prefix="no place"))
    assert made.claim("Forgets less").verdict == expected
    assert not finding(made, "Forgets less", "bitfit").counts, "the claim is about LoRA"


def test_a_base_without_a_language_model_cannot_be_asked_what_it_forgot(found):
    claim = found(forgetting={"applicable": False, "reason": "no output layer", "methods": []}).claim("Forgets less")
    assert (claim.verdict, claim.because) == ("not applicable", "no output layer")


@pytest.mark.parametrize(
    ("full", "lora", "expected"),
    [([0, 0, 0, 1], [4, 5, 4, 5], "supported"), ([0, 0, 0, 0], [0, 0, 0, 0], "cannot tell"),
     ([0] * 40, [0] * 40, "contradicted"), ([4, 5, 4, 5], [0, 0, 1, 0], "contradicted"),
     ([0, 0, 0, 0], [0, 9, 0, 3], "cannot tell")],
)  # fmt: skip
def test_intruders_are_counted_beyond_noise_and_beside_those_of_full(found, full, lora, expected):
    made = found(spectra=plant.spectra({"full": full, "lora": lora}))
    assert made.claim("Intruders").verdict == expected


# All of them


def everything(n_seeds: int) -> dict[str, dict[str, Any]]:
    """Studies in which every claim has a clear answer."""
    return {
        "expressivity": plant.expressivity(n_seeds=n_seeds),
        "displacement": plant.displacement({"full": -6.0, "lora": -6.0}, n_seeds),
        "scale_parameters": plant.by_rank(plant.growth_of(curve(lambda x: 0.9 - 0.4 / x)), n_seeds),
        "robustness": plant.robustness(FRAGILE, dict.fromkeys(FRAGILE, plant.around(0.08)),
                                       dict.fromkeys(FRAGILE, plant.around(0.08)), n_seeds),
        "forgetting": plant.forgetting({"full": (1.0, 0.1), "lora": (0.2, 0.1)}, n_seeds),
        "spectra": plant.spectra({"full": [0, 0, 0], "lora": [5, 5, 4]}, n_seeds),
    }  # fmt: skip


def with_examples(folder: Path, n_seeds: int) -> Evidence:
    crossings = [crossing(other, "full", other=other) for other in plant.LABELS[1:]]
    sizes = {64: (0.5, 0.7, 0.7), 4096: (0.95, 0.8, 0.8)}
    study = plant.by_examples(folder, sizes, crossings, n_seeds)
    return evidence(plant.write(folder, scale_examples=study, **everything(n_seeds)))


def test_one_seed_never_gives_a_verdict(tmp_path):
    decided = with_examples(tmp_path / "three", 3)
    assert "cannot tell" not in [claim.verdict for claim in decided.claims]
    alone = with_examples(tmp_path / "one", 1)
    assert {claim.verdict for claim in alone.claims} == {"cannot tell"}
    assert {each.verdict for claim in alone.claims for each in claim.findings} <= {"cannot tell", "not applicable"}
    commands = [missing.command for claim in alone.claims for missing in claim.missing]
    assert any("--seeds 3" in command for command in commands)


def test_what_was_not_measured_is_named_with_the_command_that_would(found):
    made = found()
    for name in ("T1", "T2", "T3", "T4", "T5", "Forgets less", "Intruders"):
        claim = made.claim(name)
        assert (claim.verdict, claim.because) == ("cannot tell", "not measured")
        assert claim.missing[0].command.startswith("deltaproof ")
    assert "--rank" in made.claim("T3").missing[0].command
    assert "--examples" in made.claim("T5").missing[0].command


def test_without_full_nothing_can_be_held_against_it(found):
    made = found(methods=("lora", "bitfit"), skills=(0.9, 0.8))
    for name in ("T1", "T4", "Without Regret", "Learns less"):
        assert made.claim(name).verdict == "not applicable"
    assert '"full,lora,bitfit"' in made.claim("T1").missing[0].command


def test_without_lora_its_claims_are_not_applicable(found):
    made = found(methods=("full", "bitfit"), skills=(0.9, 0.8), spectra=plant.spectra({"full": [0, 0]}))
    for name in ("Without Regret", "Learns less", "Intruders"):
        assert made.claim(name).verdict == "not applicable"


def test_a_contestant_that_did_not_come_through_is_no_evidence(found):
    made = found(fields={"endings": {"full": "out_of_memory"}})
    assert made.claim("Without Regret").because == "full fine-tuning did not come through"
    made.to_text()


def test_another_reference_in_the_plan_does_not_change_what_full_is_held_against(tmp_path):
    store = build(tmp_path, Experiment(methods=plant.LABELS, skills=(0.95, 0.7, 0.7), seeds=3, n=400))
    before = evidence(store).claim("Learns less")
    store.write_experiment({**store.experiment(), "reference": "bitfit"})
    assert evidence(store).claim("Learns less") == before


def test_everything_is_strict_json_and_reads_within_a_hundred_columns(tmp_path):
    made = with_examples(tmp_path / "run", 3)
    again = json.loads(json.dumps(made.to_json(), allow_nan=False), parse_constant=pytest.fail)
    assert [claim["name"] for claim in again["claims"]][:5] == ["T1", "T2", "T3", "T4", "T5"]
    text = made.to_text(100)
    assert max(len(line) for line in text.splitlines() if "deltaproof" not in line) <= 100
    assert "nan" not in text.split()
    for claim in made.claims:
        assert "upported" in claim.statement.rule
        assert "ontradicted" in claim.statement.rule


def test_no_torch_is_needed(found, tmp_path):
    found(expressivity=plant.expressivity())
    code = (
        "import sys; from deltaproof.evidence import evidence; evidence(sys.argv[1]).to_text(); "
        "assert not {'torch', 'transformers', 'peft'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "run")], check=True, timeout=120)


# The regime and what follows


def test_where_the_rank_does_not_bind_and_training_falls_short_the_advice_is_to_tune(found):
    made = found(expressivity=plant.expressivity("equivalent", optimisation="worse"), skills=(0.9, 0.7, 0.7))
    assert (made.regime["rank"].reply, made.regime["optimisation"].reply) == ("no", "yes")
    assert "what LoRA lacks is training" in made.advice
    assert "--trials" in made.next[0].command


def test_where_the_rank_binds_the_advice_is_more_rank(found):
    made = found(expressivity=plant.expressivity("equivalent", chosen=8, lora_rank=2))
    assert made.regime["rank"].reply == "yes"
    assert "The rank binds" in made.advice
    assert any("--rank 2,4,8,16" in step.command for step in made.next)


def test_where_a_cheaper_method_is_as_good_the_advice_is_to_take_it(found):
    made = found(n=4000, expressivity=plant.expressivity(), robustness=plant.robustness(
        FRAGILE, dict.fromkeys(FRAGILE, plant.around(0.08))))  # fmt: skip
    assert made.advice.startswith("Take ")
    assert "break more easily" in made.advice


# The rules themselves


def test_judging_is_symmetrical():
    for mean, half in product((0.0, 0.01, 0.05), (0.005, 0.03, 0.2)):
        for_it, against = (judge(Span(s * mean, s * mean - half, s * mean + half, ""), 0.02, 3) for s in (1, -1))
        assert (for_it == "supported") <= (against == "contradicted")
        assert (for_it == "cannot tell") == (against == "cannot tell")


def test_methods_agree_when_more_than_half_say_so_and_none_denies():
    yes, no, open_ = "supported", "contradicted", "cannot tell"
    assert [agreed(v) for v in ([yes], [yes, yes, open_], [yes, open_], [yes, yes, no], [no, no, open_])] == [
        yes, yes, open_, open_, no
    ]  # fmt: skip
    assert [together(v) for v in ([yes, open_], [no, open_], [yes, no], [open_])] == [yes, no, open_, open_]
    assert overall([Finding("a", "", None, 3, "not applicable", "")]) == "not applicable"


def test_a_difference_of_independent_intervals_covers_the_truth_and_an_average_never_narrows():
    rng = np.random.default_rng(1)
    one, other = rng.normal(1.0, 1, 20_000), rng.normal(0.5, 2, 20_000)
    half = difference(Span(1.0, 1 - 1.96, 1 + 1.96, ""), Span(0.5, 0.5 - 3.92, 0.5 + 3.92, ""))
    inside = np.mean(np.abs((one - other) - 0.5) <= half.high - half.mean)
    assert abs(inside - 0.95) < 0.01
    assert average([Span(1.0, 0.0, 2.0, ""), Span(3.0, 0.0, 6.0, "")]) == Span(2.0, 0.0, 4.0, "")
