"""Perturbed texts: the same everywhere, within their budget, and blind to what a label hangs on."""

import random
import re
import subprocess
import sys
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deltaproof.errors import ConfigError
from deltaproof.robustness.perturbations import EMBEDDING_PGD, PERTURBATIONS, TextEdit
from deltaproof.robustness.perturbations import synonyms as synonyms_module
from deltaproof.robustness.perturbations.base import applied
from deltaproof.robustness.perturbations.characters import HOMOGLYPHS, KEYBOARD
from deltaproof.robustness.perturbations.english import (
    distractors,
    function_words,
    known_words,
    negations,
    number_words,
    synonym_table,
)
from deltaproof.robustness.perturbations.words import is_protected, words

TEXT = "Unfortunately, the movie isn't as funny as Forster's 2 earlier works; it really bores, and nobody laughed."
PIECES = ["good", "Not", "film", "never", "Ann", "3", "quickly", "movie", ",", "...", "a", "don't", "naïve", "日本語"]
TEXTS = st.one_of(
    st.lists(st.sampled_from(PIECES), min_size=1, max_size=30).map(" ".join),
    st.text(min_size=1, max_size=80).filter(lambda text: bool(text.strip())),
)
STRENGTHS = st.floats(0, 1)
TYPOS = ("char_swap", "char_drop", "keyboard", "homoglyph")
WORD_EDITS = (*TYPOS, "case_punctuation", "synonym", "word_drop", "local_shuffle")
ADDITIONS = ("distractor", "tautology")


@pytest.fixture(autouse=True)
def _own_table(monkeypatch):
    """As on a machine without WordNet."""
    monkeypatch.setattr(synonyms_module, "wordnet", lambda: None)
    synonyms_module.synonyms.cache_clear()
    yield
    synonyms_module.synonyms.cache_clear()


def perturbed(name, text=TEXT, strength=1.0, seed=0):
    return PERTURBATIONS[name].perturb_row((text,), strength, seed, "row:1")[0]


def protected_words(text):
    return [word.text for word in words(text) if word.protected]


def test_there_are_ten_of_texts_and_one_of_embeddings():
    assert list(PERTURBATIONS) == [
        "char_swap", "char_drop", "keyboard", "homoglyph", "case_punctuation",
        "synonym", "word_drop", "local_shuffle", "distractor", "tautology",
    ]  # fmt: skip
    assert EMBEDDING_PGD not in PERTURBATIONS


@pytest.mark.parametrize("name", PERTURBATIONS)
@settings(max_examples=60, deadline=None)
@given(text=TEXTS, strength=STRENGTHS, seed=st.integers(0, 9))
def test_edits_keep_to_their_budget_and_leave_some_text(name, text, strength, seed):
    found = perturbed(name, text, strength, seed)
    n_units, _ = PERTURBATIONS[name].propose(text, random.Random(0))
    assert len(found.edits) <= found.budget
    assert found.budget - 1 < strength * n_units + 1e-9, "rounded up, no further"
    assert found.text.strip()
    assert (found.text == text) if not found.edits else True
    assert found.text == applied(text, found.edits), "the edits say all that was done"


@pytest.mark.parametrize("name", PERTURBATIONS)
@settings(max_examples=30, deadline=None)
@given(text=TEXTS, strengths=st.tuples(STRENGTHS, STRENGTHS))
def test_the_edits_of_a_lower_strength_are_among_those_of_a_higher_one(name, text, strengths):
    low, high = sorted(strengths)
    weak, strong = perturbed(name, text, low), perturbed(name, text, high)
    assert weak.edits == strong.edits[: len(weak.edits)]


@pytest.mark.parametrize("name", PERTURBATIONS)
def test_strength_0_changes_nothing_and_every_strength_above_changes_even_a_short_text(name):
    short = "really boring movie about nothing special"
    assert perturbed(name, short, 0.0).text == short
    assert perturbed(name, short, 0.001).text != short


@pytest.mark.parametrize("strength", [-0.1, 1.1, float("nan")])
def test_a_strength_is_a_share(strength):
    with pytest.raises(ConfigError, match=r"0 <= strength <= 1.*share of words"):
        perturbed("char_swap", strength=strength)


@pytest.mark.parametrize("name", WORD_EDITS)
@settings(max_examples=40, deadline=None)
@given(text=st.lists(st.sampled_from(PIECES[:-2]), min_size=1, max_size=30).map(" ".join))
def test_negations_numbers_and_names_stay_in_their_order(name, text):
    kept = protected_words(text)
    after = [word.text for word in words(perturbed(name, text).text)]
    left = iter(after)
    assert all(word in left for word in kept), (kept, after)


@pytest.mark.parametrize("name", ADDITIONS)
def test_additions_hold_no_negation_number_or_name(name):
    added = [edit.text for seed in range(20) for edit in perturbed(name, seed=seed).edits]
    assert {word for text in added for word in protected_words(text)} <= {"Sunday"}


def test_the_protected_words_of_a_sentence():
    text = "Ann Lee couldn't see 3 of the seven films on www.x.org; hardly anyone could. Everyone left without me."
    assert protected_words(text) == [
        "Ann", "Lee", "couldn't", "3", "seven", "www.x.org", "hardly", "anyone", "Everyone", "without",
    ]  # fmt: skip


def test_a_capital_at_the_start_of_a_sentence_or_in_a_headline_is_no_name_where_the_word_is_common():
    assert protected_words("Good films are rare. Great ones . Better still: Paris") == ["Paris"]
    assert protected_words("it is the best that came from Good People so far") == ["Good", "People"]
    assert protected_words("Oil Prices Rise As Markets Open In Zagreb") == ["Prices", "Markets", "Zagreb"]


def test_contractions_count_however_their_apostrophe_is_written():
    assert all(is_protected(word) for word in ("don't", "don’t", "dont", "n't", "non-fiction", "twenty-one", "No-one"))


def test_a_slip_makes_no_common_word_negation_or_number():
    for word in sorted(known_words() | {"hot", "forty", "previous", "fun", "bored"}):
        for name in TYPOS:
            for seed in range(2):
                after = perturbed(name, word, 1.0, seed).text
                assert after == word or (after.lower() not in known_words() and not is_protected(after.lower()))


def test_a_slip_keeps_first_and_last_letter():
    for seed in range(20):
        for name in ("char_swap", "char_drop", "keyboard"):
            for before, after in zip(TEXT.split(), perturbed(name, seed=seed).text.split(), strict=True):
                assert (before[0], before[-1]) == (after[0], after[-1])


def test_each_slip_is_what_its_name_says():
    for seed in range(20):
        swapped = perturbed("char_swap", "wonderful", 1.0, seed).text
        assert sorted(swapped) == sorted("wonderful")
        assert sum(one != other for one, other in zip(swapped, "wonderful", strict=True)) == 2
        dropped = perturbed("char_drop", "wonderful", 1.0, seed).text
        assert dropped in {"wonderful"[:at] + "wonderful"[at + 1 :] for at in range(1, 8)}
        struck = perturbed("keyboard", "wonderful", 1.0, seed).text
        ((old, new),) = [(a, b) for a, b in zip("wonderful", struck, strict=True) if a != b]
        assert new in KEYBOARD[old]
        ((old, new),) = [
            (a, b)
            for a, b in zip("wonderful", perturbed("homoglyph", "wonderful", 1.0, seed).text, strict=True)
            if a != b
        ]
        assert HOMOGLYPHS[old] == new


def test_neighbours_on_the_keyboard_are_mutual_and_look_alikes_are_of_other_alphabets():
    assert all(key in KEYBOARD[near] for key, nears in KEYBOARD.items() for near in nears)
    assert len(KEYBOARD) == 26
    assert all(
        not new.isascii() and new.isalpha() and new.isupper() == old.isupper() for old, new in HOMOGLYPHS.items()
    )
    assert len(set(HOMOGLYPHS.values())) == len(HOMOGLYPHS)


def test_case_and_punctuation_change_no_letter():
    for seed in range(30):
        after = perturbed("case_punctuation", seed=seed).text
        assert after != TEXT
        assert re.sub(r"[,.]", "", after).lower() == re.sub(r"[,.]", "", TEXT).lower()


def test_synonyms_come_from_the_table_in_the_form_and_case_of_the_word():
    for seed in range(20):
        after = perturbed("synonym", "QUICKLY, the movie bores this Big Easy big crowd", seed=seed).text
        first, *rest = re.findall(r"\w+", after)
        assert first.lower() in synonym_table()["quickly"]
        assert first.isupper()
        assert rest == ["the", "film", "bores", "this", "Big", "Easy", "large", "crowd"]


def test_a_synonym_agrees_with_the_article_before_it():
    for seed in range(30):
        assert perturbed("synonym", "a funny film", seed=seed).text in ("a humorous film",)
        assert perturbed("synonym", "an amusing film", seed=seed).text == "an amusing film"
        assert perturbed("synonym", "the amusing film", seed=seed).text in ("the funny film", "the humorous film")


def test_the_table_of_synonyms_is_sound():
    table = synonym_table()
    assert 300 <= len(table) <= 600
    for word, others in table.items():
        assert others
        assert word not in others
        for each in (word, *others):
            assert each == each.lower()
            assert each.isalpha()
            assert not is_protected(each)
    assert "movie" in table
    assert "film" not in table, "what is only plainer has no way back: `to film` is no `to movie`"
    assert all(word in table[other] for word in ("big", "large") for other in table[word])


def test_distractors_are_neutral_and_told_apart():
    assert len(set(distractors())) == len(distractors()) >= 20
    for sentence in distractors():
        assert sentence.endswith(".")
        assert not [word.text for word in words(sentence) if word.protected and word.text != "Sunday"]


def test_the_lists_do_not_overlap_where_they_must_not():
    assert not negations() & number_words()
    assert not function_words() & number_words()
    assert all(word == word.lower() for word in known_words())


def test_words_that_are_left_out_take_their_blanks_along():
    for strength in (0.3, 0.6, 1.0):
        for seed in range(10):
            after = perturbed("word_drop", strength=strength, seed=seed).text
            assert "  " not in after
            assert set(after.split()) <= set(TEXT.split())


def test_one_word_is_left_where_all_could_go():
    assert len(perturbed("word_drop", "good old film").text.split()) == 1


def test_a_shuffle_keeps_the_words_and_moves_none_further_than_its_window():
    text = "we all know that this long film would bore even people like them"
    for seed in range(10):
        after = perturbed("local_shuffle", text, seed=seed).text
        assert after != text
        assert sorted(after.split()) == sorted(text.split())
        for at, word in enumerate(after.split()):
            assert abs(text.split().index(word) - at) <= 2


def test_distractors_follow_the_text_as_sentences():
    after = perturbed("distractor", "a good film").text
    assert re.fullmatch(r"a good film(\. [A-Z][^.]+){3}\.", after)
    assert perturbed("distractor", "a good film .", 0.1).text.startswith("a good film . ")


def test_a_tautology_comes_before_the_closing_mark_up_to_five_times():
    assert perturbed("tautology", "Is it good?", 0.2).text == "Is it good and true is true?"
    assert perturbed("tautology", "It is .", 1.0).text == "It is" + 5 * " and true is true" + " ."


@pytest.mark.parametrize("name", PERTURBATIONS)
def test_of_a_pair_the_sides_that_it_names_are_edited(name):
    pair = ("people watch a really boring movie", "people watch a really boring movie")
    rows = PERTURBATIONS[name].perturb_row(pair, 1.0, 0, "row:1")
    changed = tuple(side for side, (before, after) in enumerate(zip(pair, rows, strict=True)) if before != after.text)
    assert changed == PERTURBATIONS[name].sides
    if changed == (0, 1) and name != "case_punctuation":
        assert rows[0].text != rows[1].text, "each side has chances of its own"


def test_what_cannot_promise_to_keep_the_label_is_noise():
    promises = {name: (kind.promise(1), kind.promise(2)) for name, kind in PERTURBATIONS.items()}
    assert promises["word_drop"] == promises["local_shuffle"] == ("noise", "noise")
    assert promises["synonym"] == promises["distractor"] == ("keeps label", "noise")
    assert promises["tautology"] == promises["char_swap"] == ("keeps label", "keeps label")


def test_wordnet_is_taken_where_it_lies_on_the_machine_and_promises_nothing(monkeypatch):
    def sense(pos, *names):
        return SimpleNamespace(pos=lambda: pos, lemma_names=lambda: names)

    senses = {
        "movie": [sense("n", "movie", "film", "motion_picture", "Picture")],
        "bores": [sense("v", "bore", "drill")],  # not its base form
        "film": [sense("n", "film", "movie"), sense("v", "film", "shoot")],  # which one, only a tagger knows
        "about": [sense("r", "about", "astir")],
        "sad": [sense("a", "sad")],
    }
    reader = SimpleNamespace(
        synsets=lambda word: senses.get(word, []),
        morphy=lambda word, pos: "bore" if word == "bores" else word,
        get_version=lambda: "3.0",
    )
    monkeypatch.setattr(synonyms_module, "wordnet", lambda: reader)
    assert synonyms_module.synonyms("movie") == ("film", "picture")
    assert {synonyms_module.synonyms(word) for word in ("bores", "film", "about", "sad", "unheard")} == {()}
    synonym = PERTURBATIONS["synonym"]
    assert (synonym.source(), synonym.promise(1)) == ("wordnet 3.0", "noise")
    assert perturbed("synonym", "the movie bores").text in ("the film bores", "the picture bores")


def test_edits_at_one_place_keep_their_order():
    assert applied("ab", [TextEdit(1, 1, "x"), TextEdit(1, 1, "y"), TextEdit(0, 1, "c")]) == "cxyb"


PRINT = """
from deltaproof.robustness.perturbations import PERTURBATIONS
from deltaproof.robustness.perturbations import synonyms
synonyms.wordnet = lambda: None
for kind in PERTURBATIONS._entries.values():
    print(ascii([text.text for text in kind.perturb_row(({text!r}, {text!r}), 0.4, 7, "reviews.csv:17")]))
"""


def test_another_process_makes_the_same_texts():
    environment = {"PYTHONHASHSEED": "12345", "PATH": ""}
    script = PRINT.replace("{text!r}", repr(TEXT))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environment)
    here = [
        ascii([text.text for text in kind.perturb_row((TEXT, TEXT), 0.4, 7, "reviews.csv:17")])
        for _, kind in PERTURBATIONS.items()
    ]
    assert done.stdout.splitlines() == here


def test_rows_and_seeds_differ():
    kind = PERTURBATIONS["char_swap"]
    rows = {kind.perturb_row((TEXT,), 0.3, seed, row)[0].text for seed in range(3) for row in ("a:1", "a:2", "b:1")}
    assert len(rows) == 9
