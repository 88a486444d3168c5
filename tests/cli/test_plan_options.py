"""Options that fill a plan or settings are declared once, and reach them as they were given."""

import re
from dataclasses import MISSING, fields
from typing import Any, get_args

import pytest
import typer
from typer.testing import CliRunner

from deltaproof.cli import attack, compress, merge
from deltaproof.cli.plan_options import OPTIONS, takes
from deltaproof.compression import folder
from deltaproof.experiments.plan import Plan
from deltaproof.studies import merging, robustness_sets
from deltaproof.training.settings import Training


def given(*arguments, names=tuple(OPTIONS), required=()):
    """What a command with these options gets."""
    found: list[dict[str, Any]] = []
    app = typer.Typer()

    @app.command()
    @takes(*names, required=required)
    def command(own: int = 1, **fields: Any) -> None:
        found.append({"own": own, **fields})

    result = CliRunner().invoke(app, arguments)
    return found[0] if found else result.output


def test_every_option_is_a_field_of_a_plan():
    assert set(OPTIONS) <= set(Plan.model_fields) | set(Training.model_fields)


@pytest.mark.parametrize(
    ("options", "settings"),
    [(attack.TRIED, robustness_sets.Attack), (merge.ASKED, merging.Settings), (compress.READING, folder.Options)],
)
def test_every_option_of_a_study_is_a_field_of_its_settings_and_tells_their_default(options, settings):
    defaults = {field.name: field.default for field in fields(settings)}
    assert options.keys() <= defaults.keys()
    for name, option in options.items():
        said, default = re.search(r"\[default: ([^];]*)", get_args(option)[1].help), defaults[name]
        if said and default not in (None, (), MISSING):
            assert said[1] == (",".join(map(str, default)) if isinstance(default, tuple) else str(default))


def test_what_is_left_out_is_no_field_so_that_the_plan_or_its_default_stands():
    assert given() == {"own": 1}


def test_a_zero_is_given_and_a_switch_counts_where_it_is_on():
    assert given("--seed", "0", "--drop-leaks", "--require", "a >= 1", "--require", "b >= 2", "--own", "2") == {
        "own": 2,
        "seed": 0,
        "drop_leaks": True,
        "require": ["a >= 1", "b >= 2"],
    }


def test_help_follows_the_order_of_the_names_in_which_the_commands_own_may_stand():
    shown = given("--help", names=("seed", "own", "device"))
    assert shown.index("--seed") < shown.index("--own") < shown.index("--device")


def test_a_required_option_is_asked_for():
    assert "Missing option '--model'" in given("--data", "x", required=("model", "data"))


def test_a_command_that_names_no_known_option_is_our_own_error():
    with pytest.raises(KeyError, match="no_such_field"):
        takes("no_such_field")(lambda: None)
