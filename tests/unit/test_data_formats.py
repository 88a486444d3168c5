"""Public files read as they lie: without a header, with a label before each text, several lists in one object."""

import pytest

from deltaproof.data import load_data
from deltaproof.data.local_copies import below, find_below
from deltaproof.data.reading import Reading
from deltaproof.data.sources import read_file
from deltaproof.errors import DataError
from deltaproof.experiments.plan import plan_from
from deltaproof.experiments.resolve import read_data


def write(path, content, encoding="utf-8"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode(encoding))
    return path


def sentences(n=60):
    return "".join(f"{at % 2} a {('dull', 'fine')[at % 2]} film number {at} .\n" for at in range(n))


def test_lines_of_a_label_and_a_text_end_at_line_feeds_alone(tmp_path):
    path = write(tmp_path / "subj.all", "0 smart \x85 and alert \r\n\n1\ta caf\xe9 burns\n", "latin-1")
    table = read_file(path, Reading("latin-1", "label_text"))
    assert table.columns == {"label": ["0", "1"], "text": ["smart \x85 and alert", "a café burns"]}
    assert table.ids() == ["subj.all:1", "subj.all:3"]


def test_a_line_without_a_text_is_refused_with_its_row(tmp_path):
    with pytest.raises(DataError, match=r"a\.all, row 2: each line must be a label, a blank and a text, got `1`; comp"):
        read_file(write(tmp_path / "a.all", "0 fine\n1\n"), Reading(format="label_text"))


def test_rows_without_a_text_end_a_run_unless_they_are_to_be_left_out(tmp_path):
    path = write(tmp_path / "a.all", f"0 \r\n{sentences()}1 \n")
    with pytest.raises(DataError, match=r"a\.all, row 1: the text `text` must not be empty, .* `drop_empty`"):
        load_data(path, format="label_text")
    data = load_data(path, format="label_text", drop_empty=True)
    assert "2 rows of train without a text left out, the first at a.all, row 1" in data.notes
    assert data.fingerprint == load_data(write(tmp_path / "b.all", sentences()), format="label_text").fingerprint
    with pytest.raises(DataError, match=r"some rows must have their text `text`, got none in 2 rows"):
        load_data(write(tmp_path / "c.all", "0 \n1 \n"), format="label_text", drop_empty=True)


def test_a_file_without_header_gets_its_columns_named_and_keeps_its_first_row(tmp_path):
    path = write(tmp_path / "ag.csv", '"3","Fears, again","Unions say ""no""."\n"4","Race","On"\n')
    table = read_file(path, Reading(columns=("label", "title", "text")))
    assert table.columns["text"] == ['Unions say "no".', "On"]
    assert list(table.rows) == [1, 2]
    path = write(tmp_path / "cola.tsv", "gj04\t1\t\tWe ate.\ngj04\t0\t*\tUs ate.\n")
    assert read_file(path, Reading(columns=("source", "label", "mark", "sentence"))).columns["mark"] == ["", "*"]


@pytest.mark.parametrize(
    ("reading", "message"),
    [
        ({"columns": ("a", "b")}, r"row 1: `columns` must name each field of a row, got 2 names \(a, b\) for 3 fields"),
        ({"columns": ("a", "a", "b")}, r"`columns` must name different columns, got a, a, b"),
        ({"format": "tvs"}, r"`format` must be one of csv, tsv, .*, got `tvs`; did you mean `tsv`"),
        ({"columns": ("a",), "format": "label_text"}, r"`columns` are for CSV and TSV files .* got them with `label_t"),
    ],
)
def test_options_that_do_not_fit_the_file_are_refused(tmp_path, reading, message):
    path = write(tmp_path / "a.csv", "1,2,3\n4,5,6\n")
    with pytest.raises(DataError, match=message):
        read_file(path, Reading(**reading))


def test_columns_for_a_file_that_names_its_own_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"got them for `a\.jsonl`; leave them out"):
        read_file(write(tmp_path / "a.jsonl", '{"text": "a"}\n'), Reading(columns=("text",)))


def test_a_row_of_another_length_is_measured_against_the_first_where_there_is_no_header(tmp_path):
    with pytest.raises(DataError, match=r"a\.csv, row 2: each row must have the 2 fields of the first row, got 3"):
        read_file(write(tmp_path / "a.csv", "1,a\n2,b,c\n"), Reading(columns=("label", "text")))


def test_an_ending_that_says_nothing_needs_the_format(tmp_path):
    path = write(tmp_path / "msr_train.txt", '\ufeffQuality\t#1 String\n1\tcalled "the witness", he\n')
    with pytest.raises(DataError, match=r"got `\.txt`; .* or say what it is: `--format csv`, `--format tsv`"):
        read_file(path)
    table = read_file(path, Reading(format="tsv"))
    assert table.columns == {"Quality": ["1"], "#1 String": ['called "the witness", he']}


def test_labels_get_the_names_that_the_user_gives_them(tmp_path):
    path = write(tmp_path / "a.all", sentences())
    data = load_data(path, format="label_text", label_names={"0": "worse", "1": "better"})
    assert data.labels == ["better", "worse"]
    assert all(
        ("dull" in text[0]) == (target == 1)
        for text, target in zip(data.train.texts, data.train.targets[:, 0], strict=True)
    )
    with pytest.raises(
        DataError, match=r"a\.all, row 2: each label must be one of those in `label_names` \(`0`\), got `1`"
    ):
        load_data(path, format="label_text", label_names={"0": "worse"})


def test_evaluation_rows_are_capped_by_class_and_said_so(tmp_path):
    path = write(tmp_path / "a.all", sentences(400))
    whole = load_data(path, format="label_text")
    data = load_data(path, format="label_text", max_evaluation_rows=20)
    assert (len(data.train), len(data.validation), data.test.n_rows) == (280, 20, 20)
    assert data.validation.targets.mean() == 0.5
    assert set(data.validation.ids) < set(whole.validation.ids)
    assert "the test split is a stratified sample of 20 of 80 rows" in data.notes
    with pytest.raises(DataError, match="`max_evaluation_rows` must be at least 2, one row for each label, got 1"):
        load_data(path, format="label_text", max_evaluation_rows=1)


def test_a_hub_id_is_looked_for_below_the_root_under_its_own_name(tmp_path):
    rows = "text,label\n" + "".join(f"row {at},{at % 2}\n" for at in range(40))
    folder = write(tmp_path / "glue/sst2/train.csv", rows).parent
    file = write(tmp_path / "SetFit/subj.csv", rows)
    part = write(tmp_path / "advglue/dev.json", '{"rte": [{"text": "a", "label": 1}]}')
    assert below(tmp_path, "glue:sst2") == str(folder)
    assert below(tmp_path, "SetFit/subj") == str(file)
    assert below(tmp_path, "SetFit/subj.csv") == str(file)
    assert below(tmp_path, "advglue/dev.json#rte") == f"{part}#rte"
    assert below(tmp_path, str(file)) == str(file)
    assert find_below(tmp_path, "glue:rte") is None
    with pytest.raises(
        DataError,
        match=r"a local copy of `glue:rte` must lie below it, looked for the folder `.*glue/rte` and for a file",
    ):
        below(tmp_path, "glue:rte")
    with pytest.raises(DataError, match="`data_root` must be a folder, found none at"):
        below(tmp_path / "no", "glue:rte")


def test_a_plan_reads_its_splits_from_the_root(tmp_path):
    for name in ("train", "dev", "test"):
        write(tmp_path / f"data/{name}.all", sentences())
    plan = plan_from(
        {"model": "m", "methods": "full", "data": "data/train.all", "validation": "data/dev.all",
         "test": "data/test.all", "format": "label_text", "label_names": "0=bad, 1=good", "data_root": tmp_path}
    )  # fmt: skip
    data = read_data(plan)
    assert data.labels == ["bad", "good"]
    assert data.test.n_rows == 60


@pytest.mark.shared_data
@pytest.mark.parametrize(
    ("fields", "labels", "rows"),
    [
        ({"data": "sent-conv/data/stsa.binary.train", "validation": "sent-conv/data/stsa.binary.dev",
          "test": "sent-conv/data/stsa.binary.test", "format": "label_text"}, 2, 6920 + 872 + 1821),
        ({"data": "sent-conv/data/TREC.train.all", "test": "sent-conv/data/TREC.test.all", "format": "label_text",
          "encoding": "latin-1"}, 6, 5452 + 500),
        ({"data": "sent-conv/data/subj.all", "format": "label_text", "encoding": "latin-1"}, 2, 10_000),
        ({"data": "sent-conv/data/custrev.all", "format": "label_text", "drop_empty": True}, 2, 3775 - 4),
        ({"data": "cola/acceptability_corpus/cola_public/raw/in_domain_train.tsv", "label": "label",
          "test": "cola/acceptability_corpus/cola_public/raw/in_domain_dev.tsv", "text": "sentence",
          "columns": "source,label,mark,sentence"}, 2, 8551 + 527),
        ({"data": "rte/data/RTE/train.tsv", "test": "rte/data/RTE/dev.tsv"}, 2, 2490 + 277),
        ({"data": "mrpc/dataset/msr-paraphrase-corpus/msr_paraphrase_train.txt", "format": "tsv", "label": "Quality",
          "test": "mrpc/dataset/msr-paraphrase-corpus/msr_paraphrase_test.txt"}, 2, 4076 + 1725),
        ({"data": "agnews/data/ag_news_csv/test.csv", "columns": "label,title,text", "text": "title,text",
          "label": "label"}, 4, 7600),
    ],
)  # fmt: skip
def test_public_files_are_read_as_they_lie(shared_data, fields, labels, rows):
    plan = plan_from({"model": "m", "methods": "full", "data_root": shared_data / "text", **fields})
    data = read_data(plan)
    assert len(data.labels) == labels
    assert len(data.train) + len(data.validation) + data.test.n_rows == rows
