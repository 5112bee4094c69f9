from itertools import pairwise

import pytest

from medssl.errors import ConfigError
from medssl.transforms import Mixture, mixture_for, stage_ends, warm_up


@pytest.mark.parametrize(
    ("batch_size", "share", "unlabeled"),
    [
        (4, 0.5, 2),
        (5, 0.5, 2),
        (3, 0.5, 1),
        (6, 0.75, 4),
        (4, 0.01, 1),
        (4, 0.99, 3),
        (2, 0.9, 1),
        (2, 0.1, 1),
    ],
)
def test_share_is_rounded_down_with_at_least_one_crop_of_either_kind(batch_size, share, unlabeled):
    assert Mixture(share=share).unlabeled(0, batch_size) == unlabeled


def test_a_batch_of_one_has_no_room_for_two_kinds():
    assert Mixture().unlabeled(0, 1) == 0
    alternating = Mixture(start=2, ends=[2, 6], alternate=True)
    assert [alternating.unlabeled(step, 1) for step in range(6)] == [0, 0, 1, 1, 0, 0]


def test_the_first_unlabeled_crop_comes_at_the_start():
    mixture = Mixture(start=3)
    assert [mixture.unlabeled(step, 4) for step in range(6)] == [0, 0, 0, 2, 2, 2]


@pytest.mark.parametrize("batch_size", [1, 2, 4])
def test_alternate_takes_turns_and_never_mixes(batch_size):
    """Invariant 6."""
    mixture = Mixture(start=4, ends=[4, 9, 13], alternate=True)
    counts = [mixture.unlabeled(step, batch_size) for step in range(16)]
    assert set(counts) == {0, batch_size}
    turns = [count > 0 for count in counts]
    assert turns == [False] * 4 + [True] * 2 + [False] * 3 + [True] * 2 + [False] * 2 + [False] * 3


def test_turns_divide_the_steps_of_a_round():
    """Invariant 6: n_l labeled to n_u unlabeled steps."""
    mixture = Mixture(start=2, ends=[2, 10, 18], alternate=True, turns=[1, 3])
    turns = [mixture.unlabeled(step, 4) for step in range(18)]
    assert turns == [0] * 2 + 2 * ([4] * 6 + [0] * 2)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"alternate": True, "turns": [1]}, "two numbers above 0"),
        ({"alternate": True, "turns": [1, 0]}, "two numbers above 0"),
        ({"turns": [1, 3]}, "both kinds in every step"),
    ],
)
def test_turns_that_divide_nothing_are_refused(options, words):
    with pytest.raises(ConfigError, match=words):
        Mixture(**options)


@pytest.mark.parametrize("options", [{"share": 0.0}, {"share": 1.0}, {"share": -0.2}, {"start": -1}])
def test_an_impossible_mixture_is_refused(options):
    with pytest.raises(ConfigError, match="share"):
        Mixture(**options)


def test_without_unlabeled_scans_the_training_is_supervised_and_says_so(caplog):
    assert mixture_for(["scan"], start=7, share=0.25) == Mixture(start=7, share=0.25)
    assert not caplog.records
    assert mixture_for([], start=7) is None
    assert "supervised only" in caplog.text


@pytest.mark.parametrize(
    ("arguments", "ends"),
    [
        ({"total": 40, "rounds": 0}, [40]),
        ({"total": 40, "rounds": 2}, [20, 30, 40]),
        ({"total": 48, "rounds": 5, "first_share": 0.25}, [12, 19, 26, 34, 41, 48]),
        ({"total": 3, "rounds": 1, "first_share": 0.1, "epoch_length": 2}, None),
        ({"total": 3, "rounds": 1, "first_share": 0.5, "epoch_length": 10}, [20, 30]),
        ({"total": 2, "rounds": 2}, None),
        ({"total": 10, "rounds": 2, "first_share": 1.0}, None),
        ({"total": 10, "rounds": -1}, None),
    ],
)
def test_stages_divide_the_budget(arguments, ends):
    if ends is None:
        with pytest.raises(ConfigError, match="cannot hold"):
            stage_ends(**arguments)
    else:
        assert stage_ends(**arguments) == ends


def test_stages_in_steps_are_the_stages_in_epochs():
    for total in range(5, 60):
        for rounds in range(4):
            ends = stage_ends(total, rounds)
            assert len(ends) == rounds + 1
            assert ends[-1] == total
            assert stage_ends(total, rounds, epoch_length=25) == [25 * end for end in ends]
            lengths = {end - begin for begin, end in pairwise(ends)}
            assert not lengths or max(lengths) - min(lengths) <= 1


@pytest.mark.parametrize(
    ("steps", "ends", "expected"), [(4000, (), 200), (4000, (2000, 3000, 4000), 50), (30, (10, 20, 30), 0)]
)
def test_a_warm_up_lies_within_every_stage(steps, ends, expected):
    assert warm_up(steps, ends) == expected


def test_with_many_rounds_each_stage_is_warmed_up_for_itself():
    ends = stage_ends(160, 10, 0.5, 25)  # --budget full --rounds 10
    assert all(0 < warm_up(4000, ends) < end - begin for begin, end in pairwise((0, *ends)))
