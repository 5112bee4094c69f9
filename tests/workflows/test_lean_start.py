"""Imports without collections; what `medssl segment` loads is tested with the command."""

import gc

import pytest

from medssl.workflows.lean_start import without_collections


@pytest.fixture(autouse=True)
def unfrozen():
    yield
    gc.unfreeze()
    gc.enable()


def test_nothing_is_collected_inside_and_what_is_there_is_frozen():
    gc.unfreeze()
    with without_collections():
        assert not gc.isenabled()
        made = [[] for _ in range(1000)]
    assert gc.isenabled()
    assert gc.get_freeze_count() > len(made)


def test_collections_come_back_after_an_error_and_stay_off_where_they_were():
    with pytest.raises(ImportError), without_collections():
        raise ImportError
    assert gc.isenabled()
    gc.disable()
    with without_collections():
        pass
    assert not gc.isenabled()
