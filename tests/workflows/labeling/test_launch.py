import sys
from pathlib import Path

import pytest

from medssl.errors import ConfigError, InputError, OutputError
from medssl.workflows.labeling import launch
from medssl.workflows.labeling.launch import find_python, prepare_server, require_port, started_in
from medssl.workflows.labeling.workspace import (
    MAIN,
    ServerSettings,
    default_labels_folder,
    lay_out,
    read_settings,
)


@pytest.fixture
def settings(cohort, tmp_path):
    return ServerSettings(
        cohort, default_labels_folder(cohort), cache=tmp_path / "cache", training={"seed": 3}
    )


def test_the_folder_lies_beside_the_scans_and_they_stay_as_they_are(cohort, settings):
    before = sorted(cohort.rglob("*"))
    workspace = lay_out(settings)
    assert workspace.folder == cohort.with_name("cohort-labels")
    assert sorted(cohort.rglob("*")) == before
    assert (workspace.app / "main.py").read_text() == MAIN


def test_settings_come_back_and_name_no_place_of_this_machine(cohort, settings):
    workspace = lay_out(settings)
    assert read_settings(workspace.app) == settings
    assert str(cohort.parent) not in (workspace.app / "settings.json").read_text()


def test_a_datalist_has_its_folder_beside_that_of_the_scans(cohort):
    assert default_labels_folder(cohort / "datalist.json") == cohort.with_name("cohort-labels")


def test_labels_never_go_into_the_folder_of_the_scans(cohort):
    with pytest.raises(OutputError, match="inside the input folder"):
        lay_out(ServerSettings(cohort, cohort / "labels"))


def test_a_folder_without_settings_is_refused(tmp_path):
    (tmp_path / "settings.json").write_text("{}")
    with pytest.raises(InputError, match="label serve"):
        read_settings(tmp_path)


def test_the_command_listens_on_this_computer_with_our_server(settings):
    ready = prepare_server(settings, Path(sys.executable), port=8123)
    words = " ".join(ready.command)
    assert "--host 127.0.0.1 --port 8123" in words
    assert "--uvicorn_app medssl.label_app.server:app" in words
    assert ready.address == "http://127.0.0.1:8123"
    assert (ready.scans, ready.labeled) == (4, 3)
    assert ready.environment["MONAI_LABEL_TRACKING_ENABLED"] == "false"
    assert ready.environment["ORT_DISABLE_TELEMETRY"] == "1"


def test_variables_that_break_the_server_are_left_out(settings):
    ready = prepare_server(settings, Path(sys.executable))
    found = started_in({"MONAI_LABEL_CORS_ORIGINS": "[]", "PYTHONPATH": "x", "HOME": "h"}, ready)
    assert "MONAI_LABEL_CORS_ORIGINS" not in found
    assert "PYTHONPATH" not in found
    assert found["HOME"] == "h"


def test_a_model_that_is_not_there_is_named(settings, tmp_path):
    wrong = ServerSettings(settings.studies, settings.labels, model=tmp_path / "nothing")
    with pytest.raises(InputError, match="nothing"):
        prepare_server(wrong, Path(sys.executable))
    assert not settings.labels.exists()


def test_the_environment_is_found_in_a_folder_or_given(tmp_path, monkeypatch):
    monkeypatch.setattr(launch.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="make label"):
        find_python(None, [tmp_path])
    program = tmp_path / ".venv-label" / launch._inside()
    program.parent.mkdir(parents=True)
    program.touch()
    assert find_python(None, [tmp_path]) == program
    assert find_python(tmp_path / ".venv-label") == program
    assert find_python(program) == program
    with pytest.raises(InputError, match="no Python"):
        find_python(tmp_path / "x")


@pytest.mark.parametrize("port", [0, 80, 70_000])
def test_ports_that_a_user_cannot_open_are_refused(port):
    with pytest.raises(ConfigError):
        require_port(port)
