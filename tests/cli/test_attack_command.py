"""`deltaproof attack` and `compare --robustness`: a table or JSON to stdout, progress to stderr, errors first."""

import json

import pytest
from typer.testing import CliRunner

from deltaproof.cli.main import app
from small import FAST_OPTIONS, call

FEW = ["--perturbations", "char_swap,word_drop", "--strengths", "0.3", "--max-examples", "12", "--device", "cpu"]


@pytest.fixture(scope="module")
def options(bert, reviews_csv):
    return ["--model", bert, "--data", reviews_csv, *FAST_OPTIONS, "--trials", "1", "--seeds", "1", "--no-baselines"]


@pytest.fixture(scope="module")
def compared(options, tmp_path_factory):
    """`compare --robustness`: what it gave, and its folder."""
    folder = tmp_path_factory.mktemp("runs") / "reviews"
    return call("compare", *options, "--methods", "full,lora(rank=2)", "--out", folder, "--robustness"), folder


def test_the_study_comes_behind_the_table_and_keeps_models_and_snapshots(compared):
    result, folder = compared
    assert result.exit_code == 0, result.output
    assert result.stdout.index("method") < result.stdout.index("Robustness: what perturbations cost, accuracy on")
    assert "homoglyph" in result.stdout
    assert "robustness: done" in result.stderr
    assert len(list((folder / "tuned").iterdir())) == 2
    assert len(list((folder / "snapshots").glob("*/step-*.safetensors"))) >= 4
    assert len(json.loads((folder / "studies" / "robustness.json").read_text())["sets"]) == 30 + 3 + 9
    assert (folder / "report.html").exists()


def test_the_same_command_as_json_is_one_object_with_the_study_in_it(compared, options):
    _, folder = compared
    again = call(
        "compare", *options, "--methods", "full,lora(rank=2)", "--out", folder, "--robustness", "--json", "--quiet"
    )
    assert (again.exit_code, again.stderr) == (0, "")
    answer = json.loads(again.stdout)
    assert answer["reference"] == "full"
    assert answer["robustness"]["overall"]["n_sets"] == 24


def test_one_method_alone_is_refused_before_anything_is_trained(options, tmp_path):
    result = call("compare", *options, "--methods", "full", "--out", tmp_path / "run", "--robustness")
    assert result.exit_code == 2
    assert "name two methods or more" in result.stderr
    assert not (tmp_path / "run").exists()


def test_a_run_that_exists_is_attacked_and_its_page_written_again(compared, tmp_path):
    _, folder = compared
    (folder / "report.html").unlink()
    result = call("attack", folder, *FEW)
    assert result.exit_code == 0, result.output
    assert "accuracy on 12 of " in result.stdout
    assert "report: " in result.stderr
    assert (folder / "report.html").exists()
    again = call("attack", folder, *FEW, "--json", "--quiet", "--out", tmp_path / "out.json")
    assert (again.exit_code, again.stdout, again.stderr) == (0, "", "")
    assert [entry["name"] for entry in json.loads((tmp_path / "out.json").read_text())["sets"]] == [
        "char_swap", "word_drop",
    ]  # fmt: skip


@pytest.mark.parametrize("names", ["0=neg,1=pos", '{"0": "neg", "1": "pos"}'])
def test_a_list_in_a_benchmarks_file_is_named_behind_a_hash(compared, tmp_path, names):
    rows = [{"idx": at, "sentence": f"a {('bad', 'good')[at % 2]} one {at}", "label": at % 2} for at in range(6)]
    pairs = [{"idx": 0, "sentence1": "a", "sentence2": "b", "label": 0}] * 2
    file = tmp_path / "bench.json"
    file.write_text(json.dumps({"sst2": rows, "rte": pairs}, indent=1))
    arguments = ["attack", compared[1], "--perturbations", "none", "--label-names", names, "--device", "cpu"]
    result = call(*arguments, "--adversarial", f"{file}#sst2", "--json")
    assert result.exit_code == 0, result.output
    assert [(entry["name"], entry["n_examples"]) for entry in json.loads(result.stdout)["sets"]] == [("bench#sst2", 6)]
    wrong = call(*arguments, "--adversarial", f"{file}#rte")
    assert wrong.exit_code == 1
    assert "bench.json#rte: rows must have one text as the data set has, got a pair of texts" in wrong.stderr
    whole = call(*arguments, "--adversarial", file)
    assert "name one of its lists, such as `bench.json#sst2`" in whole.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--methods", "ia3"], 1, "has no contestant `ia3`"),
        (["--perturbations", "char_swp"], 2, "did you mean `char_swap`"),
        (["--strengths", "a,b"], 2, "`--strengths` takes numbers separated by commas, got `a,b`"),
        (["--strengths", "2"], 2, "`0 < strength <= 1` must hold"),
        (["--label-names", "pos"], 2, "`--label-names` reads `0=negative,1=positive`, or a JSON object, got `pos`"),
        (["--contrast", "pairs.csv"], 2, "needs the column that says which rows belong together"),
        (["--perturbations", "none"], 2, "something must be tried"),
        (["--adversarial", "nowhere/at_all.csv"], 1, "must be a file, found none"),
        (["--device", "tpu"], 2, "device"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_line(compared, arguments, code, message):
    result = call("attack", compared[1], *arguments)
    assert result.exit_code == code, result.output
    assert message in result.stderr


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    result = call("attack", tmp_path)
    assert result.exit_code == 1
    assert "must be a run folder" in result.stderr


def test_the_command_takes_the_common_options_and_shows_an_example():
    text = " ".join(CliRunner().invoke(app, ["attack", "--help"], env={"COLUMNS": "200"}).stdout.split())
    for option in ("--json", "--out", "--seed", "--device", "--quiet", "--methods", "--perturbations", "--strengths",
                   "--adversarial", "--contrast", "--label-names", "--max-examples"):  # fmt: skip
        assert option in text
    assert "deltaproof attack runs/" in text
