"""Recipes of distillation: what they set, and what they leave to the user."""

from dataclasses import replace
from itertools import pairwise

import pytest
from pictures import options

from medssl.errors import ConfigError
from medssl.transforms.image_views import DATA_DISTILLATION, VIEW_PRESETS
from medssl.workflows.classification.distill_options import (
    RECIPES,
    DistillOptions,
    distill_command,
    with_recipe,
)
from medssl.workflows.classification.pseudo_labels import KeepRule


def test_the_paper_s_recipe_is_what_was_published():
    found = with_recipe(DistillOptions(kind="data", recipe="paper"))
    assert found.views == DATA_DISTILLATION
    assert found.student.settings == {"average": 0.0}
    assert (found.targets, found.rule, found.calibrated) == ("hard", KeepRule(threshold=0.8), False)
    assert with_recipe(DistillOptions(kind="plain", recipe="paper")).views == (), "one view"


def test_our_recipe_averages_calibrates_and_balances():
    found = with_recipe(DistillOptions(kind="data", recipe="ours"))
    assert found.student.settings == {"average": 0.999}
    assert (found.rule, found.calibrated, found.views) == (KeepRule(balance=1.0), True, ())


@pytest.mark.parametrize("recipe", RECIPES)
def test_what_is_given_beside_a_recipe_stands(recipe):
    given = DistillOptions(
        recipe=recipe,
        views=("hflip",),
        rule=KeepRule(threshold=0.9, balance=3.0),
        student=options(settings={"average": 0.5, "patience": 2}),
    )
    found = with_recipe(given)
    assert (found.views, found.rule) == (given.views, given.rule)
    assert found.student.settings == {"average": 0.5, "patience": 2}


@pytest.mark.parametrize("recipe", [None, *RECIPES])
def test_a_recipe_that_was_followed_changes_nothing_more(recipe):
    once = with_recipe(DistillOptions(recipe=recipe))
    assert with_recipe(once) == once


def test_without_a_recipe_nothing_is_set():
    assert with_recipe(DistillOptions()) == DistillOptions()


def test_an_unknown_recipe_is_refused():
    with pytest.raises(ConfigError, match=r"no recipe 'best'\. Choose one of: paper, ours"):
        with_recipe(DistillOptions(recipe="best"))


@pytest.mark.parametrize("kind", ["data", "plain"])
@pytest.mark.parametrize("recipe", [None, *RECIPES])
@pytest.mark.parametrize("preset", ["digits", "grey"])
@pytest.mark.parametrize("given", [(), VIEW_PRESETS["digits"], ("hflip",), DATA_DISTILLATION])
def test_the_command_repeats_the_views(kind, recipe, preset, given, tmp_path):
    """A repeat without --view has those of the recipe, then those of the preset."""

    def seen(views):
        found = with_recipe(
            DistillOptions(kind=kind, recipe=recipe, views=views, student=options(preset=preset))
        )
        return replace(found, views=found.views or found.usual_views)

    first = seen(given if kind == "data" else ())
    words = distill_command(tmp_path / "images", tmp_path / "run", first).split()
    named = tuple(word for before, word in pairwise(words) if before == "--view")
    assert seen(named).views == first.views
    assert not named or named == given, "what comes by itself is not named"
