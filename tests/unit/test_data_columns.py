"""Columns are found by their names, or the user is told what to name."""

import pytest

from deltaproof.data.columns import find_columns
from deltaproof.data.table import Table
from deltaproof.errors import DataError


def table(*names, **values):
    columns = {name: values.get(name, ["some words that are long", "other words"]) for name in names}
    return Table("a.csv", columns, [2, 3])


@pytest.mark.parametrize(
    ("names", "text", "label"),
    [
        (["text", "label"], ("text",), ("label",)),
        (["id", "Review", "Sentiment"], ("Review",), ("Sentiment",)),
        (["sentence1", "sentence2", "label", "idx"], ("sentence1", "sentence2"), ("label",)),
        (["premise", "hypothesis", "label"], ("premise", "hypothesis"), ("label",)),
        (["question", "sentence", "label", "idx"], ("question", "sentence"), ("label",)),
        (
            ["id", "qid1", "qid2", "question1", "question2", "is_duplicate"],
            ("question1", "question2"),
            ("is_duplicate",),
        ),
        (["Quality", "#1 ID", "#2 ID", "#1 String", "#2 String"], ("#1 String", "#2 String"), ("Quality",)),
        (["sentence1", "sentence2", "score"], ("sentence1", "sentence2"), ("score",)),
        (["text", "label", "label_text"], ("text",), ("label",)),
        (["text", "title", "label"], ("text",), ("label",)),
        (["text", "verdict"], ("text",), ("verdict",)),
    ],
)
def test_usual_names_are_found(names, text, label):
    found = find_columns(table(*names), None, None, None)
    assert (found.text, found.label) == (text, label)


def test_without_a_usual_name_the_longest_text_is_taken():
    found = find_columns(table("city", "story", "label", city=["Rome", "Oslo"], label=["0", "1"]), None, None, None)
    assert found.text == ("story",)
    assert found.notes == ("columns not used: `city`",)


@pytest.mark.parametrize("text", ["headline,story", ["headline", "story"], ("headline", "story")])
def test_the_user_names_columns_as_text_or_list(text):
    found = find_columns(table("headline", "story", "a", "b", "author"), text, "a,b", "author")
    assert (found.text, found.label, found.group) == (("headline", "story"), ("a", "b"), "author")


def test_a_column_whose_name_holds_a_comma_can_be_named():
    assert find_columns(table("what, exactly", "label"), "what, exactly", None, None).text == ("what, exactly",)


@pytest.mark.parametrize(
    ("names", "options", "message"),
    [
        (
            ["text", "label"],
            {"text": "txt"},
            r"a\.csv: the text column `txt` must be there, got the columns `text`, `label`; did you mean `text`",
        ),
        (["text", "label"], {"label": "lable"}, "the label column `lable` .* did you mean `label`"),
        (["text", "label"], {"group": "author"}, "the group column `author` must be there"),
        (["text", "label", "score"], {}, "the label column must be clear, .* give `--label label` or `--label score`"),
        (
            ["title", "content", "label"],
            {},
            "the text column must be clear, .* give `--text content` or `--text title`",
        ),
        (["premise", "hypothesis", "text", "label"], {}, "give `--text premise,hypothesis` or `--text text`"),
        (["one", "two", "label"], {}, "give `--text one` or `--text two`"),
        (
            ["3", "Fears for pensions", "Unions said"],
            {},
            r"`--text Fears for pensions` .*if the file has no header line",
        ),
        (["text", "first", "second"], {}, "give `--label first` or `--label second`"),
        (["text"], {}, "a label column must be there, got only `text`; name it with `--label`, .*header line"),
        (["label"], {}, "a text column must be there, got only `label`"),
        (
            ["text", "label"],
            {"text": "label", "label": "label"},
            "`label` must be either text, label or group, got it twice",
        ),
        (["a", "b", "c", "label"], {"text": "a,b,c"}, "`text` must name one column or two, got a, b, c"),
        (["a", "label"], {"text": "a,a"}, "`text` must name different columns"),
        (["a", "b", "label", "text"], {"group": "a,b"}, "`group` must be one column"),
    ],
)
def test_unclear_or_missing_columns_say_which_option_to_give(names, options, message):
    arguments = {"text": None, "label": None, "group": None, **options}
    with pytest.raises(DataError, match=message):
        find_columns(table(*names), **arguments)
