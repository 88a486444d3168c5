"""The invented robustness study looks as a real one does."""

import json

from synthetic_robustness import robustness_study


def test_the_invented_study_is_json_and_the_same_for_the_same_seed():
    one, same = robustness_study(seed=3), robustness_study(seed=3)
    assert one == same
    assert json.loads(json.dumps(one, allow_nan=False)) == one
    assert {found["kind"] for found in one["sets"]} == {
        "perturbation", "embedding_pgd", "weight_noise", "adversarial", "search", "transfer",
    }  # fmt: skip
    assert {verdict["verdict"] for found in one["sets"] for verdict in found["against_reference"]} <= {
        "more fragile", "more robust", "equivalent", "cannot tell",
    }  # fmt: skip
