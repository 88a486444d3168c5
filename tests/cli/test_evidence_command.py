"""`deltaproof evidence`, and the same behind `compare --capacity`."""

import json

import pytest
from typer.testing import CliRunner

from deltaproof.cli.main import app
from small import FAST_OPTIONS, call

CLAIMS = ["T1", "T2", "T3", "T4", "T5", "Without Regret", "Learns less", "Forgets less", "Intruders"]


@pytest.fixture(scope="module")
def options(bert, reviews_csv, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "reviews"
    return ["--model", bert, "--data", reviews_csv, *FAST_OPTIONS, "--trials", "1", "--seeds", "2", "--no-baselines",
            "--methods", "full,lora(rank=2)", "--out", out], out  # fmt: skip


@pytest.fixture(scope="module")
def compared(options):
    """`compare --capacity`: what it gave, and its folder."""
    arguments, folder = options
    return call("compare", *arguments, "--capacity"), folder


def test_compare_ends_with_the_evidence_and_the_advice(compared):
    result, folder = compared
    assert result.exit_code == 0, result.output
    assert result.stdout.index("What was forgotten?") < result.stdout.index("Evidence on") < result.stdout.index(
        "What follows"
    )  # fmt: skip
    assert 'id="evidence"' in (folder / "report.html").read_text()


def test_compare_as_json_holds_the_evidence(compared, options):
    again = call("compare", *options[0], "--capacity", "--json", "--quiet")
    assert (again.exit_code, again.stderr) == (0, "")
    answer = json.loads(again.stdout)
    assert [claim["name"] for claim in answer["evidence"]["claims"]] == CLAIMS


def test_the_command_reads_a_real_run(compared):
    result = call("evidence", compared[1], "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    found = json.loads(result.stdout, parse_constant=pytest.fail)
    claims = {claim["name"]: claim for claim in found["claims"]}
    assert list(claims) == CLAIMS
    assert {finding["of"] for finding in claims["T2"]["findings"]} == {"full", "lora(rank=2)"}
    assert claims["T2"]["verdict"] == "supported", "a bound holds, whatever was learned"
    assert claims["T4"]["because"] == claims["T5"]["because"] == "not measured"
    assert set(found["regime"]) == {"as_good", "rank", "optimisation", "data", "fragile", "forgets"}
    assert found["advice"]


def test_text_goes_to_stdout_or_to_a_file(compared, tmp_path):
    assert call("evidence", compared[1]).stdout.startswith("Evidence on")
    result = call("evidence", compared[1], "--out", tmp_path / "evidence.txt", "--quiet")
    assert (result.stdout, result.stderr) == ("", "")
    assert (tmp_path / "evidence.txt").read_text().startswith("Evidence on")


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    result = call("evidence", tmp_path)
    assert result.exit_code == 1
    assert "must be a run folder" in result.stderr


def test_the_command_takes_the_common_options_and_shows_an_example():
    text = " ".join(CliRunner().invoke(app, ["evidence", "--help"], env={"COLUMNS": "200"}).stdout.split())
    for option in ("--json", "--out", "--seed", "--device", "--quiet"):
        assert option in text
    assert "deltaproof evidence runs/" in text
