"""The page: what it says, that nothing in it comes from outside, and that data cannot break out of it."""

import itertools
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from page_reader import Page

from deltaproof.data.run_folder import read_dataset
from deltaproof.report import page, write_report
from deltaproof.report.plan_text import plan_toml

EVIL = "<script>alert(1)</script>\"'&<img src=x onerror=alert(2)>"
KINDS = {
    "two classes": {"labels": ("no", "yes"), "methods": ("full", "lora")},
    "sixty classes": {"labels": tuple(f"class {n}" for n in range(60)), "n": 300},
    "regression": {"kind": "regression", "labels": None},
    "multilabel": {"kind": "multilabel", "labels": ("anger", "joy", "fear")},
    "pairs of texts": {"pairs": True},
    "one contestant": {"methods": ("lora",)},
    "twelve contestants": {"methods": ("full", *(f"lora(rank={2**n}, roles=['query', 'value'])" for n in range(11)))},
    "no baselines": {"baselines": ()},
    "one seed": {"seeds": 1},
    "diverged and did not fit": {"endings": {"lora": "diverged", "head": "out_of_memory"}},
    "reference did not fit": {"endings": {"full": "out_of_memory"}},
    "unfinished": {"finished": False, "endings": {"ia3": "missing", "head": "missing"}},
    "nothing yet": {
        "finished": False,
        "endings": dict.fromkeys(("full", "lora", "ia3", "head"), "missing"),
        "baselines": (),
    },
    "an error decides": {"metrics": ("nll", "accuracy")},
}


@pytest.mark.parametrize("fields", KINDS.values(), ids=KINDS)
def test_every_kind_of_experiment_gives_a_sound_page(table_of, fields):
    table = table_of(**fields)
    text = page(table)
    read = Page(text)
    assert read.problems == []
    assert table.recommendation.sentence in read.text
    ids = [attributes["id"] for _, attributes in read.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert all(link["href"].removeprefix("#") in ids for link in read.all("a"))
    assert len(text) < 1_000_000
    for row in (*table.rows, *table.baselines):
        assert row.name in read.text
    assert not re.search(r"\b(nan|None|inf)\b", read.text)


@pytest.mark.parametrize("fields", KINDS.values(), ids=KINDS)
def test_every_plot_has_a_title_a_description_and_a_table_behind_it(table_of, fields):
    read = Page(page(table_of(**fields)))
    labelled = {"title": set(), "desc": set()}
    for tag, attributes in read.elements:
        if tag in labelled and "id" in attributes:
            labelled[tag].add(attributes["id"])
    plots = [attributes for attributes in read.all("svg") if "plot" in attributes["class"].split()]
    for plot in plots:
        assert plot["role"] == "img"
        assert plot["aria-labelledby"] in labelled["title"]
        assert plot["aria-describedby"] in labelled["desc"]
    details = [attributes for attributes in read.all("details") if attributes.get("class") == "data"]
    assert len(details) == len(read.all("figure")) == len(read.all("figcaption"))
    assert (len(plots) > 0) == (len(details) > 0)


def test_headings_go_down_one_level_at_a_time_and_tables_name_their_columns(table_of):
    read = Page(page(table_of(require=("lora.accuracy >= 0.5",))))
    levels = [int(tag[1]) for tag, _ in read.elements if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    assert all(cell.get("scope") in ("col", "row", "rowgroup") for cell in read.all("th"))
    assert len(read.all("caption")) == len(read.all("table"))
    assert read.all("html") == [{"lang": "en"}]


def test_the_page_loads_nothing_and_runs_nothing(table_of):
    text = page(table_of())
    read = Page(text)
    outside = r"https?:|//[a-z]|url\(|@import|javascript:"
    assert not re.search(outside, text, re.IGNORECASE)
    assert not {"script", "link", "img", "iframe", "object", "embed", "form"} & {tag for tag, _ in read.elements}
    assert not [key for _, attributes in read.elements for key in attributes if key.startswith("on") or key == "src"]
    policy = next(meta["content"] for meta in read.all("meta") if meta.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'")


def test_text_from_data_names_and_notes_cannot_become_markup(table_of):
    table = table_of(
        labels=(EVIL, "plain"),
        texts=(EVIL,) * 200,
        model=EVIL,
        notes=(EVIL,),
        methods=("full", EVIL),
        skills=(0.9, 0.5),
    )
    text = page(table)
    read = Page(text)
    assert "<script" not in text
    assert "<img" not in text
    assert read.problems == []
    assert read.text.count("<script>alert(1)</script>") > 10
    quoted = [data for tag, data in read.texts if tag == "blockquote"]
    assert EVIL in quoted


def test_the_answer_comes_first_and_sections_keep_their_order(table_of):
    read = Page(page(table_of()))
    sections = [attributes["id"] for attributes in read.all("section")]
    assert sections == [
        "answer",
        "results",
        "pareto",
        "learning",
        "mistakes",
        "costs",
        "protocol",
        "environment",
        "repeat",
    ]
    figures = [attributes["id"] for attributes in read.all("figure")]
    assert figures == [
        "differences",
        "costs-and-quality",
        "learning-curves",
        "learning-rates",
        "confusion",
        "reliability",
    ]


def test_gates_show_whether_they_hold_and_both_their_sides(table_of):
    table = table_of(require=("lora.accuracy >= 0.5", "head.train_seconds <= 1"))
    text = Page(page(table)).text
    assert "✓ holds lora.accuracy >= 0.5" in text
    assert "✗ fails head.train_seconds <= 1" in text
    assert f"{table.gates[0].left:.4g} against 0.5" in text


def test_results_carry_intervals_differences_and_verdicts(table_of):
    table = table_of(n=1500, skills=(0.9, 0.9, 0.8, 0.6))
    text = Page(page(table)).text
    full, ia3 = table.row("full").scores["accuracy"], table.row("ia3").comparison
    assert f"{100 * full.mean:.1f} {100 * full.low:.1f} to {100 * full.high:.1f}" in text
    assert ia3.verdict == "worse"
    assert f"−{-100 * ia3.difference:.1f} −{-100 * ia3.low:.1f} to −{-100 * ia3.high:.1f} ▼ worse" in text


def test_contestants_that_did_not_come_through_say_how_they_ended(table_of):
    text = Page(page(table_of(endings={"lora": "diverged", "head": "out_of_memory"}))).text
    assert "not compared, diverged" in text
    assert "not compared, did not fit into memory" in text
    assert "lora diverged; head did not fit into memory" in text


def test_an_unfinished_experiment_says_so_before_its_answer(table_of):
    text = Page(page(table_of(finished=False, endings={"head": "missing"}))).text
    assert text.index("Not finished: still without results: head") < text.index("So far")


def test_a_page_without_examples_holds_no_text_and_no_folder(table_of):
    table = table_of(texts=tuple(f"private sentence {n}" for n in range(240)), model="/home/somebody/models/mine")
    assert "private sentence" in page(table)
    shared = page(table, with_examples=False)
    assert "private" not in shared
    assert "rows.csv:" not in shared
    assert "/home/somebody" not in shared.split('id="repeat"')[1]
    assert "Left out on purpose" in shared


def test_long_texts_are_cut_and_whole_patterns_of_disagreement_are_shown(table_of):
    read = Page(page(table_of(texts=("word " * 500,) * 240)))
    quoted = [data for tag, data in read.texts if tag == "blockquote"]
    assert 0 < len(quoted) <= 12
    assert max(map(len, quoted)) <= 300
    assert all(text.endswith("…") for text in quoted)


def test_showing_examples_counts_as_the_final_run_that_opened_the_test_split(table_of, tmp_path):
    table = table_of()
    test = read_dataset(Path(table.folder) / "data").test
    test.open(table.rows[0].keys[0])  # as the run itself did
    assert "<blockquote>" in page(table)
    assert len(test.openings()) == 1


def test_openings_by_others_are_reported(table_of):
    text = Page(page(table_of(openings=50))).text
    assert "opened 50 times so far, 36 of them by other experiments" in text
    assert "by other experiments" not in Page(page(table_of(openings=14))).text


def test_a_learning_rate_at_the_edge_is_flagged(table_of):
    text = Page(page(table_of(at_edge=("lora",)))).text
    assert "a better one may lie beyond for lora" in text
    assert "chosen 1e-3, at the edge" in text


def test_unequal_tuning_is_told_unless_memory_ended_it(table_of):
    table = table_of(endings={"head": "out_of_memory"})
    by_name = {entry["name"]: entry for entry in table.experiment["contestants"]}
    del by_name["head"]["trials"][1:]
    assert "✓ yes Same number of tuning trials for every contestant 4 trials each" in Page(page(table)).text
    del by_name["lora"]["trials"][1:]
    text = Page(page(table)).text
    assert "! note Same number of tuning trials for every contestant full: 4, lora: 1, ia3: 4" in text


def test_the_plan_in_the_page_is_the_plan(table_of):
    table = table_of(require=("lora.accuracy >= 0.5",))
    read = Page(page(table))
    plan = next(data for tag, data in read.texts if tag == "pre" and "methods =" in data)
    asked = table.experiment["plan"]
    for key, value in tomllib.loads(plan).items():
        wanted = asked[key]
        assert value == ({k: v for k, v in wanted.items() if v is not None} if isinstance(wanted, dict) else wanted)


@pytest.mark.parametrize("text", ['a "b" \\ c', "tab\tline\n", "\x7f\x01", "ü – 漢", "C:\\data"])
def test_a_plan_survives_being_written_as_toml(text):
    plan = {"model": text, "methods": [text, "full"], "margin": 0.02, "seeds": 3, "drop": True, "a group": {text: 1e-5}}
    assert tomllib.loads(plan_toml(plan)) == plan


def test_the_report_is_written_whole_into_the_run_folder(table_of):
    table = table_of()
    path = write_report(table)
    assert path == Path(table.folder) / "report.html"
    assert path.read_text(encoding="utf-8") == page(table)
    assert [file.name for file in path.parent.iterdir() if file.name.startswith(".")] == []


def test_the_report_needs_no_torch():
    code = (
        "import sys, deltaproof.report, deltaproof.experiments.table; "
        "print([name for name in ('torch', 'transformers', 'peft', 'accelerate', 'datasets') if name in sys.modules])"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.strip() == "[]"


def test_an_experiment_that_knows_little_of_itself_still_gives_a_page(table_of, tmp_path):
    table = table_of()
    for key in ("environment", "estimated_seconds", "measured_seconds", "device", "created", "finished"):
        table.experiment.pop(key)
    for key in ("openings", "truncated_fraction", "notes", "class_counts", "rows"):
        table.experiment["data"].pop(key)
    for contestant in table.experiment["contestants"]:
        for key in ("trials", "estimate", "measured"):
            contestant.pop(key)
    (tmp_path / "run" / "data" / "test.parquet").unlink()
    read = Page(page(table))
    assert read.problems == []
    assert "openings were not counted" in read.text
    assert "texts are no longer in the run folder" in read.text
