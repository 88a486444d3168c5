"""Plans: one meaning from TOML, options and Python; errors that name the field and the nearest right one."""

from pathlib import Path

import pytest

import deltaproof
from deltaproof.errors import ConfigError
from deltaproof.experiments.budget import Budget, parse_budget
from deltaproof.experiments.plan import Plan, plan_from
from deltaproof.experiments.plan_file import read_plan
from deltaproof.training.settings import Training

NEEDED = {"model": "m", "data": "d.csv", "methods": "full,lora"}


def plan(**fields):
    return plan_from({**NEEDED, **fields})


def test_methods_read_the_same_from_text_lists_objects_classes_and_records():
    written = plan(methods="full, lora(rank=4)").methods
    assert written == ("full", "lora(rank=4)")
    assert plan(methods=["full", "lora(rank=4)"]).methods == written
    assert plan(methods=[deltaproof.Full(), deltaproof.LoRA(rank=4)]).methods == written
    assert plan(methods=[deltaproof.Full, deltaproof.LoRA(rank=4)]).methods == written
    assert plan(methods=[deltaproof.Full().to_dict(), deltaproof.LoRA(rank=4).to_dict()]).methods == written
    assert plan(methods=deltaproof.LoRA(rank=4)).methods == ("lora(rank=4)",)


def test_a_plan_survives_being_written_and_read():
    made = plan(budget="6 trials", training={"epochs": 2}, text=["a", "b"], require="lora.accuracy > 0.5")
    assert Plan(**made.model_dump(mode="json")) == made


def test_what_training_and_budget_read_may_stand_in_tables_or_at_the_top(tmp_path):
    file = tmp_path / "study.toml"
    file.write_text(
        'model = "m"\ndata = "d.csv"\nmethods = ["full", "lora(rank=4)"]\n'
        "[training]\nepochs = 2\nbatch_size = 8\n[budget]\ntrials = 6\nexamples = 500\n"
    )
    tables = plan_from(read_plan(file))
    assert (tables.training.epochs, tables.training.batch_size) == (2.0, 8)
    assert (tables.n_trials, tables.loop.examples) == (6, 500)
    flat = plan(methods="full,lora(rank=4)", epochs=2, batch_size=8, budget={"trials": 6, "examples": 500})
    assert flat == tables


def test_options_override_a_table_of_the_plan():
    assert plan(training={"epochs": 2, "batch_size": 8}, epochs=1).training == Training(epochs=1, batch_size=8)


def test_precision_may_stand_in_the_training_table():
    assert plan(training={"precision": "fp32"}).precision == "fp32"
    assert plan(training={"precision": "fp32"}, precision="bf16").precision == "bf16"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"methds": "full"}, "no field `methds`; did you mean `method"),
        ({"training": {"epoch": 1}}, "`training` has no field `epoch`; did you mean `epochs`"),
        ({"budget": {"trial": 1}}, "`budget` has no field `trial`; did you mean `trials`"),
        ({"budget": "soon"}, "a budget reads `6 trials`.*got `soon`"),
        ({"budget": "1.2.3 trials"}, "got `1.2.3 trials`"),
        ({"training": 3}, "`training` must hold fields, got 3"),
        ({"methods": "full,lorra"}, "no method is called `lorra`; did you mean `lora`"),
        ({"methods": "lora(rnk=4)"}, "`lora` has no field `rnk`; did you mean `rank`"),
        ({"methods": "lora(rank=0)"}, "`lora.rank`: .*got 0"),
        ({"methods": "full,full"}, "each of `methods` may be named once, got full, full"),
        ({"methods": "lora,lora(rank=8)"}, "each of `methods` may be named once"),
        ({"methods": []}, "at least one method"),
        ({"methods": 3}, "3"),
        ({"learning_rates": "1e-4,1e-4"}, "each of `learning_rates` may be named once"),
        ({"learning_rates": "fast"}, "learning_rates.*fast"),
        ({"learning_rates": [-1e-4]}, "learning_rates.*greater than 0"),
        ({"learning_rates": "1e-4,inf"}, "learning_rates.*finite"),
        ({"reference": "lorra"}, "no method is called `lorra`"),
        ({"reference": "head"}, "the `reference` must be a contestant, got `head`"),
        ({"fallback_reference": "head"}, "the `fallback_reference` must be a contestant"),
        ({"kind": "clasification"}, "plan.kind.*classification.*got 'clasification'"),
        ({"seeds": 0}, "plan.seeds.*got 0"),
        ({"test": {"text": ["a"]}}, "`test` must be a file, got dict; rows in memory go into `data`"),
    ],
)
def test_a_wrong_plan_is_refused_with_rule_value_and_remedy(fields, message):
    with pytest.raises(ConfigError, match=message):
        plan(**fields)


def test_what_is_missing_is_named_with_an_example():
    with pytest.raises(ConfigError, match="got no data and no methods; for example `--model"):
        plan_from({"model": "m"})


def test_a_missing_plan_file_names_its_neighbour(tmp_path):
    (tmp_path / "study.toml").write_text("")
    with pytest.raises(ConfigError, match=r"must exist, found nothing; did you mean `study.toml`"):
        read_plan(tmp_path / "studdy.toml")
    (tmp_path / "study.toml").write_text("model = ")
    with pytest.raises(ConfigError, match="must be TOML, got"):
        read_plan(tmp_path / "study.toml")


def test_paths_may_be_path_objects():
    made = plan(model=Path("models") / "m", data=Path("d.csv"), test=Path("t.csv"))
    assert (made.model, made.data, made.test) == ("models/m", "d.csv", "t.csv")


def test_a_budget_reads_as_people_write_it():
    assert parse_budget("6 trials") == Budget(trials=6)
    assert parse_budget("30 min, 20000 examples") == Budget(minutes=30, examples=20000)
    assert parse_budget("1 trial,2 hours") == Budget(trials=1, minutes=120)
    with pytest.raises(ConfigError, match=r"trials.*got 2\.5"):
        parse_budget("2.5 trials")


def test_the_number_of_trials_comes_from_the_grid_the_budget_or_the_plan_in_this_order():
    assert plan().n_trials == 4
    assert plan(trials=5).n_trials == 5
    assert plan(trials=5, budget="2 trials").n_trials == 2
    assert plan(trials=5, learning_rates="1e-4,1e-3,1e-2").n_trials == 3


def test_the_reference_is_full_or_else_the_first():
    assert plan(methods="lora,full").reference_label == "full"
    assert plan(methods="lora,head").reference_label == "lora"
    assert plan(methods="lora(rank=4),head", reference="lora( rank=4 )").reference_label == "lora(rank=4)"
    assert plan(methods=["lora", "head"], reference=deltaproof.Head()).reference_label == "head"
