"""The table of what methods can do is measured, kept, put into words, and the stored one covers every method."""

import json
from pathlib import Path

import pytest

from deltaproof.errors import ConfigError
from deltaproof.methods import method_from
from deltaproof.testing import capability_table as tables
from deltaproof.testing.capabilities import CAPABILITIES, FAMILIES, capabilities
from deltaproof.testing.capability_table import capability_table, reasons, rows, summary
from deltaproof.testing.examples import every_name, example, refusal

STORED = Path(__file__).parents[2] / "docs" / "reference" / "capabilities.json"


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("DELTAPROOF_HOME", str(tmp_path))
    return tmp_path


def test_lora_can_do_all_of_it():
    assert capabilities(method_from("lora(rank=4)"), ("bert",)) == {"bert": dict.fromkeys(CAPABILITIES, True)}


def test_what_a_method_cannot_do_is_told_in_words():
    found = capabilities(method_from("together(ln_tune, prefix)"), ("llama",))["llama"]
    assert {name for name, answer in found.items() if answer is not True} == {
        "starts_as_base", "merges", "exports_to_lora", "leaves_the_base",
    }  # fmt: skip
    assert found["starts_as_base"] == "an answer starts more than 1 off the base's"
    assert found["leaves_the_base"] == "it trains parameters of the base in place"
    assert found["merges"] == "it is more than a change of weights and biases that the model has"


def test_what_does_not_run_is_asked_no_more():
    found = capabilities(method_from("loha(r=2)"), ("gpt2",))["gpt2"]
    assert found.pop("runs").startswith("peft refuses: Target module of type")
    assert set(found.values()) == {None}


def test_pefts_own_conversion_to_lora_is_tried():
    assert capabilities(method_from("loha(r=2)"), ("bert",))["bert"]["exports_to_lora"] is True
    assert capabilities(method_from("oft"), ("bert",))["bert"]["exports_to_lora"] == "peft does not convert it"


def test_a_failure_of_somebody_elses_code_is_told_as_it_is():
    found = capabilities(example("prefix_tuning"), ("bert",))["bert"]
    assert found["recomputes"].startswith("RuntimeError: The size of tensor a")


def test_what_was_measured_is_kept_until_the_code_changes(home, monkeypatch):
    said = []
    once = capability_table(["head", "poly"], progress=lambda *facts: said.append(facts))
    assert said == [(0, 2, "head"), (1, 2, "poly")]
    assert capability_table(["poly", "head"], progress=lambda *facts: said.append(facts))["methods"] == once["methods"]
    assert len(said) == 2
    capability_table(["poly"], fresh=True, progress=lambda *facts: said.append(facts))
    assert len(said) == 3
    monkeypatch.setattr(tables, "versions", lambda names: {"peft": "another"})
    capability_table(["poly"], progress=lambda *facts: said.append(facts))
    assert len(said) == 4
    assert len(list((home / "cache").glob("capabilities-*.json"))) == 2


def test_an_unknown_name_is_refused():
    with pytest.raises(ConfigError, match="no method is called `lorra`; did you mean `lora`"):
        capability_table(["lorra"])


def test_cells_and_reasons_say_where():
    def entry(bert, gpt2):
        answers = {"runs": True, **dict.fromkeys(tables.TITLES, True)}
        return {"as": "m", "families": {"bert": {**answers, "merges": bert}, "gpt2": {**answers, "merges": gpt2}}}

    table = {"methods": {
        "one": entry(True, True), "two": entry(True, "not here"), "three": entry("not at all", "not at all"),
        "four": {"as": "four", "refused": "no contestant"},
    }}  # fmt: skip
    assert [summary(entry, "merges") for entry in table["methods"].values()] == ["yes", "bert", "no", "-"]
    assert reasons(table) == {
        "runs": {"no contestant": ["four"]},
        "merges": {"not here": ["two (gpt2)"], "not at all": ["three"]},
    }
    assert rows(table)[2][:6] == ["two", "yes", "yes", "no", "yes", "bert"]


def test_the_stored_table_covers_every_method_of_ours_and_of_peft():
    stored = json.loads(STORED.read_text(encoding="utf-8"))
    assert list(stored["methods"]) == every_name(), "make it again: `deltaproof list methods --capabilities --json`"
    assert stored["questions"].keys() == CAPABILITIES.keys()
    assert stored["made"].keys() == set(tables.DECISIVE)
    for name, entry in stored["methods"].items():
        if refusal(name):
            assert entry == {"as": name, "refused": refusal(name)}
            continue
        assert entry["as"] == example(name).label
        assert tuple(entry["families"]) == FAMILIES
        for answers in entry["families"].values():
            assert answers.keys() == CAPABILITIES.keys()
            assert all(answer is True or answer is None or answer for answer in answers.values())
            assert (answers["runs"] is True) == (None not in answers.values())
