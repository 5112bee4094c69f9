import sys
from dataclasses import replace
from pathlib import Path

import pytest

import medssl
from medssl.errors import InputError
from medssl.workflows.labeling.doctor import Facts, findings, healthy, read_facts

GOOD = Facts(
    python=(3, 11, 7),
    versions={
        "monailabel": "0.8.5", "medssl": medssl.__version__, "torch": "2.13.0", "torchvision": "0.28.0",
        "numpy": "2.4.6", "pydicom": "2.4.5", "pynetdicom": "2.1.1", "dicomweb-client": "0.59.3",
    },
    problems={},
    environment={},
)  # fmt: skip


def bad(**changes):
    versions, problems = changes.pop("versions", {}), changes.pop("problems", {})
    facts = replace(GOOD, versions={**GOOD.versions, **versions}, problems=problems, **changes)
    return {one.check: one for one in findings(facts) if not one.ok}


def test_a_good_environment_has_no_finding():
    assert healthy(findings(GOOD))
    assert not any(one.cure for one in findings(GOOD))


@pytest.mark.parametrize(
    ("changes", "check", "cure"),
    [
        ({"python": (3, 13, 0), "problems": {"cgi": "ModuleNotFoundError"}}, "Python", "python3.11"),
        ({"versions": {"pydicom": "3.0.2"}}, "DICOM packages below their bounds", '"pydicom<3"'),
        ({"versions": {"pynetdicom": "3.0.0"}}, "DICOM packages below their bounds", '"pynetdicom<3"'),
        ({"versions": {"dicomweb-client": "0.60.1"}}, "DICOM packages below their bounds", "dicomweb-client<0.60"),
        ({"versions": {"pydicom": ""}}, "DICOM packages below their bounds", "pip install"),
        ({"versions": {"numpy": "1.26.4", "numpymaxflow": "0.0.7"}}, "numpy is not forced to 1.26", "numpymaxflow"),
        ({"versions": {"SAM-2": "1.0"}}, "no sam2", "uninstall -y sam2"),
        ({"problems": {"torchvision": "No module named torchvision"}}, "torchvision fits torch", "torchvision"),
        ({"environment": {"MONAI_ZOO_SOURCE": "github"}}, "no look-up in the model zoo", "zoo_source ngc"),
        ({"environment": {"MONAI_LABEL_CORS_ORIGINS": "[]"}}, "MONAI_LABEL_CORS_ORIGINS is not set", "unset"),
        ({"versions": {"monailabel": "0.8.4"}}, "MONAI Label 0.8.5 starts", "make label"),
        ({"problems": {"monailabel.interfaces.app": "No module named x"}}, "MONAI Label 0.8.5 starts", "make label"),
        ({"versions": {"medssl": "0.0.1"}}, "medssl is the same there", "--editable ."),
        ({"problems": {"medssl.label_app.main": "ImportError"}}, "medssl is the same there", "--editable ."),
    ],
)  # fmt: skip
def test_each_symptom_has_its_finding_and_its_cure(changes, check, cure):
    found = bad(**changes)
    assert list(found) == [check]
    assert cure in found[check].cure
    assert found[check].found


def test_a_torchvision_that_does_not_fit_is_worked_around_and_said():
    problem = {"torchvision": "RuntimeError: operator torchvision::nms does not exist"}
    found = {one.check: one for one in findings(replace(GOOD, problems=problem))}["torchvision fits torch"]
    assert found.ok
    assert "works around" in found.found
    assert "stock app" in found.cure


def test_this_python_is_examined_from_inside():
    facts = read_facts(Path(sys.executable), {})
    assert facts.python == sys.version_info[:3]
    assert facts.versions["numpy"]
    assert bool(facts.versions["monailabel"]) == (not facts.problems["monailabel.interfaces.app"])


def test_a_program_that_is_no_python_is_refused(tmp_path):
    with pytest.raises(InputError, match="make label"):
        read_facts(tmp_path / "python", {})
