"""`deltaproof scale`: the sweep in text or JSON on stdout, and a page that draws it."""

import json

from typer.testing import CliRunner

from deltaproof.cli.main import app


def test_a_sweep_over_ranks_is_printed_stored_and_drawn(bert, reviews_csv, tmp_path):
    small = ("--epochs", 1, "--batch-size", 16, "--max-length", 16, "--device", "cpu", "--trials", 1, "--seeds", 1)
    options = ("scale", "--rank", "1,2,4", "--model", bert, "--data", reviews_csv, *small, "--out", tmp_path, "--json")
    result = CliRunner().invoke(app, [str(option) for option in options])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert [point["rank"] for point in found["points"]] == [1, 2, 4]
    assert f"report: {tmp_path / 'report.html'}" in result.stderr
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert 'id="scale-parameters"' in page
    assert 'id="gains-per-doubling"' in page


def test_a_sweep_over_nothing_or_over_two_things_is_refused():
    for arguments in ([], ["--rank", "1,2,4", "--examples", "8,16"]):
        result = CliRunner().invoke(app, ["scale", *arguments])
        assert result.exit_code != 0
        assert "over one thing" in result.output + str(result.exception)
