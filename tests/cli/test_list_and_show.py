"""`list methods --capabilities` and `show` with settings."""

import json

import pytest

from deltaproof.methods import METHODS
from small import call


@pytest.fixture(autouse=True)
def _home(tmp_path, monkeypatch):
    monkeypatch.setenv("DELTAPROOF_HOME", str(tmp_path))


def test_capabilities_come_as_a_table_with_the_reasons_below():
    result = call("list", "methods", "--capabilities", "--only", "head,poly")
    assert result.exit_code == 0
    assert result.stderr == "measuring 1 of 2: head\nmeasuring 2 of 2: poly\n"
    lines = result.stdout.splitlines()
    assert lines[0].split()[:5] == ["method", "bert", "gpt2", "llama", "starts"]
    assert lines[1].split()[:7] == ["head", "yes", "yes", "yes", "yes", "yes", "no"]
    assert lines[2].split()[:5] == ["poly", "no", "no", "no", "-"]
    assert "  poly: it needs the number of a task with every example" in lines
    assert "  head: peft has no form for it" in lines


def test_capabilities_come_as_json_and_go_to_a_file(tmp_path):
    result = call(
        "list", "methods", "--capabilities", "--only", "poly", "--json", "--out", tmp_path / "table.json", "-q"
    )
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "")
    assert json.loads((tmp_path / "table.json").read_text())["methods"]["poly"]["refused"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["methods", "--only", "lora"], "say what to measure; add `--capabilities`"),
        (["metrics", "--capabilities"], "`--capabilities` is for methods, got `metrics`; write `list methods"),
        (
            ["methods", "--capabilities", "--only", "head,lora(rank=4, alpha=2)"],
            "by name, each with settings that fit tiny models, got `lora(rank=4, alpha=2)`; write `lora`",
        ),
        (["methods", "--capabilities", "--only", "lorra"], "no method is called `lorra`; did you mean `lora`"),
    ],
)
def test_list_says_what_is_wrong(arguments, message):
    result = call("list", *arguments)
    assert result.exit_code == 2
    assert message in result.stderr


@pytest.mark.parametrize("name", METHODS)
def test_show_says_where_a_method_starts_and_goes_and_how_it_differs(name):
    facts = json.loads(call("show", name, "--json").stdout)
    text = " ".join(call("show", name).stdout.split())
    for key in ("idea", "equation", "start", "where", "differences", "trains", "paper", "advice", "learning_rate"):
        assert facts[key]
        assert " ".join(facts[key].split()) in text
    assert all(field["meaning"] for field in facts["fields"]) or name == "peft"


def test_show_takes_settings_and_marks_them():
    text = call("show", "pica(rank=16, layers=[0])").stdout
    assert text.startswith("pica(layers=[0], rank=16)\n")
    assert "rank: int = 16 (default 32)" in text
    assert "layers: tuple[int, ...] | None = [0] (default None)" in text
    assert "share: bool = True\n" in text


def test_show_takes_methods_inside_of_methods_and_those_of_peft():
    text = call("show", "on_layers(together(lora(rank=4), ssf), [0])").stdout
    assert "inner: Method = together(lora(rank=4), ssf)\n" in " ".join(text.split(" ")).replace("'", "")
    assert "r: int = 4 (default 256)" in call("show", "peft_vera(r=4)").stdout


def test_lines_of_show_fit_the_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    assert max(map(len, call("show", "attn_scale").stdout.splitlines())) <= 100


def test_show_of_a_wrong_setting_suggests():
    result = call("show", "pica(rnk=3)")
    assert result.exit_code == 2
    assert "`pica` has no field `rnk`; did you mean `rank`?" in result.stderr


def test_show_gives_the_rate_that_tuning_would_try():
    facts = json.loads(call("show", "together(lora, ln_tune, prefix)", "--json").stdout)
    assert facts["learning_rate"] == "tuning starts at 0.0017"
