import shutil
import subprocess

import pytest

from medssl.labels import BRAIN_TISSUES
from medssl.workflows.provenance import code_revision, other_baseline, versions


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, True),
        ({"command": "medssl train cohort --out run --init packaged"}, False),
        ({"command": "medssl train cohort --out run --set init_weights=weights.pt"}, False),
        ({"contrasts": ["T1w"]}, False),
        ({"labels": BRAIN_TISSUES.rows()[:2]}, False),
    ],
)
def test_the_packaged_weights_are_named_where_they_fit_and_were_not_used(changes, said):
    record = {
        "command": "medssl train cohort --out run",
        "contrasts": ["T1w", "T2w"],
        "labels": BRAIN_TISSUES.rows(),
    }
    assert ("--init packaged" in other_baseline(record | changes)) is said


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_a_checkout_tells_its_revision_and_what_is_installed_none(tmp_path):
    def git(*words):
        given = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b.c", *words]
        return subprocess.run(given, capture_output=True, text=True, check=True).stdout.strip()

    (tmp_path / "file").write_text("1")
    (tmp_path / "site-packages").mkdir()
    git("init", "--quiet")
    git("add", ".")
    git("commit", "--quiet", "-m", "one")
    git("tag", "v1")
    commit = git("rev-parse", "HEAD")
    assert code_revision(tmp_path) == commit
    code_revision.cache_clear()
    (tmp_path / "file").write_text("2")
    assert code_revision(tmp_path) == f"{commit}-dirty"
    assert code_revision(tmp_path / "site-packages") is None


def test_versions_without_a_revision_name_none(monkeypatch):
    monkeypatch.setattr("medssl.workflows.provenance.code_revision", lambda: None)
    assert "revision" not in versions()
