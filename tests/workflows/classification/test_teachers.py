"""Teachers of other networks than the student's begin with weights of their own."""

import pytest
import torch
from pictures import options
from runs import StopAfter, texts

from medssl.engines import TrainingInterrupted
from medssl.errors import ConfigError
from medssl.io.files import read_json
from medssl.networks.compact import build_classifier
from medssl.workflows.classification.distill import distill
from medssl.workflows.classification.distill_options import DistillOptions
from medssl.workflows.classification.pseudo_labels import KeepRule
from medssl.workflows.classification.teachers import Teacher, teachers_of


@pytest.mark.parametrize(
    ("word", "pretrained", "weights"),
    [
        ("resnet18", None, None),
        ("resnet18", "cached", "cached"),
        ("resnet18=cached", None, "cached"),
        ("resnet18=none", "cached", None),
        ("resnet18=a=b.pt", "cached", "a=b.pt"),
    ],
)
def test_a_word_names_network_and_weights(word, pretrained, weights):
    assert teachers_of([word], options(pretrained=pretrained)) == (Teacher("resnet18", weights),)


def test_a_file_is_for_teachers_of_the_same_network(tmp_path):
    file = tmp_path / "weights.pt"
    file.touch()
    student = options(network="resnet18", pretrained=str(file))
    assert teachers_of(["resnet18"], student) == (Teacher("resnet18", str(file)),)
    with pytest.raises(
        ConfigError, match=r"weights\.pt are for resnet18; the teacher resnet50.*resnet50=cached"
    ):
        teachers_of(["resnet50"], student)


def test_a_pretrained_teacher_teaches_a_student_without_weights(pictures, tmp_path):
    file = tmp_path / "ours" / "weights.pt"
    file.parent.mkdir()
    torch.save(build_classifier("test_resnet", 2).backbone.state_dict(), file)
    content, out = file.read_bytes(), tmp_path / "run"
    chosen = DistillOptions(
        teachers=(f"test_resnet={file}",),
        student=options(channels=3, size=32, steps=8),
        rule=KeepRule(threshold=0.0),
        baseline=False,
    )
    with pytest.raises(TrainingInterrupted):
        distill(pictures, out, chosen, StopAfter(1))
    file.unlink()
    distill(pictures, out, chosen, resume=True)
    teacher = out / "teachers" / "round-0-teacher-1-test_resnet"
    assert (teacher / "models" / "pretrained.pt").read_bytes() == content
    assert read_json(teacher / "run.json")["pretrained"] is not None
    student = read_json(out / "run.json")
    assert student["pretrained"] is None
    assert "--teacher test_resnet=run/given/teacher-1/weights.pt" in student["command"]
    assert not [path for path in texts(out) if str(tmp_path) in path.read_text()]
