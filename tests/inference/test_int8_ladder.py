"""The ladder with made-up scores: which rung is tried when, and where it stops."""

import math

import pytest

from medssl.inference.int8_ladder import MOST_LAYERS, Outcome, Recipe, find_recipe

ENDS = ("first", "classifier")


class Fake:
    """Score recipes by a rule; remember what was asked for."""

    def __init__(self, rule):
        self.rule = rule
        self.asked: list[Recipe] = []
        self.sensitivity_asked = 0

    def score(self, recipe: Recipe) -> float:
        self.asked.append(recipe)
        return self.rule(recipe)

    def sensitive(self) -> list[str]:
        self.sensitivity_asked += 1
        return ["classifier", "worst", "bad", *[f"layer{number}" for number in range(20)]]

    def climb(self, **options) -> Outcome:
        given = {"ends": ENDS, "sensitive": self.sensitive, "start": Recipe(images=100), "more_images": 200}
        return find_recipe(self.score, 0.9, **(given | options))


def test_the_first_way_that_is_good_enough_is_taken():
    fake = Fake(lambda recipe: 0.8901)
    outcome = fake.climb()
    assert fake.asked == [Recipe("minmax", 100)]
    assert outcome.chosen.recipe == Recipe("minmax", 100)
    assert "int8 by minmax, 100 images: score 0.8901" in str(outcome)


def test_a_loss_of_just_the_allowance_passes_and_a_little_more_does_not():
    assert Fake(lambda recipe: 0.4).climb(most_loss=0.5).chosen is not None
    assert Fake(lambda recipe: 0.399999).climb(most_loss=0.5).chosen is None


def test_ways_are_tried_in_the_order_of_the_specification():
    fake = Fake(lambda recipe: 0.5 + 0.01 * (recipe.calibration == "entropy"))
    outcome = fake.climb()
    expected = [
        Recipe("minmax", 100),
        Recipe("entropy", 100),
        Recipe("percentile", 100),
        Recipe("entropy", 200),
        Recipe("entropy", 100, ENDS),
        Recipe("entropy", 100, (*ENDS, "worst")),
        Recipe("entropy", 100, (*ENDS, "worst", "bad")),
        Recipe("entropy", 100, (*ENDS, "worst", "bad", "layer0")),
    ]
    assert fake.asked[:8] == expected
    assert len(fake.asked) == 5 + MOST_LAYERS
    assert outcome.chosen is None
    assert "float32 is kept" in str(outcome)
    assert fake.sensitivity_asked == 1


@pytest.mark.parametrize(
    ("needs", "ways"),
    [
        (lambda recipe: recipe.calibration == "percentile", 3),
        (lambda recipe: recipe.images == 200, 4),
        (lambda recipe: recipe.keep == ENDS, 5),
        (lambda recipe: "bad" in recipe.keep, 7),
    ],
)
def test_it_stops_at_the_rung_that_helps(needs, ways):
    fake = Fake(lambda recipe: 0.9 if needs(recipe) else 0.5)
    outcome = fake.climb()
    assert outcome.chosen == outcome.attempts[-1]
    assert len(outcome.attempts) == len(fake.asked) == ways


def test_sensitivity_is_measured_only_when_all_else_failed():
    fake = Fake(lambda recipe: 0.9 if recipe.keep else 0.0)
    assert fake.climb().chosen.recipe.keep == ENDS
    assert fake.sensitivity_asked == 0


def test_without_more_images_that_rung_is_left_out():
    fake = Fake(lambda recipe: 0.0)
    fake.climb(more_images=100)
    assert {recipe.images for recipe in fake.asked} == {100}


def test_what_cannot_be_made_is_no_success_and_no_basis():
    fake = Fake(lambda recipe: 0.3 if recipe.calibration == "percentile" else math.nan)
    outcome = fake.climb()
    assert outcome.chosen is None
    assert {recipe.calibration for recipe in fake.asked[3:]} == {"percentile"}


def test_a_start_with_another_calibration_comes_first_and_once():
    fake = Fake(lambda recipe: 0.0)
    fake.climb(start=Recipe("entropy", 100), more_images=0)
    assert [recipe.calibration for recipe in fake.asked[:3]] == ["entropy", "minmax", "percentile"]
