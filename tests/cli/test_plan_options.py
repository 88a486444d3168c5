"""Options that fill a plan are declared once, and reach it as they were given."""

from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from deltaproof.cli.plan_options import OPTIONS, takes
from deltaproof.experiments.plan import Plan
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
