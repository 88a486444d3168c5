"""Files to tables: what is understood, and what is refused with file, row and remedy."""

import csv
import json
import sys

import pandas
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deltaproof.data.reading import Reading
from deltaproof.data.sources import READERS, read_file, read_source
from deltaproof.errors import DataError, MissingExtraError


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), st.text('ab,;"\n\r\t é')),
        min_size=1,
        max_size=8,
    )
)
def test_a_csv_file_comes_back_as_the_csv_module_wrote_it(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("csv") / "rows.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, quoting=csv.QUOTE_ALL)
        writer.writerow(["text", "other"])
        writer.writerows(rows)
    table = read_file(path)
    assert list(zip(table.columns["text"], table.columns["other"], strict=True)) == rows


def test_rows_are_the_lines_an_editor_shows_despite_quoted_newlines_blank_lines_and_crlf(tmp_path):
    path = write(tmp_path / "a.csv", b'\xef\xbb\xbftext,label\r\n"two\r\nlines",x\r\n\r\n"say ""hi"", she said",y\r\n')
    table = read_file(path)
    assert table.columns == {"text": ["two\r\nlines", 'say "hi", she said'], "label": ["x", "y"]}
    assert list(table.rows) == [2, 5]
    assert table.ids() == ["a.csv:2", "a.csv:5"]


def test_a_semicolon_file_is_read_and_noted(tmp_path):
    table = read_file(write(tmp_path / "a.csv", "text;label\nfine, really;1\n"))
    assert table.columns["text"] == ["fine, really"]
    assert "';'" in table.notes[0]


def test_a_tsv_file_with_lone_quotes_is_read_as_pandas_reads_it_without_quoting(tmp_path):
    path = write(tmp_path / "a.tsv", 'text\tlabel\n"Hello" she said\t0\nan inch is 1"\t1\n"open\t1\n')
    expected = pandas.read_csv(path, sep="\t", quoting=csv.QUOTE_NONE)
    table = read_file(path)
    assert table.columns["text"] == expected["text"].tolist()
    assert "ordinary letter" in table.notes[0]


def test_a_tsv_file_with_paired_quotes_is_read_as_pandas_reads_it(tmp_path):
    path = write(tmp_path / "a.tsv", 'text\tlabel\n"a\ttab ""here"""\t0\nplain\t1\n')
    assert read_file(path).columns["text"] == pandas.read_csv(path, sep="\t")["text"].tolist()


def test_a_text_longer_than_the_csv_module_allows_by_default_is_read_and_the_default_put_back(tmp_path):
    before = csv.field_size_limit()
    table = read_file(write(tmp_path / "a.csv", "text,label\n" + "x" * 200_000 + ",1\n"))
    assert len(table.columns["text"][0]) == 200_000
    assert csv.field_size_limit() == before


def test_spaces_after_the_commas_of_a_header_are_no_part_of_names_or_values(tmp_path):
    table = read_file(write(tmp_path / "a.csv", 'text, label\n"a, b", pos\n'))
    assert table.columns == {"text": ["a, b"], "label": ["pos"]}


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig", "utf-8"])
def test_unicode_with_a_mark_needs_no_option(tmp_path, encoding):
    table = read_file(write(tmp_path / "a.csv", "text,label\nnaïve 文,1\n".encode(encoding)))
    assert table.columns["text"] == ["naïve 文"]


def test_wrong_encoding_names_offset_row_and_option_and_the_option_helps(tmp_path):
    path = write(tmp_path / "a.csv", "text,label\nfine,1\nnaïve,0\n".encode("latin-1"))
    with pytest.raises(
        DataError, match=r"a\.csv, row 3: the file must be UTF-8, got byte 0xef at offset 20; .*--encoding latin-1"
    ):
        read_file(path)
    assert read_file(path, Reading("latin-1")).columns["text"] == ["fine", "naïve"]


def test_an_unknown_encoding_is_an_error_of_ours(tmp_path):
    with pytest.raises(DataError, match="`encoding` must be one that Python knows, got `latin-99`"):
        read_file(write(tmp_path / "a.csv", "text,label\nfine,1\n"), Reading("latin-99"))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "a.csv",
            "text,label\nfine,1\nbad, really,0\n",
            r"a\.csv, row 3: each row must have the 2 fields of the header, got 3; put quotes",
        ),
        ("a.csv", "text,label\nfine,1\nbad\n", r"a\.csv, row 3: .* 2 fields .* got 1"),
        (
            "a.csv",
            'text,label\nfine,1\n"never closed,0\nmore,1\n',
            r"a\.csv, row 3: quotes must pair up, got .*; close the quote",
        ),
        ("a.csv", "", r"a\.csv: a file must hold rows, got an empty file"),
        ("a.csv", "\n \n", r"a\.csv: a file must hold rows, got an empty file"),
        ("a.csv", "text,label\n", r"a\.csv: a file must hold rows, got a header only"),
        ("a.csv", "text,text\na,b\n", r"row 1: column names must differ, got `text` twice; .*header line"),
        ("a.txt", "pos fine\n", r"`a\.txt` must end in one of \.csv, \.tsv, .*, got `\.txt`"),
        (
            "a.jsonl",
            '{"text": "a", "label": 1}\n\n{"text": "b"\n',
            r"a\.jsonl, row 3: each line must be a JSON object, got .*; correct",
        ),
        ("a.jsonl", '{"text": "a"}\n["b", 1]\n', r'a\.jsonl, row 2: each line must be a JSON object, got \["b", 1\]'),
        ("a.json", '[{"text": "a"}, 3]', r"a\.json, row 2: each entry of the list must be an object, got 3"),
        ("a.json", '[{"text": "a"},', r"a\.json: the file must be JSON, got"),
        ("a.json", "[]", r"a\.json: a table must hold rows, got none"),
        (
            "a.json",
            '{\n "train": [{"text": "a"}]\n}',
            r"a\.json: the file must hold a list of objects .* got one object with the keys `train`; name one of its "
            r"lists, such as `a\.json#train`",
        ),
        (
            "a.json",
            '{"train": [{"text": "a"}]}',
            r"a\.json: the file must hold a list of objects .*; name one of its lists, such as `a\.json#train`",
        ),
        (
            "a.json",
            '{\n "version": 3\n}',
            r"a\.json: the file must hold a list of objects .* got one object with the keys `version`; write the list",
        ),
        ("a.parquet", "PAR1 not really", r"a\.parquet: the file must be Parquet, got"),
    ],
)
def test_a_broken_file_is_refused_with_its_row_and_a_remedy(tmp_path, name, content, message):
    with pytest.raises(DataError, match=message):
        read_file(write(tmp_path / name, content))


def test_a_list_of_several_in_one_file_is_named_behind_a_hash(tmp_path):
    rows = {
        "rte": [{"sentence1": "a", "sentence2": "b", "label": 1}],
        "sst2": [{"sentence": "fine", "label": 0}],
        "n": 2,
    }
    path = write(tmp_path / "tasks.json", json.dumps(rows))
    table = read_file(f"{path}#sst2")
    assert (table.columns, table.ids()) == ({"sentence": ["fine"], "label": [0]}, ["tasks.json#sst2:1"])
    name, tables = read_source(f"{path}#rte")
    assert (name, tables["train"].columns["sentence2"]) == ("tasks#rte", ["b"])
    with pytest.raises(DataError, match=r"tasks\.json: `sst` must be one of its lists .*; did you mean `sst2`\?"):
        read_source(f"{path}#sst")
    with pytest.raises(DataError, match=r"`n` must be one of its lists"):
        read_file(f"{path}#n")
    write(tmp_path / "odd#name.json", '[{"text": "a"}]')
    assert len(read_file(tmp_path / "odd#name.json")) == 1


def test_a_missing_file_names_the_nearest_one_of_its_folder(tmp_path):
    write(tmp_path / "reviews.csv", "text,label\na,1\n")
    with pytest.raises(DataError, match=r"must be a file, found none; did you mean `reviews\.csv`\?"):
        read_file(tmp_path / "reveiws.csv")
    with pytest.raises(DataError, match="does not exist either"):
        read_file(tmp_path / "nowhere" / "reviews.csv")


def test_every_kind_of_file_holds_the_same_rows(tmp_path):
    rows = [{"text": "naïve, film", "label": 0}, {"text": "two\nlines", "label": 1}]
    frame = pandas.DataFrame(rows)
    frame.to_csv(tmp_path / "a.csv", index=False)
    frame.to_csv(tmp_path / "a.tsv", index=False, sep="\t")
    frame.to_json(tmp_path / "a.jsonl", orient="records", lines=True)
    frame.to_json(tmp_path / "a.ndjson", orient="records", lines=True)
    frame.to_json(tmp_path / "a.json", orient="records")
    frame.to_parquet(tmp_path / "a.parquet")
    for suffix in READERS:
        table = read_file(tmp_path / f"a{suffix}")
        assert table.columns["text"] == [row["text"] for row in rows]
        assert [int(value) for value in table.columns["label"]] == [0, 1]


def test_a_json_file_of_lines_is_read_too(tmp_path):
    table = read_file(write(tmp_path / "a.json", '{"text": "a", "label": 1}\n{"text": "b", "label": 0}\n'))
    assert table.columns["text"] == ["a", "b"]


def test_a_line_separator_inside_a_json_text_is_no_new_row(tmp_path):
    table = read_file(write(tmp_path / "a.jsonl", json.dumps({"text": "a\u2028b\u0085c"}, ensure_ascii=False) + "\n"))
    assert table.columns["text"] == ["a\u2028b\u0085c"]


def test_class_names_in_the_metadata_of_a_parquet_file_are_known(tmp_path):
    features = {
        "info": {"features": {"label": {"names": ["neg", "pos"], "_type": "ClassLabel"}, "text": {"_type": "Value"}}}
    }
    arrow = pa.table({"text": ["a"], "label": [1]}).replace_schema_metadata({"huggingface": json.dumps(features)})
    pq.write_table(arrow, tmp_path / "a.parquet")
    assert read_file(tmp_path / "a.parquet").class_names == {"label": ["neg", "pos"]}


def test_a_folder_gives_its_splits_by_their_names(tmp_path):
    for name in ("train", "dev", "test"):
        write(tmp_path / f"{name}.csv", f"text,label\n{name},1\n")
    write(tmp_path / "README.md", "notes")
    _, tables = read_source(tmp_path)
    assert {role: table.columns["text"] for role, table in tables.items()} == {
        "train": ["train"],
        "validation": ["dev"],
        "test": ["test"],
    }


def test_shards_of_one_split_are_joined(tmp_path):
    for i in range(2):
        write(tmp_path / f"train-0000{i}-of-00002.jsonl", f'{{"text": "t{i}", "label": {i}}}\n')
    write(tmp_path / "test.jsonl", '{"text": "x", "label": 1}\n')
    _, tables = read_source(tmp_path)
    assert tables["train"].columns["text"] == ["t0", "t1"]
    assert len(set(tables["train"].ids())) == 2


def test_a_folder_without_a_training_file_lists_what_it_has(tmp_path):
    write(tmp_path / "alpha.csv", "text,label\na,1\n")
    write(tmp_path / "beta.csv", "text,label\na,1\n")
    with pytest.raises(DataError, match=r"files named train, validation and test, got alpha\.csv, beta\.csv"):
        read_source(tmp_path)


def test_rows_in_memory_are_a_source(tmp_path):
    rows = [{"text": "a", "label": 1}, {"text": "b", "label": 0}]
    for source in (rows, {"text": ["a", "b"], "label": [1, 0]}, pandas.DataFrame(rows), {"train": rows}):
        _, tables = read_source(source)
        assert tables["train"].columns == {"text": ["a", "b"], "label": [1, 0]}
    with pytest.raises(DataError, match="got int"):
        read_source(3)


def test_a_hub_id_without_the_library_names_the_extra(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingExtraError, match=r"`glue:sst2`.* extra `hub`.*pip install 'deltaproof\[hub\]'"):
        read_source("glue:sst2")


def test_what_reads_like_a_path_is_not_looked_for_on_the_hub(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "datasets", None)
    (tmp_path / "data").mkdir()
    for source in ("reviews.csv", "reviews.xlsx", "data/reviews", "./reviews", "/nowhere/reviews"):
        with pytest.raises(DataError, match="must be a file"):
            read_source(source)
