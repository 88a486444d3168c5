"""`deltaproof suite`: several tasks from files in the forms that public sets come in, one page over them."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from deltaproof.cli.main import app
from deltaproof.cli.suites import SUITES, OwnSets
from deltaproof.errors import ConfigError
from deltaproof.experiments.suite_plan import chosen, read_suite_plan
from deltaproof.records.store import read_json
from small import FAST_OPTIONS, essence, reviews

ODD = "<b>Sub & jective</b>"


def write_data(root):
    """Labelled lines, a table without header, one file with a list for each task; a hub id's copy under its name."""
    root.mkdir(parents=True)
    lines = [f"{good} {text}\n" for text, good in reviews(120)]
    (root / "sst.train").write_text("".join(lines[:80]), encoding="latin-1")
    (root / "sst.test").write_text("".join(lines[80:]), encoding="latin-1")
    (root / "news.csv").write_text("".join(f'"{good + 1}","news","{text}"\n' for text, good in reviews(96, 1)))
    (root / "glue").mkdir()
    rows = [{"sentence1": text, "sentence2": "it is so", "label": good} for text, good in reviews(96, 2)]
    (root / "glue/rte.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return root


def write_plan(path, bert):
    path.write_text(f"""
title = "Two kinds of tasks"
about = ["Candidates chosen here; no table of a paper is reproduced."]
model = "{bert}"
methods = ["full", "bitfit"]
seeds = 2
trials = 1
baselines = false

[tasks.sst]
category = "classification"
title = "{ODD}"
data = "glue:sst2"
text = "sentence"
adversarial = ["adv:sst"]
adversarial_label_names = {{ 0 = "bad", 1 = "good" }}
[tasks.sst.local]
data = "sst.train"
test = "sst.test"
format = "label_text"
text = "text"
label_names = {{ 0 = "bad", 1 = "good" }}

[tasks.news]
category = "classification"
data = "ag_news"
[tasks.news.local]
data = "news.csv"
columns = ["label", "title", "text"]
text = "text"
label = "label"

[tasks.rte]
category = "reasoning"
data = "glue:rte"
metric = "mcc"

[tasks.lost]
category = "reasoning"
data = "super_glue:boolq"

[tasks.writing]
category = "generation"
needs = "generation <i>of texts</i>"

[paper_reference_values.sst]
full = "93.1*"
""")
    return path


@pytest.fixture(scope="module")
def made(tmp_path_factory, bert):
    """A suite that ran once: three tasks with results, one without its data, one that nothing can run yet."""
    home = tmp_path_factory.mktemp("suite")
    root, plan = write_data(home / "data"), write_plan(home / "two.toml", bert)
    command = ["suite", str(plan), "--data-root", str(root), "--out", str(home / "out"), *FAST_OPTIONS]
    return home, command, CliRunner().invoke(app, command)


def tasks_of(home):
    return {entry["name"]: entry for entry in read_json(home / "out/suite.json")["tasks"]}


def test_a_task_without_data_fails_and_the_others_run(made):
    home, _, result = made
    assert result.exit_code == 1
    assert "every task must come to its end, lost: with `data_root` a local copy of `super_glue:boolq`" in result.output
    tasks = tasks_of(home)
    assert {name: entry["status"] for name, entry in tasks.items()} == {
        "sst": "done", "news": "done", "rte": "done", "lost": "failed", "writing": "not_run",
    }  # fmt: skip
    assert tasks["writing"]["reason"] == "needs generation <i>of texts</i>"
    assert tasks["rte"]["result"]["metric"] == "mcc"
    assert tasks["sst"]["result"]["data"]["labels"] == ["bad", "good"]
    assert tasks["news"]["result"]["data"]["rows"] == {"train": 66, "validation": 10, "test": 20}


def test_every_task_is_estimated_before_anything_is_trained(made):
    _, _, result = made
    said = result.stderr
    assert said.index("writing: not run, needs generation") < said.index("sst: about") < said.index("rte: about")
    assert said.index("rte: about") < said.index("in all about") < said.index("full, seed")


def test_the_terminal_table_has_a_row_for_each_method_and_names_what_did_not_run(made):
    _, _, result = made
    lines = result.stdout.splitlines()
    assert any(line.startswith("classification") for line in lines)
    assert sum(line.strip().startswith("bitfit") for line in lines) == 2
    assert any(line.startswith("lost (reasoning): failed: with `data_root`") for line in lines)
    assert any(line.startswith("writing (generation): not run: needs generation") for line in lines)


def test_the_page_escapes_names_links_every_task_and_keeps_rows_for_the_paper(made):
    home, _, _ = made
    page = (home / "out/report.html").read_text()
    assert ODD not in page
    assert "&lt;b&gt;Sub &amp; jective&lt;/b&gt;" in page
    assert "<i>of texts</i>" not in page
    for name in ("sst", "news", "rte"):
        assert f'<a href="{name}/report.html">' in page
        assert (home / "out" / name / "report.html").exists()
    assert "93.1*" in page
    assert "The paper&#39;s values" in page or "The paper's values" in page
    assert "<script" not in page
    assert "needs generation" in page
    assert "looked for the folder" in page


def test_a_suite_that_was_stopped_goes_on_and_trains_nothing_twice(made, tmp_path):
    home, command, first = made
    other = tmp_path / "stopped"
    shutil.copytree(home / "out", other, symlinks=True)
    (other / "suite.json").unlink()
    lost = sorted((other / "news/records").glob("*.json"))[0]
    lost.unlink()
    kept = {path: path.stat().st_mtime_ns for path in other.glob("*/records/*.json")}
    again = CliRunner().invoke(app, [*command[:5], str(other), *command[6:]])
    assert again.stdout == first.stdout
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert essence(other / "news") == essence(home / "out/news")


def test_only_the_tasks_asked_for_are_run_and_what_stands_of_others_stays(made, tmp_path):
    _, command, _ = made
    out = tmp_path / "out"
    result = CliRunner().invoke(app, [*command[:5], str(out), *command[6:], "--only", "rte", "--json"])
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert [entry["status"] for entry in document["tasks"]] == ["left_out", "left_out", "done", "left_out", "not_run"]
    assert not (out / "sst").exists()
    assert again_with_another(command, out) == ["left_out", "done", "done", "left_out", "not_run"]
    assert document["paper_reference_values"] == {"sst": {"full": "93.1*"}}


def test_what_was_studied_since_stands_on_the_page_that_report_draws_again(made, tmp_path):
    home, _, _ = made
    out = tmp_path / "out"
    shutil.copytree(home / "out", out, symlinks=True)
    score = {"mean": 0.25, "low": 0.2, "high": 0.3}
    rows = [{"label": name, "clean": score, "perturbed": score, "drop": score} for name in ("full", "bitfit")]
    made_set = {"kind": "adversarial", "name": "tricky.jsonl", "n_examples": 12, "methods": rows}
    (out / "sst/studies").mkdir()
    (out / "sst/studies/robustness.json").write_text(json.dumps({"sets": [made_set, {"kind": "perturbation"}]}))
    result = CliRunner().invoke(app, ["report", str(out)])
    assert result.exit_code == 0, result.output
    assert "tricky.jsonl, 12 rows" in (out / "report.html").read_text()
    assert "tricky.jsonl" not in (home / "out/report.html").read_text()


def again_with_another(command, out):
    """The states after another task of the same suite was run into the same folder."""
    result = CliRunner().invoke(app, [*command[:5], str(out), *command[6:], "--only", "news", "--json"])
    assert result.exit_code == 0, result.output
    return [entry["status"] for entry in json.loads(result.stdout)["tasks"]]


def test_robustness_asks_each_tasks_own_sets_of_models_kept_with_snapshots(made, monkeypatch):
    home, command, _ = made
    (home / "data/adv").mkdir(exist_ok=True)
    (home / "data/adv/sst.jsonl").write_text('{"sentence": "it is so", "label": 1}\n')
    asked = {}

    def run(folder, device, say, own):
        asked[folder.name] = (read_json(folder / "experiment.json")["plan"]["keep"], own)
        return {}

    monkeypatch.setitem(SUITES, "robustness", replace(SUITES["robustness"], run=run))
    CliRunner().invoke(app, [*command, "--only", "sst,news", "--robustness"])
    assert [keep for keep, _ in asked.values()] == ["snapshots", "snapshots"]
    assert asked["sst"][1] == OwnSets([str(home / "data/adv/sst.jsonl")], {"0": "bad", "1": "good"})
    assert asked["news"][1] == OwnSets([], {})


def test_a_dry_run_trains_nothing_and_prints_the_estimates(made, tmp_path):
    _, command, _ = made
    out = tmp_path / "out"
    result = CliRunner().invoke(app, [*command[:5], str(out), *command[6:], "--only", "news", "--dry-run"])
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("news: about ")
    assert "in all about" in result.stdout
    assert not (out / "suite.json").exists()
    assert not list(out.glob("*/records/*"))


def test_a_wrong_data_root_is_said_for_each_task(made, tmp_path):
    _, command, _ = made
    wrong = [*command[:3], str(tmp_path / "nowhere"), *command[4:5], str(tmp_path / "out"), *command[6:]]
    result = CliRunner().invoke(app, wrong)
    assert result.exit_code == 1
    assert result.output.count("`data_root` must be a folder, found none at") >= 4


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, r"a suite needs tasks, got none; write `\[tasks.NAME\]`"),
        ({"tasks": {"a/b": {"category": "c", "data": "d"}}}, r"a task's name becomes a folder: .* got `a/b`"),
        ({"tasks": {"a": {"data": "d"}}}, r"`task\.category`: field required"),
        ({"tasks": {"a": {"category": "c"}}}, r"the task `a` needs `data`, got none; .* or say what it `needs`"),
        ({"tasks": {"a": {"category": "c", "data": "d", "labl": "x"}}}, r"the task `a` has no field `labl`; .*`label`"),
        (
            {"tasks": {"a": {"category": "c", "data": "d", "local": {"max_rows": 3}}}},
            r"`local` .* no field `max_rows`",
        ),
        ({"tasks": {"a": {"category": "c", "data": "d"}}, "modl": "m"}, r"a suite has no field `modl`; .*`model`"),
        (
            {"tasks": {"sst2": {"category": "c", "data": "d"}}, "paper_reference_values": {"sst": {"full": 1}}},
            r"`paper_reference_values` must name a task, got `sst`; did you mean `sst2`",
        ),
    ],
)
def test_a_plan_that_breaks_a_rule_is_refused_with_the_remedy(fields, message):
    with pytest.raises(ConfigError, match=message):
        read_suite_plan(fields)


def test_an_unknown_task_is_an_error_that_names_the_nearest():
    plan = read_suite_plan({"tasks": {"sst2": {"category": "c", "data": "d"}, "rte": {"category": "c", "data": "d"}}})
    assert chosen(plan, "rte, sst2") == ["sst2", "rte"]
    with pytest.raises(ConfigError, match=r"`--only` must name tasks of the plan, got `sst`; did you mean `sst2`"):
        chosen(plan, "sst")


def test_the_plan_that_is_shipped_is_read_and_every_task_that_runs_settles(tmp_path):
    plan = read_suite_plan(Path(__file__).parents[2] / "plans/look_within.toml")
    assert {task.category for task in plan.tasks.values()} == {
        "classification", "reasoning", "generation", "instruction fine-tuning",
    }  # fmt: skip
    assert plan.paper_reference_values is None
    for name, task in plan.tasks.items():
        if not task.needs:
            assert plan.run_of(name, tmp_path, None, {}).plan.contestants().keys() >= {"full", "bitfit", "head"}
