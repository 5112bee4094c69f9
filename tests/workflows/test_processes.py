"""Jobs in worker processes: their number, and a process that dies."""

import os

import pytest

from medssl.errors import RegistrationError
from medssl.workflows import processes
from medssl.workflows.processes import in_processes, workers_for


def test_results_come_with_the_number_of_their_job():
    assert sorted(in_processes(pow, [(2, 3), (5, 1), (7, 0)], 2)) == [(0, 8), (1, 5), (2, 1)]


def test_one_worker_is_this_process():
    assert list(in_processes(os.getpid, [(), ()], 1)) == [(0, os.getpid()), (1, os.getpid())]


def test_no_jobs_start_nothing():
    assert list(in_processes(pow, [], 4)) == []


def test_a_process_that_dies_is_reported():
    with pytest.raises(RegistrationError, match="finished registrations are kept"):
        list(in_processes(os._exit, [(1,), (1,)], 2))


def test_processes_are_started_where_that_pays(monkeypatch):
    monkeypatch.setattr(processes, "cores", lambda: 8)
    assert workers_for(processes.SMALL + 1, None) == 8
    assert workers_for(processes.SMALL + 1, None, sharing=4) == 2
    assert workers_for(processes.SMALL + 1, None, sharing=99) == 1
    assert workers_for(processes.SMALL, None) == 1
    assert workers_for(1, 3) == 3
