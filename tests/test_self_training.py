import pytest

from medssl.self_training import TOLERANCE, Outcome, self_train


class _Loop:
    """Write down what is called; ``changes`` gives the share that changed at each comparison."""

    def __init__(self, changes=(), done=()):
        self.calls = []
        self.changes = iter(changes)
        self.done = set(done)

    def fit(self, stage, targets):
        self.calls.append(("fit", stage, targets))

    def predict(self, number):
        self.calls.append(("predict", number))
        return f"targets {number}"

    def changed(self, before, now):
        self.calls.append(("changed", before, now))
        return next(self.changes)

    def run(self, rounds, **options):
        return self_train(fit=self.fit, predict=self.predict, changed=self.changed, rounds=rounds, **options)


def test_calls_come_in_their_order():
    loop = _Loop([0.5, 0.2])
    assert loop.run(3) == Outcome(3, "all 3 rounds are done")
    assert loop.calls == [
        ("fit", 0, None),
        ("predict", 1),
        ("fit", 1, "targets 1"),
        ("predict", 2),
        ("changed", "targets 1", "targets 2"),
        ("fit", 2, "targets 2"),
        ("predict", 3),
        ("changed", "targets 2", "targets 3"),
        ("fit", 3, "targets 3"),
    ]


def test_without_rounds_only_the_labels_are_fitted():
    loop = _Loop()
    assert loop.run(0) == Outcome(0, "no rounds were asked for")
    assert loop.calls == [("fit", 0, None)]


def test_one_round_compares_nothing():
    loop = _Loop()
    assert loop.run(1) == Outcome(1, "all 1 rounds are done")
    assert [call[0] for call in loop.calls] == ["fit", "predict", "fit"]


def test_it_stops_when_hardly_a_label_changes_and_says_so():
    loop = _Loop([0.01, 0.0009, 0.5])
    outcome = loop.run(10)
    assert outcome.rounds == 2
    assert outcome.reason == "less than 0.1 % of the labels changed in round 2"
    assert [call for call in loop.calls if call[0] == "fit"][-1] == ("fit", 2, "targets 2")
    assert loop.calls[-1] == ("changed", "targets 2", "targets 3")


@pytest.mark.parametrize(("share", "rounds"), [(TOLERANCE, 2), (0.9999 * TOLERANCE, 1)])
def test_the_tolerance_is_a_strict_bound(share, rounds):
    assert _Loop([share]).run(2).rounds == rounds


def test_the_tolerance_may_be_chosen():
    outcome = _Loop([0.04]).run(2, tolerance=0.05)
    assert outcome == Outcome(1, "less than 5 % of the labels changed in round 1")
    assert _Loop([0.0]).run(2, tolerance=0.0).rounds == 2


class _Stored:
    """A run that stands in files: what is done stays done, and after so much work it is killed."""

    def __init__(self, budget):
        self.budget = budget
        self.trained, self.targets = [], {}

    def work(self):
        if self.budget == 0:
            raise KeyboardInterrupt
        self.budget -= 1

    def fit(self, stage, targets):
        if stage >= len(self.trained):
            self.work()
            self.trained.append((stage, targets))

    def predict(self, number):
        if number not in self.targets:
            self.work()
            self.targets[number] = (number, len(self.trained))
        return self.targets[number]

    def run(self):
        return self_train(
            fit=self.fit, predict=self.predict, changed=lambda before, now: 0.5 * (now[0] < 4), rounds=6
        )


@pytest.mark.parametrize("stopped_before", range(8))
def test_a_loop_called_anew_ends_as_if_it_had_not_been_stopped(stopped_before):
    """``fit`` passes over stages that are done, ``predict`` reads what is stored."""
    stored = _Stored(stopped_before)
    with pytest.raises(KeyboardInterrupt):
        stored.run()
    stored.budget = 100
    outcome = stored.run()
    assert outcome == Outcome(3, "less than 0.1 % of the labels changed in round 3")
    assert stored.trained == [(0, None), (1, (1, 1)), (2, (2, 2)), (3, (3, 3))]
    assert stored.run() == outcome
    assert len(stored.trained) == 4
