"""`deltaproof compare`: data to stdout, progress to stderr, and what the exit code says."""

import json
import shutil

import pytest

from deltaproof.experiments.terminal import Terminal
from small import FAST_OPTIONS, call, write_csv, write_reviews

METHOD_KEYS = {"name", "mean", "low", "high", "verdict", "difference", "cost"}
COST_KEYS = {
    "n_trainable", "reachable_dimension", "train_seconds", "examples_per_second", "train_flops", "stored_bytes",
    "peak_memory_bytes", "latency_seconds", "merged_latency_seconds", "trainable_fraction",
}  # fmt: skip


@pytest.fixture(scope="module")
def options(bert, reviews_csv):
    return ["--model", bert, "--data", reviews_csv, *FAST_OPTIONS, "--trials", "2", "--seeds", "2"]


@pytest.fixture(scope="module")
def finished(options, tmp_path_factory):
    """A finished experiment: what the command gave, and its folder."""
    folder = tmp_path_factory.mktemp("runs") / "reviews"
    return call("compare", *options, "--methods", "full,lora(rank=2)", "--out", folder, "--json"), folder


def test_json_is_one_object_on_stdout_with_the_promised_keys(finished):
    result, _ = finished
    assert result.exit_code == 0
    answer = json.loads(result.stdout)
    assert (answer["metric"], answer["reference"]) == ("accuracy", "full")
    assert answer["recommendation"].startswith(answer["recommended"])
    assert [method["name"] for method in answer["methods"]] == ["full", "lora(rank=2)"]
    for method in answer["methods"]:
        assert set(method) >= METHOD_KEYS
        assert set(method["cost"]) >= COST_KEYS
        assert method["low"] <= method["mean"] <= method["high"]
    assert answer["methods"][0]["verdict"] is None
    assert answer["methods"][1]["verdict"] in ("better", "worse", "equivalent", "cannot tell")


def test_progress_goes_to_stderr_and_ends_with_the_reports_path(finished):
    result, folder = finished
    for expected in ("2 learning rates each", "estimate", "lora(rank=2), seed 1: test accuracy", "trainings took"):
        assert expected in result.stderr
    assert result.stderr.rstrip().endswith(f"report: {folder / 'report.html'}")
    assert (folder / "report.html").read_text().lower().startswith("<!doctype html>")


def test_nothing_is_said_twice(finished):
    lines = [line for line in finished[0].stderr.splitlines() if line.strip()]
    assert len(lines) == len(set(lines))


def test_the_same_command_again_reads_from_disk_and_prints_the_table(finished, options):
    again = call("compare", *options, "--methods", "full,lora(rank=2)", "--out", finished[1])
    assert again.exit_code == 0
    assert again.stderr.count("from disk") == 8
    assert again.stdout.lstrip().startswith("method")
    assert "lora(rank=2)" in again.stdout
    assert json.loads(finished[0].stdout)["recommendation"] in " ".join(again.stdout.split())


def test_quiet_says_nothing_on_stderr(finished, options):
    again = call("compare", *options, "--methods", "full,lora(rank=2)", "--out", finished[1], "--quiet", "--json")
    assert (again.exit_code, again.stderr) == (0, "")
    assert json.loads(again.stdout)["reference"] == "full"


def test_a_gate_that_holds_ends_with_0_and_one_that_fails_with_3(finished, options):
    gated = [*options, "--methods", "full,lora(rank=2)", "--out", finished[1]]
    holds = call("compare", *gated, "--require", "lora(rank=2).n_trainable < full.n_trainable")
    assert (holds.exit_code, "holds" in holds.stdout) == (0, True)
    fails = call("compare", *gated, "--require", "full.accuracy >= 1.1", "--require", "full.accuracy >= 0", "--json")
    assert fails.exit_code == 3
    assert [gate["holds"] for gate in json.loads(fails.stdout)["gates"]] == [False, True]


def test_a_dry_run_prints_the_plan_once_and_leaves_no_records(options, tmp_path):
    result = call("compare", *options, "--methods", "full,head", "--out", tmp_path / "run", "--dry-run")
    assert result.exit_code == 0
    assert result.stdout.startswith("model ")
    assert "in all about" in result.stdout
    assert "in all about" not in result.stderr
    assert not (tmp_path / "run" / "records").exists()
    assert not (tmp_path / "run" / "experiment.json").exists()
    as_json = call("compare", *options, "--methods", "full,head", "--out", tmp_path / "run", "--dry-run", "--json")
    assert json.loads(as_json.stdout)["contestants"][0]["estimate"]["seconds"] > 0


def test_examples_can_be_left_out_of_the_report(finished, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(finished[1], folder, symlinks=True)
    assert call("report", folder, "--no-examples", "--quiet").exit_code == 0
    from deltaproof.data.run_folder import read_dataset

    texts = [text for (text,) in read_dataset(folder / "data").test.open("a test").texts]
    page = (folder / "report.html").read_text()
    assert not any(text in page for text in texts)


# --- what is wrong


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "a plan needs model, data and methods"),
        (["--modl", "x"], 2, "--model"),
        (["--methods", "full,lorra"], 2, "did you mean `lora`"),
        (["--methods", "lora(rank=1000)"], 2, "rank <= min(d_in, d_out)"),
        (["--methods", "full", "--budget", "soon"], 2, "a budget reads `6 trials`"),
        (["--methods", "full", "--kind", "clasification"], 2, "plan.kind"),
        (["--methods", "full", "--seeds", "many"], 2, "integer"),
        (["--methods", "full", "--text", "body"], 1, "`body`"),
        (["--methods", "full", "--data", "nothing.csv"], 1, "`nothing.csv` must be a file"),
        (["--methods", "full", "--model", "./nothing"], 1, "a model's folder must exist"),
        (["--methods", "full", "--require", "full >= 2"], 2, "a requirement"),
        (["--methods", "full", "--track", "tensorbord"], 2, "did you mean `tensorboard`"),
        (["no-such-plan.toml"], 2, "the plan `no-such-plan.toml` must exist"),
    ],
)
def test_errors_are_one_paragraph_and_a_code(arguments, code, message, options, tmp_path):
    given = list(options[:4]) if arguments[:1] == ["--methods"] else []
    result = call("compare", *given, "--out", tmp_path / "run", *arguments)
    assert result.exit_code == code
    assert message in " ".join(result.stderr.split())
    assert result.stdout == ""
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([["a", "x"], ["", "y"]] * 9, "row 3"),
        ([["a", "x"]] * 20, "label"),
        ([[f"text {at}", "rare" if at == 7 else "xy"[at % 2]] for at in range(40)], "rare"),
    ],
)
def test_bad_data_ends_with_1_and_names_the_place(rows, message, bert, tmp_path):
    data = write_csv(tmp_path / "bad.csv", ["text", "label"], rows)
    result = call("compare", "--model", bert, "--data", data, "--methods", "head", "--out", tmp_path / "run")
    assert result.exit_code == 1
    assert message in result.stderr


def test_other_data_in_the_same_folder_is_refused(finished, options, tmp_path):
    other = write_reviews(tmp_path / "other.csv", seed=5)
    result = call("compare", *options, "--data", other, "--methods", "full", "--out", finished[1])
    assert result.exit_code == 1
    assert "give another folder with `--out`" in result.stderr


def test_a_toml_plan_with_options_on_top(bert, reviews_csv, tmp_path, monkeypatch):
    plan = tmp_path / "study.toml"
    plan.write_text(
        f'model = "{bert}"\ndata = "{reviews_csv}"\nmethods = ["head", "bitfit"]\nmax_length = 16\n'
        '[training]\nepochs = 3\nbatch_size = 16\nprecision = "fp32"\n[budget]\ntrials = 1\n'
    )
    monkeypatch.chdir(tmp_path)
    result = call("compare", plan.name, "--seeds", "1", "--epochs", "1", "--no-baselines", "--json")
    assert result.exit_code == 0
    answer = json.loads(result.stdout)
    assert (answer["folder"], answer["baselines"]) == ("runs/study", [])
    experiment = json.loads((tmp_path / "runs" / "study" / "experiment.json").read_text())
    assert experiment["plan"]["training"]["epochs"] == 1
    assert experiment["precision"] == "fp32"


def test_a_ctrl_c_ends_with_130_and_one_line(options, tmp_path, monkeypatch):
    def interrupt(self, experiment):
        raise KeyboardInterrupt

    monkeypatch.setattr(Terminal, "planned", interrupt)
    result = call("compare", *options, "--methods", "head", "--out", tmp_path / "run")
    assert result.exit_code == 130
    assert result.stderr.splitlines()[-1] == "stopped; the same command goes on from here"


def test_tracking_writes_curves_below_the_run_folder(options, tmp_path):
    pytest.importorskip("tensorboard")
    result = call("compare", *options, "--methods", "head", "--out", tmp_path / "run", "--track", "tensorboard", "-q")
    assert (result.exit_code, result.stderr) == (0, "")
    runs = {path.parent.name for path in (tmp_path / "run" / "tracking").rglob("events.out.*")}
    assert any(name.startswith("head_final") and name.endswith("seed=1") for name in runs)
    assert len(runs) == 4


def test_a_tracker_is_told_every_step_the_test_scores_and_the_end(options, tmp_path, monkeypatch):
    told = []

    class Fake:
        def __init__(self, folder):
            told.append(("folder", folder.name))

        def start(self, experiment, config):
            told.append(("start", experiment, config["seeds"]))

        def log(self, run, step, values):
            told.append((run, step, dict(values)))

        def finish(self):
            told.append(("finish",))

    from deltaproof.trackers import TRACKERS

    monkeypatch.setattr(TRACKERS, "_entries", {**TRACKERS._entries, "fake": Fake})
    fake = [*options, "--methods", "head", "--out", tmp_path / "run", "--track", "fake", "-q"]
    assert call("compare", *fake).exit_code == 0
    assert told[:2] == [("folder", "tracking"), ("start", "run", 2)]
    assert told[-1] == ("finish",)
    final = [entry for entry in told if entry[0].startswith("head final") and entry[0].endswith("seed=0")]
    n_steps = max(entry[1] for entry in final)
    assert [entry[1] for entry in final if "train_loss" in entry[2]] == list(range(1, n_steps + 1))
    assert "test_accuracy" in final[-1][2]
    assert any("validation_accuracy" in entry[2] for entry in final)
