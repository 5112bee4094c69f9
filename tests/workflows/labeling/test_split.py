from pathlib import Path

from medssl.io.subjects import Cohort, Subject
from medssl.labels import BRAIN_TISSUES
from medssl.workflows.labeling.split import validation_names, with_validation


def subject(name, session=None, label=True):
    return Subject(
        name, (Path(f"{name}_T1w.nii.gz"),), Path(f"{name}_dseg.nii.gz") if label else None, session=session
    )


def cohort(**sections):
    return Cohort(Path(), ("T1w",), BRAIN_TISSUES, **{name: tuple(found) for name, found in sections.items()})


def test_with_few_labels_nobody_validates():
    assert validation_names({"1", "2", "3", "4"}, []) == []


def test_a_fifth_validates_and_those_chosen_before_always_do():
    names = [f"{number:02d}" for number in range(20)]
    chosen = []
    for count in range(1, 21):
        found = validation_names(names[:count], chosen)
        assert set(chosen) <= set(found)
        assert len(found) == count // 5
        chosen = found


def test_the_choice_does_not_depend_on_the_order():
    assert validation_names(["a", "b", "c", "d", "e"], []) == validation_names(["e", "d", "c", "b", "a"], [])


def test_no_session_of_who_validates_is_anywhere_else():
    names = ["a", "b", "c", "d", "e"]
    labeled = [subject(name, "1") for name in names]
    unlabeled = [subject(name, "2", label=False) for name in names]
    split, found = with_validation(cohort(training=labeled, unlabeled=unlabeled), [])
    assert [one.subject for one in split.validation] == found
    assert len(split.training) == len(split.unlabeled) == 4
    assert not {one.subject for one in (*split.training, *split.unlabeled)} & set(found)


def test_who_the_cohort_names_validates_and_nobody_else():
    own = cohort(
        training=[subject(name) for name in "abcdefgh"],
        validation=[subject("v")],
        unlabeled=[subject("v", "2", label=False), subject("u", label=False)],
    )
    split, found = with_validation(own, [])
    assert found == []
    assert [one.subject for one in split.validation] == ["v"]
    assert [one.subject for one in split.unlabeled] == ["u"]
    assert len(split.training) == 8
