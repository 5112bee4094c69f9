import json
import logging
import re

import pytest
import torch
from torch import nn

from medssl.errors import ConfigError, MedsslError
from medssl.inference import choice
from medssl.inference import predictor as tiles
from medssl.inference.backends.torch_backend import TorchBackend
from medssl.inference.choice import Wish, candidates
from medssl.inference.plan import TooLittleMemory, plan_tiles
from medssl.inference.predictor import Predictor, probe_tile, tiling_for
from medssl.inference.trials import TrialStore

CPU = torch.device("cpu")
ALL = [
    ("torch", "float32"),
    ("torch", "bfloat16"),
    ("openvino", "float32"),
    ("openvino", "bfloat16"),
    ("onnxruntime", "float32"),
]


@pytest.fixture
def shallow():
    """Return the smallest network that knows its neighbors."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Conv3d(2, 3, 3, padding=1)


@pytest.fixture
def head():
    """Return a small image and a brain in its middle."""
    image = torch.randn(2, 48, 40, 56, generator=torch.Generator().manual_seed(1))
    mask = torch.zeros(48, 40, 56, dtype=torch.bool)
    mask[4:44, 4:36, 4:52] = True
    return image * mask, mask


class Stand:
    """A backend that answers as torch does, changed by a rule; time is what `seconds` says."""

    memory_factor = 1.0
    device = CPU

    def __init__(self, pair, reference, change):
        self.name, self.precision = pair
        self.reference, self.change, self.calls = reference, change, 0

    def __call__(self, tile):
        self.calls += 1
        return self.change(self.reference(tile))


@pytest.fixture
def machine(monkeypatch):
    """Return rules by backend; all libraries are there, each takes the time it is given."""
    rules = {pair: (lambda logits: logits) for pair in ALL}
    seconds = {pair: 3.0 - number / 2 for number, pair in enumerate(ALL)}
    built = []

    def build(name, precision, reference, folder=None):
        built.append((name, precision))
        if (name, precision) == choice.REFERENCE:
            return reference
        if rules[name, precision] is None:
            msg = "cannot compile\nsecond line"
            raise RuntimeError(msg)
        return Stand((name, precision), reference, rules[name, precision])

    monkeypatch.setattr(choice, "find_spec", lambda name: True)
    monkeypatch.setattr(choice, "has_bfloat16", lambda device: True)
    monkeypatch.setattr(choice, "build", build)
    monkeypatch.setattr(choice, "_seconds", lambda backend, tile: seconds[backend.name, backend.precision])
    return rules, seconds, built


def predict(shallow, head, **options):
    predictor = Predictor(network=shallow, **{"backend": "auto", "precision": "auto", **options})
    return predictor, predictor.predict(*head)


def used(predictor):
    return predictor.backend.name, predictor.backend.precision


def nan(logits):
    return logits * torch.nan


def wrong(logits):
    return logits.flip(1)


def test_the_fastest_is_taken_and_asked_for_no_more_than_it_says(machine, shallow, head):
    predictor, answer = predict(shallow, head)
    assert used(predictor) == ("onnxruntime", "float32")
    torch.testing.assert_close(answer, Predictor(network=shallow).predict(*head))


def test_times_decide(machine, shallow, head):
    machine[1]["torch", "bfloat16"] = 0.1
    assert used(predict(shallow, head)[0]) == ("torch", "bfloat16")


@pytest.mark.parametrize(("rule", "said"), [(nan, "NaN"), (wrong, "labels change in")])
def test_one_that_differs_is_dropped_and_that_is_said_once(machine, shallow, head, caplog, rule, said):
    machine[0]["onnxruntime", "float32"] = rule
    predictor, _ = predict(shallow, head)
    assert used(predictor) == ("openvino", "bfloat16")
    lines = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert len(lines) == 1
    assert lines[0].startswith("Backend onnxruntime (float32) dropped: ")
    assert said in lines[0]


def test_one_that_fails_is_left_out_with_one_line(machine, shallow, head, caplog):
    machine[0]["onnxruntime", "float32"] = None
    predictor, _ = predict(shallow, head)
    assert used(predictor) == ("openvino", "bfloat16")
    lines = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert lines == ["Backend onnxruntime (float32) left out: RuntimeError: cannot compile."]


def test_one_that_is_missing_is_left_out_with_one_line(machine, shallow, head, caplog, monkeypatch):
    monkeypatch.setattr(choice, "find_spec", lambda name: True if name == "torch" else None)
    machine[1]["torch", "float32"] = 0.5
    with caplog.at_level(logging.DEBUG, logger="medssl.inference.choice"):
        predictor, _ = predict(shallow, head)
    assert predictor.backend is predictor.reference
    lines = [record.message for record in caplog.records if "not installed" in record.message]
    assert lines == ["Backends left out, since these are not installed: onnx, onnxruntime, openvino."]


def test_where_all_that_were_asked_for_are_dropped_torch_is_used(machine, shallow, head, caplog):
    machine[0]["openvino", "bfloat16"] = nan
    predictor, answer = predict(shallow, head, backend="openvino", precision="bfloat16")
    assert predictor.backend is predictor.reference
    assert "None of the backends that were asked for can be used" in caplog.text
    assert answer.isfinite().all()


def test_one_that_breaks_later_is_replaced_by_torch(machine, shallow, head, caplog):
    predictor, right = predict(shallow, head)
    for change in (nan, lambda logits: 1 / 0):
        predictor.backend = Stand(("openvino", "float32"), predictor.reference, change)
        caplog.clear()
        torch.testing.assert_close(predictor.predict(*head), right)
        assert predictor.backend is predictor.reference
        assert len(caplog.records) == 1
        assert caplog.records[0].message.startswith("Backend openvino dropped, torch in float32 is used: ")


def test_one_whose_tiles_exceed_a_limit_that_holds_those_of_torch_is_replaced(machine, shallow, head, caplog):
    predictor, right = predict(shallow, head)
    predictor.backend = Stand(("openvino", "float32"), predictor.reference, lambda logits: logits)
    predictor.backend.memory_factor = 1000.0
    predictor.memory_limit = 2**28
    caplog.clear()
    torch.testing.assert_close(predictor.predict(*head), right)
    assert (
        "The memory limit is too small for the tiles of openvino; torch in float32 ran this scan"
        in caplog.text
    )
    predictor.memory_limit = 1000
    caplog.clear()
    with pytest.raises(ConfigError, match="too small for one tile"):
        predictor.predict(*head)
    assert not caplog.records


@pytest.mark.parametrize("windows", [None, (16, 16, 16)])
def test_the_smallest_limit_that_works_is_that_of_the_backend_that_takes_least(
    machine, shallow, head, windows
):
    predictor, _ = predict(shallow, head)
    predictor.reference.source.deep_window = windows
    predictor.backend.memory_factor, predictor.memory_limit = predictor.reference.memory_factor / 4, 1000
    with pytest.raises(ConfigError, match="too small for one tile") as refusal:
        predictor.predict(*head)
    (least,) = re.findall(r"(\d+) MiB; raise", str(refusal.value))
    predictor.memory_limit = int(least) * 2**20
    assert predictor.predict_box(*head).ran == ("onnxruntime", "float32")
    predictor.memory_limit -= 2**20
    with pytest.raises(ConfigError, match="too small for one tile"):
        predictor.predict(*head)


def test_a_prediction_knows_what_ran_it(machine, shallow, head):
    predictor, _ = predict(shallow, head)
    assert predictor.predict_box(*head).ran == ("onnxruntime", "float32")
    predictor.backend.memory_factor, predictor.memory_limit = 1000.0, 2**28
    assert predictor.predict_box(*head).ran == ("torch", "float32")
    assert used(predictor) == ("onnxruntime", "float32")  # the next scan may fit
    predictor.memory_limit, predictor.backend.change = None, nan
    assert predictor.predict_box(*head).ran == ("torch", "float32")


def test_tiles_that_keep_the_windows_of_the_network_come_before_another_backend(machine, shallow, head):
    """torch's tiles are small enough to keep them, those of the faster backend are not."""
    predictor, _ = predict(shallow, head)
    predictor.reference.source.deep_window = (32, 32, 32)
    predictor.backend.memory_factor = 8.0
    predictor.memory_limit = 2**28
    exact = []

    def plan(region, shape, **options):
        exact.append((options["window"], options["voxel_bytes"]))
        if options["window"] is not None and len(exact) == 1:
            msg = "too small"
            raise TooLittleMemory(msg, enough=2**30)
        return plan_tiles(region, shape, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiles, "plan_tiles", plan)
        assert predictor.predict_box(*head).ran == ("torch", "float32")
    assert [window for window, _ in exact] == [(32, 32, 32)] * 2
    assert exact[1][1] < exact[0][1]


def test_a_network_that_answers_nan_makes_no_empty_map(shallow, head):
    with torch.no_grad():
        shallow.bias[1] = torch.nan
    with pytest.raises(MedsslError, match="answers NaN or infinity"):
        Predictor(network=shallow).predict(*head)


def test_a_scan_that_torch_cannot_answer_decides_nothing(machine, shallow, head, tmp_path):
    image, mask = head
    with pytest.raises(MedsslError, match="answers NaN or infinity"):
        predict(shallow, (image * torch.nan, mask), store=TrialStore(tmp_path, "weights"))
    assert not list(tmp_path.rglob("*.json"))
    assert used(predict(shallow, head, store=TrialStore(tmp_path, "weights"))[0]) == (
        "onnxruntime",
        "float32",
    )


def test_want_of_memory_is_not_remembered(machine, shallow, head, tmp_path, monkeypatch):
    usual = choice.build

    def without_memory(name, precision, reference, folder=None):
        if name == "onnxruntime":
            raise MemoryError
        return usual(name, precision, reference)

    with monkeypatch.context() as patch:
        patch.setattr(choice, "build", without_memory)
        assert used(predict(shallow, head, store=TrialStore(tmp_path, "weights"))[0]) == (
            "openvino",
            "bfloat16",
        )
    assert used(predict(shallow, head, store=TrialStore(tmp_path, "weights"))[0]) == (
        "onnxruntime",
        "float32",
    )


def test_float32_of_torch_is_not_measured(machine, shallow, head):
    predictor, _ = predict(shallow, head, backend="torch", precision="float32")
    assert machine[2] == []
    assert predictor.backend is predictor.reference


def test_what_was_measured_is_remembered(machine, shallow, head, tmp_path):
    store = TrialStore(tmp_path / "cache", "weights")
    predict(shallow, head, store=store)
    assert sorted(machine[2]) == sorted(ALL)
    machine[2].clear()
    assert used(predict(shallow, head, store=store)[0]) == ("onnxruntime", "float32")
    assert machine[2] == [("onnxruntime", "float32")]
    machine[2].clear()
    assert used(predict(shallow, head, store=store, precision="bfloat16")[0]) == ("openvino", "bfloat16")
    assert machine[2] == [("openvino", "bfloat16")]
    (file,) = (tmp_path / "cache").rglob("*.json")
    trials = json.loads(file.read_text())["trials"]
    assert [(trial["backend"], trial["precision"]) for trial in trials] == sorted(ALL)


def test_one_that_was_dropped_stays_dropped_for_this_model(machine, shallow, head, tmp_path):
    machine[0]["onnxruntime", "float32"] = nan
    predict(shallow, head, store=TrialStore(tmp_path, "weights"))
    machine[0]["onnxruntime", "float32"] = lambda logits: logits
    assert used(predict(shallow, head, store=TrialStore(tmp_path, "weights"))[0]) == ("openvino", "bfloat16")
    assert used(predict(shallow, head, store=TrialStore(tmp_path, "other"))[0]) == ("onnxruntime", "float32")


@pytest.mark.parametrize("changed", ["version", "threads", "size"])
def test_another_machine_or_size_is_measured_anew(machine, shallow, head, tmp_path, monkeypatch, changed):
    store = TrialStore(tmp_path, "weights")
    predict(shallow, head, store=store)
    machine[2].clear()
    if changed == "version":
        monkeypatch.setattr("medssl.inference.machine.library_versions", lambda: {"torch": "9"})
    elif changed == "threads":
        monkeypatch.setattr("torch.get_num_threads", lambda: 99)
    else:
        image, mask = head
        head = image[:, :24, :24, :24], mask[:24, :24, :24]
    predict(shallow, head, store=store)
    assert len(machine[2]) == len(ALL)


BAD_TRIAL = '{"trials": [{"backend": "a", "precision": "b", "seconds": "x", "agreement": {}}]}'


@pytest.mark.parametrize("text", ["", "{", "[]", '{"trials": [{"backend": 1}]}', BAD_TRIAL, b"\xff\xfe"])
def test_a_damaged_memory_is_rebuilt(machine, shallow, head, tmp_path, caplog, text):
    store = TrialStore(tmp_path, "weights")
    predict(shallow, head, store=store)
    (file,) = tmp_path.rglob("*.json")
    before = file.read_bytes()
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    machine[2].clear()
    predictor, _ = predict(shallow, head, store=store)
    assert used(predictor) == ("onnxruntime", "float32")
    assert len(machine[2]) == len(ALL)
    assert [record.message for record in caplog.records] == [
        f"{file.name} in the cache of backends is damaged; measuring anew."
    ]
    assert file.read_bytes() == before


def test_one_that_failed_is_remembered_and_tried_again_only_by_name(machine, shallow, head, tmp_path, caplog):
    store = TrialStore(tmp_path, "weights")
    machine[0]["onnxruntime", "float32"] = None
    predict(shallow, head, store=store)
    machine[2].clear()
    caplog.clear()
    assert used(predict(shallow, head, store=store)[0]) == ("openvino", "bfloat16")
    assert machine[2] == [("openvino", "bfloat16")]
    assert not caplog.records
    machine[0]["onnxruntime", "float32"] = lambda logits: logits
    again, _ = predict(shallow, head, store=store, backend="onnxruntime", precision="float32")
    assert used(again) == ("onnxruntime", "float32")
    assert used(predict(shallow, head, store=store)[0]) == ("onnxruntime", "float32")


def test_a_memory_that_cannot_be_written_does_no_harm(machine, shallow, head, tmp_path, caplog):
    (tmp_path / "backends").write_text("a file in the way")
    predictor, _ = predict(shallow, head, store=TrialStore(tmp_path, "weights"))
    assert used(predictor) == ("onnxruntime", "float32")
    assert "is not remembered" in caplog.text


def test_what_is_asked_for_and_missing_is_refused_with_the_cure(monkeypatch):
    monkeypatch.setattr(choice, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r'openvino cannot be used.*pip install "medssl\[fast\]"'):
        candidates(Wish("openvino"), CPU)
    monkeypatch.setattr(choice, "find_spec", lambda name: None if name == "onnx" else True)
    with pytest.raises(ConfigError, match="not installed: onnx"):
        candidates(Wish("onnxruntime"), CPU)


def test_candidates_follow_the_device_and_the_precision(monkeypatch):
    monkeypatch.setattr(choice, "find_spec", lambda name: True)
    monkeypatch.setattr(choice, "has_bfloat16", lambda device: device.type == "cuda")
    assert candidates(Wish(), torch.device("cuda")) == [("torch", "float32"), ("torch", "bfloat16")]
    assert candidates(Wish(), CPU) == [(name, "float32") for name in ("torch", "openvino", "onnxruntime")]
    with pytest.raises(ConfigError, match="runs on the CPU"):
        candidates(Wish("openvino"), torch.device("cuda"))


@pytest.mark.parametrize(
    ("backend", "precision"), [("tpu", "auto"), ("auto", "fp8"), ("onnxruntime", "bfloat16")]
)
def test_unknown_wishes_are_refused(backend, precision):
    with pytest.raises(ConfigError):
        Wish(backend, precision)


def test_probe_is_the_middle_of_the_brain_within_the_memory(shallow, head):
    tiling = tiling_for(shallow, CPU, margin=0, halo=0, memory_limit=2**30)
    tile, brain = probe_tile(*head, tiling)
    assert tile.shape[2:] == brain.shape == (48, 48, 64)
    assert brain.sum() == head[1].sum()
    small = tiling_for(shallow, CPU, margin=0, halo=0, memory_limit=32**3 * 256 * 5)
    assert probe_tile(*head, small)[0].shape[2:] == (32, 32, 32)


def test_real_backends_go_through_the_gate(shallow, head, needs):
    needs("openvino")
    predictor, answer = predict(shallow, head, backend="openvino", precision="float32")
    assert used(predictor) == ("openvino", "float32")
    torch.testing.assert_close(answer, Predictor(network=shallow).predict(*head), rtol=0, atol=1e-4)
    assert isinstance(predictor.reference, TorchBackend)
