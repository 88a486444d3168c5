"""`deltaproof capacity` and `compare --capacity`: sentences or JSON to stdout, progress to stderr, errors first."""

import json

import pytest
from typer.testing import CliRunner

from deltaproof.cli.main import app
from small import FAST_OPTIONS, call


@pytest.fixture(scope="module")
def options(bert, reviews_csv):
    return ["--model", bert, "--data", reviews_csv, *FAST_OPTIONS, "--trials", "1", "--seeds", "1", "--no-baselines"]


@pytest.fixture(scope="module")
def compared(options, tmp_path_factory):
    """`compare --capacity`: what it gave, and its folder."""
    folder = tmp_path_factory.mktemp("runs") / "reviews"
    return call("compare", *options, "--methods", "full,lora(rank=2)", "--out", folder, "--capacity"), folder


def test_the_studies_come_behind_the_table_and_keep_every_model(compared):
    result, folder = compared
    assert result.exit_code == 0, result.output
    assert result.stdout.index("method") < result.stdout.index("Does a low rank bind?")
    for line in ("full: an update of", "lora(rank=2): its logits moved by", "What was forgotten?"):
        assert line in result.stdout
    assert "displacement: done in" in result.stderr
    assert len(list((folder / "tuned").iterdir())) == 2
    assert (folder / "report.html").exists()
    assert len(list((folder / "studies").glob("*.json"))) == 5


def test_the_same_command_as_json_is_one_object_with_the_studies_in_it(compared, options):
    _, folder = compared
    again = call(
        "compare", *options, "--methods", "full,lora(rank=2)", "--out", folder, "--capacity", "--json", "--quiet"
    )
    assert (again.exit_code, again.stderr) == (0, "")
    answer = json.loads(again.stdout)
    assert answer["reference"] == "full"
    assert set(answer["capacity"]) == {"expressivity", "spectra", "displacement", "path", "forgetting"}


def test_capacity_of_a_run_that_exists_reads_what_stands(compared):
    result = call("capacity", compared[1], "--device", "cpu")
    assert result.exit_code == 0, result.output
    assert result.stderr.splitlines() == [
        f"{name}: from disk" for name in ("expressivity", "spectra", "displacement", "path", "forgetting")
    ]
    assert "Does a low rank bind?" in result.stdout


def test_methods_ranks_and_a_file_can_be_named(compared, tmp_path):
    arguments = ["--methods", "lora(rank=2)", "--ranks", "1,4", "--device", "cpu", "--json", "--quiet"]
    result = call("capacity", compared[1], *arguments, "--out", tmp_path / "out.json")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "")
    found = json.loads((tmp_path / "out.json").read_text())
    assert found["expressivity"]["ranks"] == [0, 1, 4, 32]
    assert [method["label"] for method in found["spectra"]["methods"]] == ["lora(rank=2)"]


def test_without_full_compare_says_so_before_anything_is_trained(options, tmp_path):
    result = call("compare", *options, "--methods", "lora(rank=2)", "--out", tmp_path / "run", "--capacity")
    assert result.exit_code == 2
    assert "add `full` to `--methods`" in result.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--methods", "ia3"], 1, "has no contestant `ia3`"),
        (["--ranks", "a,b"], 2, "`--ranks` takes whole numbers"),
        (["--device", "tpu"], 2, "device"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_line(compared, arguments, code, message):
    result = call("capacity", compared[1], *arguments)
    assert result.exit_code == code, result.output
    assert message in result.stderr


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    result = call("capacity", tmp_path)
    assert result.exit_code == 1
    assert "must be a run folder" in result.stderr


def test_the_command_takes_the_common_options_and_shows_an_example():
    text = " ".join(CliRunner().invoke(app, ["capacity", "--help"], env={"COLUMNS": "200"}).stdout.split())
    for option in ("--json", "--out", "--seed", "--device", "--quiet", "--methods", "--ranks", "--corpus"):
        assert option in text
    assert "deltaproof capacity runs/" in text
