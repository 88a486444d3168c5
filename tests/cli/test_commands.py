"""The other commands: train, predict, report, list, show, import."""

import csv
import io
import json
import subprocess
import sys

import numpy as np
import pytest
from typer.testing import CliRunner

from deltaproof.cli.main import app
from small import FAST_OPTIONS, call, write_csv


@pytest.fixture(scope="module")
def trained(bert, reviews_csv, tmp_path_factory):
    """One method, trained at a given learning rate: what the command gave, and its folder."""
    out = tmp_path_factory.mktemp("runs") / "adapter"
    options = ["--model", bert, "--data", reviews_csv, *FAST_OPTIONS, "--learning-rate", "0.01", "--epochs", "8"]
    return call("train", *options, "--method", "lora(rank=2)", "--out", out, "--json"), out


@pytest.fixture(scope="module")
def new_csv(tmp_path_factory):
    rows = [[at, text] for at, text in enumerate(["the good film 0 1", "the bad film 0 2", "a good dog 0 3"])]
    return write_csv(tmp_path_factory.mktemp("new") / "new.csv", ["number", "text"], rows)


def test_train_keeps_the_tuned_model_and_trains_once_where_the_rate_is_given(trained):
    result, out = trained
    assert result.exit_code == 0
    answer = json.loads(result.stdout)
    assert answer["tuned"] == str(out / "best")
    assert {"adapter_config.json", "deltaproof.json"} <= {path.name for path in (out / "best").iterdir()}
    assert len(list((out / "records").glob("*.json"))) == 1
    assert f"kept: {out / 'best'}" in result.stderr


def test_train_tunes_on_validation_where_no_rate_is_given(bert, reviews_csv, tmp_path):
    result = call(
        "train", "--model", bert, "--data", reviews_csv, *FAST_OPTIONS, "--method", "full", "--trials", "2", "--out",
        tmp_path, "-q", "--json",
    )  # fmt: skip
    assert (result.exit_code, result.stderr) == (0, "")
    assert len(list((tmp_path / "records").glob("*.json"))) == 3
    assert (tmp_path / "best" / "model.safetensors").exists()


def test_a_training_that_diverges_ends_with_1_and_the_remedy(bert, reviews_csv, tmp_path):
    options = ["--model", bert, "--data", reviews_csv, *FAST_OPTIONS, "--learning-rate", "1e30", "--out", tmp_path]
    result = call("train", *options, "--method", "full")
    assert result.exit_code == 1
    assert "it ended as: diverged" in result.stderr
    assert "lower `--learning-rate`" in result.stderr


def test_predict_answers_unlabelled_rows_in_their_order_as_csv(trained, new_csv):
    result = call("predict", trained[1] / "best", "--data", new_csv)
    assert (result.exit_code, result.stderr) == (0, "")
    rows = list(csv.DictReader(io.StringIO(result.stdout)))
    assert [row["id"] for row in rows] == ["new.csv:2", "new.csv:3", "new.csv:4"]
    for row in rows:
        probabilities = {label: float(row[f"p({label})"]) for label in ("neg", "pos")}
        assert sum(probabilities.values()) == pytest.approx(1, abs=1e-5)
        assert row["label"] == max(probabilities, key=probabilities.get)


def test_predict_gives_json_and_takes_a_run_folder_and_a_contestant(trained, new_csv):
    best = json.loads(call("predict", trained[1] / "best", "--data", new_csv, "--json").stdout)
    folder = json.loads(call("predict", trained[1], "--data", new_csv, "--json").stdout)
    named = call("predict", trained[1], "--data", new_csv, "--method", "lora(rank=2)", "--json")
    assert best["answers"] == folder["answers"] == json.loads(named.stdout)["answers"]
    assert (best["kind"], best["method"]) == ("classification", "lora(rank=2)")


def test_predict_says_what_the_final_run_said_of_the_test_rows(trained, reviews_csv):
    from deltaproof.records.store import Store

    store = Store(trained[1])
    record = next(record for record in store.records() if record.spec.stage == "final")
    stored = store.predictions(record.spec.key)
    answers = json.loads(call("predict", trained[1], "--data", reviews_csv, "--json").stdout)["answers"]
    by_id = {answer["id"]: list(answer["probabilities"].values()) for answer in answers}
    assert np.array([by_id[identity] for identity in stored.ids]) == pytest.approx(stored.outputs, abs=1e-5)


def test_predict_writes_to_a_file_and_leaves_stdout_alone(trained, new_csv, tmp_path):
    result = call("predict", trained[1], "--data", new_csv, "--out", tmp_path / "answers.csv")
    assert (result.exit_code, result.stdout) == (0, "")
    assert len((tmp_path / "answers.csv").read_text().splitlines()) == 4
    assert "answers.csv" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--data", "nothing.csv"], 1, "`nothing.csv` must be a file"),
        (["--method", "head"], 1, "has no contestant `head`"),
        (["--text", "body"], 1, "body"),
        (["--device", "cuda:99"], 2, "the device must exist"),
    ],
)
def test_predict_says_what_is_wrong(trained, new_csv, arguments, code, message):
    result = call("predict", trained[1], "--data", new_csv, *arguments)
    assert result.exit_code == code
    assert message in result.stderr


def test_predict_refuses_a_folder_without_a_tuned_model(new_csv, tmp_path):
    result = call("predict", tmp_path, "--data", new_csv)
    assert result.exit_code == 1
    assert "must hold a tuned model" in result.stderr


def test_report_builds_the_page_again_and_exports(trained, tmp_path):
    page = trained[1] / "report.html"
    page.unlink()
    result = call("report", trained[1], "--export", "csv,latex", "--out", tmp_path, "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["reference"] == "lora(rank=2)"
    assert page.exists()
    assert {path.suffix for path in tmp_path.rglob("*.*")} == {".csv", ".tex"}


def test_report_refuses_a_folder_for_exports_that_nobody_asked_for(trained, tmp_path):
    result = call("report", trained[1], "--out", tmp_path)
    assert result.exit_code == 2
    assert "--export" in result.stderr


def test_report_of_a_folder_that_is_none_ends_with_1(tmp_path):
    result = call("report", tmp_path)
    assert result.exit_code == 1
    assert "must be a run folder" in result.stderr


def test_report_needs_no_torch(trained):
    code = f"""
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "transformers", "peft", "accelerate"):
            raise ImportError(name)
sys.meta_path.insert(0, Refuse())
sys.argv = ["deltaproof", "report", {str(trained[1])!r}, "--quiet"]
from deltaproof.cli.main import main
main()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "lora(rank=2)" in done.stdout


@pytest.mark.parametrize(
    ("what", "some"),
    [
        ("methods", {"full", "head", "bitfit", "ln_tune", "lora", "dora", "ia3", "vera"}),
        ("tasks", {"classification", "regression", "multilabel"}),
        ("models", {"minilm", "bert", "roberta", "distilbert", "deberta-v2", "modernbert", "electra", "gpt2", "llama"}),
        ("metrics", {"accuracy", "macro_f1", "nll", "brier", "ece", "rmse"}),
    ],
)
def test_list_names_what_there_is_as_text_and_json(what, some):
    result = call("list", what, "--json")
    assert some <= {entry["name"] for entry in json.loads(result.stdout)}
    text = call("list", what, "--quiet")
    assert some <= {line.split()[0] for line in text.stdout.splitlines() if line.strip()}
    assert text.stderr == ""


def test_list_of_something_else_suggests(tmp_path):
    result = call("list", "metods")
    assert result.exit_code == 2
    assert "did you mean `methods`" in result.stderr


@pytest.mark.parametrize("name", ["full", "lora", "vera"])
def test_show_explains_a_method(name):
    facts = json.loads(call("show", name, "--json").stdout)
    assert {"idea", "equation", "paper", "fields"} <= set(facts)
    assert facts["idea"] in " ".join(call("show", name).stdout.split())  # lines are broken where the terminal ends


def test_results_can_go_to_a_file(tmp_path):
    result = call("show", "lora", "--json", "--out", tmp_path / "lora.json")
    assert result.stdout == ""
    assert json.loads((tmp_path / "lora.json").read_text())["name"] == "lora"


def test_show_of_something_unknown_suggests():
    result = call("show", "lorra")
    assert result.exit_code == 2
    assert "did you mean `lora`" in result.stderr


def test_import_of_a_folder_without_results_ends_with_1(tmp_path):
    result = call("import", "peft-results", tmp_path)
    assert result.exit_code == 1
    assert "error:" in result.stderr


@pytest.mark.parametrize("command", ["compare", "train", "predict", "report", "list", "show", "demo"])
def test_every_command_takes_the_common_options_and_shows_an_example(command):
    text = " ".join(CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "200"}).stdout.split())
    for option in ("--json", "--out", "--seed", "--device", "--quiet"):
        assert option in text
    assert f"deltaproof {command}" in text


def test_the_version_is_printed():
    from deltaproof import __version__

    assert call("--version").stdout == f"{__version__}\n"


def test_a_path_that_cannot_be_used_is_one_line_and_no_traceback(reviews_csv, bert):
    done = call(
        "compare", "--model", bert, "--data", reviews_csv, "--methods", "full", "--out", reviews_csv, "--dry-run"
    )
    assert done.exit_code == 1
    assert "must be usable" in done.stderr
    assert isinstance(done.exception, SystemExit)
