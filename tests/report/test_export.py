"""Exported files: read back by other readers, with nothing lost on the way."""

import csv
import io
import re
import struct
import sys

import pytest

from deltaproof.errors import ConfigError, MissingExtraError
from deltaproof.report import export
from deltaproof.report.export import latex, table_csv


def test_the_csv_holds_every_row_with_unrounded_numbers(table_of):
    table = table_of()
    rows = {row["name"]: row for row in csv.DictReader(io.StringIO(table_csv(table)))}
    assert set(rows) == {row.name for row in (*table.rows, *table.baselines)}
    assert float(rows["lora"]["mean"]) == table.row("lora").scores["accuracy"].mean
    assert float(rows["lora"]["difference"]) == table.row("lora").comparison.difference
    assert float(rows["lora"]["test_ece"]) == table.row("lora").scores["ece"].mean
    assert float(rows["lora"]["stored_bytes"]) == table.row("lora").cost["stored_bytes"]
    assert (rows["majority"]["group"], rows["majority"]["stored_bytes"]) == ("baselines", "")


def test_latex_special_letters_are_made_harmless():
    text = latex(r"50 % & $x_1^2$ #{a}~\b <c> |d| −3")
    bare = re.sub(r"\\[a-z]+\{\}|\\[&%$#_{}]|\$-\$", "", text)
    assert not set(bare) & set("&%$#_{}~^\\<>|−")
    assert text.startswith(r"50 \% \& \$x\_1\textasciicircum{}2\$")


def test_the_latex_table_has_as_many_cells_as_columns_in_every_row(table_of, tmp_path):
    table = table_of(methods=("full", "lora(rank=4, roles=['attention_out'])", "50%_&_more"), skills=(0.9, 0.8, 0.6))
    (path,) = export(table, tmp_path / "out", ["latex"])
    text = path.read_text(encoding="utf-8")
    columns = re.search(r"\\begin\{tabular\}\{([lr]+)\}", text)[1]
    body = text.split(r"\toprule")[1].split(r"\bottomrule")[0]
    lines = [line for line in body.splitlines() if line.endswith(r"\\") and not line.startswith(r"\multicolumn")]
    assert len(lines) == 1 + len(table.rows) + len(table.baselines)
    assert {len(re.split(r"(?<!\\)&", line)) for line in lines} == {len(columns)}
    assert text.count("{") - text.count(r"\{") == text.count("}") - text.count(r"\}")
    assert r"50\%\_\&\_more" in text
    assert re.search(r"\\toprule.*\\midrule.*\\bottomrule", text, re.DOTALL)


def test_every_figure_is_exported_as_svg_and_png(table_of, tmp_path):
    pytest.importorskip("vl_convert", reason="PNG files need the extra [figures]")
    paths = export(table_of(), tmp_path / "out", ["svg", "png"])
    names = {"differences", "costs-and-quality", "learning-curves", "learning-rates", "confusion", "reliability"}
    assert {path.name for path in paths} == {f"{name}.{ending}" for name in names for ending in ("svg", "png")}
    for path in paths:
        if path.suffix == ".png":
            content = path.read_bytes()
            assert content.startswith(b"\x89PNG\r\n\x1a\n")
            width, height = struct.unpack(">II", content[16:24])
            assert width >= 600
            assert height >= 200


def test_png_without_its_extra_names_it_and_writes_nothing(table_of, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "vl_convert", None)
    with pytest.raises(MissingExtraError, match=r"extra \[figures\]"):
        export(table_of(), tmp_path / "out", ["csv", "png"])
    assert not (tmp_path / "out").exists()
    assert [path.name for path in export(table_of(), tmp_path / "out", ["csv"])] == ["results.csv"]


def test_an_unknown_format_names_the_near_one(table_of, tmp_path):
    with pytest.raises(ConfigError, match="did you mean `latex`"):
        export(table_of(), tmp_path, ["latexx"])
