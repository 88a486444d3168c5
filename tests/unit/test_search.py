"""The search for edits that turn an answer: against planted models of which every step can be counted by hand."""

import random

import numpy as np
import pytest

from deltaproof.errors import ConfigError
from deltaproof.robustness.perturbations import PERTURBATIONS
from deltaproof.robustness.perturbations.words import words
from deltaproof.robustness.search import budget, search
from deltaproof.robustness.search_recipes import RECIPES, Recipe

ROWS = [
    ("a", ("The acting is wonderful and the story moves along",)),
    ("b", ("Nothing here is worth seven dollars, said Ann in Paris",)),
    ("c", ("wonderful",)),
]
TRUTHS = [1, 0, 1]


class Planted:
    """A model of weights by word: the logit of class 1 is their sum. Remembers what it was asked."""

    def __init__(self, weights, bias=0.0):
        self.weights, self.bias = weights, bias
        self.asked = []

    def __call__(self, rows):
        self.asked += rows
        logits = [self.bias + sum(self.weights.get(word.text.lower(), 0.0) for word in words(" ".join(texts)))
                  for texts in rows]  # fmt: skip
        one = 1 / (1 + np.exp(-np.array(logits)))
        return np.stack([1 - one, one], axis=1)


def attack(model, rows=ROWS, truths=TRUTHS, recipe="deepwordbug", strengths=(0.4,), **options):
    clean = model([texts for _, texts in rows])
    model.asked.clear()
    recipe = recipe if isinstance(recipe, Recipe) else RECIPES[recipe]
    return search(model, rows, truths, clean, recipe, strengths, **options)


def in_capitals(word, before, rng):
    return [] if word.protected else [word.text + "x", word.text + "y"]


TWO = Recipe("two", "Two variants of each word that may be edited.", "char_swap", in_capitals)


def test_the_one_word_that_decides_is_found_with_as_many_queries_as_the_ranking_and_its_variants():
    model = Planted({"wonderful": 4.0}, bias=-1.0)
    found = attack(model, recipe=TWO)[0.4]
    for row, (_, texts) in zip(found, ROWS, strict=True):
        n_places = sum(not word.protected for word in words(texts[0]))
        if "wonderful" in texts[0]:
            (edit,) = row.texts[0].edits
            assert texts[0][edit.start : edit.end] == "wonderful"
            assert row.n_queries == n_places + 2
            assert row.outputs.argmax() == 0
    assert found[0].texts[0].text == "The acting is wonderfulx and the story moves along"
    assert len(model.asked) == sum(row.n_queries for row in found)


def test_the_words_are_taken_in_the_order_of_what_they_weigh_until_the_answer_turns():
    weights = {"acting": 1.0, "wonderful": 1.5, "story": 0.7, "moves": 0.1}
    model = Planted(weights, bias=-1.2)
    (row, *_) = attack(model, recipe=TWO, strengths=(1.0,))[1.0]
    before = ROWS[0][1][0]
    assert [before[edit.start : edit.end] for edit in row.texts[0].edits] == ["wonderful", "acting"]
    assert row.n_queries == len([word for word in words(before) if not word.protected]) + 2 + 2
    assert row.n_words == 9


def test_of_the_variants_the_one_that_lowers_the_true_class_most_is_taken():
    model = Planted({"wonderful": 3.0, "wonderfulx": 2.0, "wonderfuly": 1.0}, bias=-0.5)
    (row, *_) = attack(model, recipe=TWO)[0.4]
    assert row.texts[0].edits[0].text == "wonderfuly"
    assert row.outputs.argmax() == 1, "and nothing more helps"
    assert len(row.texts[0].edits) == 1


def test_a_model_that_nobody_can_turn_is_left_within_the_budget_with_its_texts_as_they_were():
    model = Planted({}, bias=2.0)
    found = attack(model, truths=[1, 1, 1], most_queries=12)[0.4]
    for row, (_, texts) in zip(found, ROWS, strict=True):
        assert row.n_queries <= 12
        assert row.texts[0].text == texts[0]
        assert row.texts[0].edits == ()
    assert found[0].n_queries == 12
    assert len(model.asked) == sum(row.n_queries for row in found)


def test_a_row_whose_clean_answer_is_wrong_is_left_alone():
    model = Planted({"wonderful": 4.0}, bias=-1.0)
    found = attack(model, truths=[0, 1, 0])[0.4]
    assert [row.n_queries for row in found] == [0, 0, 0]
    assert model.asked == []


@pytest.mark.parametrize("recipe", RECIPES)
def test_protected_words_stay_and_no_more_is_edited_than_the_budget_lets(recipe):
    rng = np.random.default_rng(0)
    text = "Ann did not see 3 wonderful films in Paris, but the actors never seemed tired of the boring story"
    rows = [(str(at), (text,)) for at in range(6)]
    for _, truth in enumerate((0, 1)):
        model = Planted({word.text.lower(): float(rng.normal()) for word in words(text)}, bias=0.1 * (2 * truth - 1))
        for strength, found in attack(model, rows, [truth] * 6, recipe, (0.1, 0.3, 1.0)).items():
            for row in found:
                assert len(row.texts[0].edits) <= row.texts[0].budget == budget(strength, 19)
                kept = {word.text for word in words(row.texts[0].text)}
                assert {"Ann", "not", "3", "Paris", "never"} <= kept


def test_edits_are_those_of_the_perturbations_that_make_the_same():
    for name, kinds in (("deepwordbug", ("char_swap", "char_drop", "keyboard", "homoglyph")),
                        ("synonym_search", ("synonym",))):  # fmt: skip
        text = "The movie is wonderful but the ending seems rather boring and the actors look tired"
        for word, before in zip(words(text), [None, *words(text)], strict=False):
            made = set()
            for kind in kinds:
                for draw in range(200):
                    for edit in PERTURBATIONS[kind].propose(text, random.Random(draw))[1]:
                        made |= {edit.text} if edit.start == word.start else set()
            assert set(RECIPES[name].candidates(word, before, random.Random(1))) <= made
    assert RECIPES["synonym_search"].promise() == PERTURBATIONS["synonym"].promise()
    assert RECIPES["synonym_search"].promise(2) == "noise"
    assert RECIPES["deepwordbug"].promise() == "keeps label"


def test_a_smaller_budget_goes_the_way_of_a_larger_one():
    rng = np.random.default_rng(1)
    text = "The movie is wonderful but the ending seems rather boring and the actors look tired of the whole story"
    rows = [(str(at), (text,)) for at in range(8)]
    weights = {word.text.lower(): float(rng.normal()) for word in words(text)}
    several = attack(Planted(weights, 0.3), rows, [1] * 8, strengths=(0.05, 0.1, 0.2, 0.6), most_queries=60)
    for strength, found in several.items():
        alone = attack(Planted(weights, 0.3), rows, [1] * 8, strengths=(strength,), most_queries=60)[strength]
        for one, other in zip(found, alone, strict=True):
            assert (one.texts, one.n_queries) == (other.texts, other.n_queries)
            np.testing.assert_array_equal(one.outputs, other.outputs)
    falls = [np.mean([row.outputs[1] for row in found]) for found in several.values()]
    assert falls == sorted(falls, reverse=True)


def test_it_is_the_same_every_time_and_each_row_by_itself():
    weights = {"wonderful": 1.0, "acting": 0.6, "story": 0.5, "worth": -0.7, "dollars": -0.6}
    first, again = (attack(Planted(weights), seed=3)[0.4] for _ in range(2))
    for one, other in zip(first, again, strict=True):
        assert (one.texts, one.n_queries) == (other.texts, other.n_queries)
    for at in range(3):
        (alone,) = attack(Planted(weights), ROWS[at : at + 1], TRUTHS[at : at + 1], seed=3)[0.4]
        assert alone.texts == first[at].texts


def test_of_a_pair_the_budget_is_one_for_both_texts():
    weights = {"wonderful": 2.0, "acting": 2.0, "story": 2.0}
    rows = [("p", ("wonderful acting it was indeed", "the story then"))]
    (row,) = attack(Planted(weights, -0.5), rows, [1], TWO, (0.3,))[0.3]
    assert row.n_words == 8
    assert sum(len(text.edits) for text in row.texts) <= budget(0.3, 8) == 3
    assert row.outputs.argmax() == 0
    (row,) = attack(Planted(weights, -0.5), rows, [1], "synonym_search", (1.0,))[1.0]
    assert row.texts[0].edits == (), "near-synonyms come into the second text alone"


def test_of_several_classes_a_variant_that_turns_the_answer_comes_before_one_that_lowers_it_more():
    def model(rows):
        table = {"word": [0.4, 0.35, 0.25], "wordx": [0.38, 0.39, 0.23], "wordy": [0.35, 0.325, 0.325]}
        return np.array([table.get(text, [0.3, 0.3, 0.4]) for (text,) in rows])

    (row,) = search(model, [("r", ("word",))], [0], model([("word",)]), TWO, (1.0,))[1.0]
    assert row.texts[0].text == "wordx"


@pytest.mark.parametrize("options", [{"strengths": (0.0,)}, {"strengths": ()}, {"most_queries": 0}])
def test_settings_that_make_no_sense_are_refused(options):
    with pytest.raises(ConfigError, match="`0 < strength <= 1` and `most_queries >= 1` must hold"):
        attack(Planted({}), **options)
