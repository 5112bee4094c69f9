"""How large and how fast exported classifiers are on this machine, and which to choose."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from medssl.errors import CheckpointError, ConfigError, InputError, OutputError
from medssl.evaluation.classification import scores
from medssl.evaluation.pareto import Candidate, Choice, best_within, non_dominated
from medssl.inference.latency import Forms, Latency, SpeedGate, benchmark, file_mb, this_machine
from medssl.inference.onnx_runner import FILES, OnnxClassifier
from medssl.inference.peak_memory import Subject, peak_memory
from medssl.io.files import atomic_path, read_json, require_absent, require_writable_file, write_json
from medssl.io.image_cohort import ImageItem, read_image_cohort
from medssl.networks.compact import (
    build_classifier,
    classifier_of,
    multiply_adds,
    parameter_count,
    reparameterized,
)
from medssl.reporting.classification_figures import plot_pareto
from medssl.reporting.figures import figure_to_png
from medssl.workflows.classification.evaluate import image_folders, images_of_run
from medssl.workflows.classification.models import ImageModel, load_classifier, open_classifier
from medssl.workflows.classification.predict import numbers_of, predict_items
from medssl.workflows.classification.seen_images import remarks_on_seen_images


@dataclass(frozen=True)
class Cost:
    """What a network has, whatever runs it.

    Args:
        network: Name in the registry.
        parameters: Of the network as it is exported, its branches merged.
        multiply_adds: Of one image, likewise.
        merged: Whether there were branches to merge (RepViT, FastViT, MobileOne).
    """

    network: str
    parameters: int
    multiply_adds: int
    merged: bool


@dataclass(frozen=True)
class Bench:
    """What was measured.

    Args:
        rows: Times of every form and number of threads, by the name of the export.
        peak_mb: The most memory of a process that runs a form with one thread, by the names of export and form.
        costs: Parameters and multiply-adds, by the name of the export. They do not tell how fast it is.
        candidates: Macro F1 on the validation images, milliseconds and size of each file.
        best: The non-dominated ones.
        choice: The answer to the question for limits.
        warnings: Of scored images that a run has seen; of 8-bit files that are no faster than float32 here: they are
            the answer only where nothing else fits.
    """

    rows: dict[str, list[Latency]]
    peak_mb: dict[str, dict[str, float]]
    costs: dict[str, Cost]
    candidates: tuple[Candidate, ...]
    best: tuple[Candidate, ...]
    choice: Choice
    warnings: tuple[str, ...] = ()


def bench_exports(  # noqa: PLR0913 (one argument an option)
    exports: Sequence[Path],
    data: Path | None = None,
    *,
    threads: Sequence[int] = (1,),
    batches: Sequence[int] = (),
    runs: int = 50,
    openvino: bool = False,
    models: Sequence[Path] = (),
    max_mb: float | None = None,
    max_ms: float | None = None,
    out: Path | None = None,
    allow_outside: bool = False,
) -> Bench:
    """Time exported classifiers and say which one fits.

    Args:
        exports: Folders that `export_run` wrote.
        data: Folder whose validation images score the files; without any, those that the run of a single export
            held out.
        threads: Numbers of threads.
        batches: Further numbers of images a run, beside one, for the throughput.
        runs: Timed runs of each.
        openvino: Whether OpenVINO runs the files too.
        models: Runs of the exports, in their order, to time torch as well, and to tell which images they have seen.
        max_mb: Limit of the file.
        max_ms: Limit of the median of one image at the first number of threads.
        out: JSON to write, and beside it a PNG of the same name where the files were scored.
        allow_outside: Accept paths and links that leave the folder of the data.

    Raises:
        InputError: A folder holds no export.
        ConfigError: There are more runs than exports.
        CheckpointError: A run is not the one that was exported.
        OutputError: ``out`` exists, lies inside the data, cannot be written, or does not end in .json.
    """
    _require_runs(exports, models)
    if out is not None:
        _require_place(out, data, models)
    rows: dict[str, list[Latency]] = {}
    peaks: dict[str, dict[str, float]] = {}
    costs: dict[str, Cost] = {}
    candidates: list[Candidate] = []
    validation = _validation(data, exports, models, allow_outside)
    seen = [
        f"{folder.name}: {remark}"
        for folder, run in zip(exports, models, strict=False)
        for remark in remarks_on_seen_images(validation, "validation", run)
    ]
    for place, folder in enumerate(exports):
        files = exported_files(folder)
        runner = OnnxClassifier(files["float32"])
        costs[folder.name] = cost_of(runner)
        model = load_classifier(models[place]) if place < len(models) else None
        forms = Forms(model.network if model else None, files["float32"], files.get("int8"), openvino)
        shape = (runner.channels, runner.size, runner.size)
        with torch.inference_mode():
            rows[folder.name] = [
                row
                for batch in dict.fromkeys((1, *batches))
                for row in benchmark(forms, shape, threads=threads, batch=batch, runs=runs)
            ]
        forms_timed = dict.fromkeys(row.name for row in rows[folder.name])
        peaks[folder.name] = {form: _peak_mb(form, files, model, shape) for form in forms_timed}
        at_first = [row for row in rows[folder.name] if (row.threads, row.batch) == (threads[0], 1)]
        for precision, file in files.items():
            name = f"{folder.name}, {precision}"
            candidates.append(
                _candidate(name, file, [r for r in at_first if r.name.endswith(precision)], validation)
            )
    slow = slow_files(candidates)
    choice = choose(candidates, slow, max_mb=max_mb, max_ms=max_ms)
    done = Bench(
        rows, peaks, costs, tuple(candidates), non_dominated(candidates), choice, (*seen, *slow.values())
    )
    if out is not None:
        write_bench(out, done, max_ms)
    return done


def _require_runs(exports: Sequence[Path], models: Sequence[Path]) -> None:
    """Refuse runs that the exports were not made of: the times and the memory of torch would be another network's."""
    if len(models) > len(exports):
        msg = f"--run is given {len(models)} times; expected one for each of {len(exports)} exports at most."
        raise ConfigError(msg, "Give the run of each export, in the order of the exports.")
    for folder, model in zip(exports, models, strict=False):
        require_files_of(model, folder)
        record, found = folder / "export.json", load_classifier(model).weights_sha256
        expected = read_json(record)["weights_sha256"] if record.is_file() else found
        if found != expected:
            msg = f"{folder} was exported from other weights than those of {model}: found {found[:16]}, "
            msg += f"expected {expected[:16]} (sha256)."
            raise CheckpointError(msg, "Give the run that was exported, or export this one.")


def _validation(
    data: Path | None, exports: Sequence[Path], models: Sequence[Path], allow_outside: bool
) -> tuple[ImageItem, ...]:
    """Return the images that score the files: those of the data, or else those that a single run held out."""
    found = () if data is None else read_image_cohort(data, allow_outside=allow_outside).validation
    if not found and len(exports) == len(models) == 1:  # several would be scored on different images
        return images_of_run(models[0], load_classifier(models[0]).card.classes).validation
    return found


def _require_place(out: Path, data: Path | None, models: Sequence[Path]) -> None:
    """Refuse a file that exists, lies inside the data, or is named as no JSON is: the picture gets its name."""
    require_absent(out)
    require_absent(out.with_suffix(".png"))
    known = [folder for run in models for folder in image_folders(run)]
    require_writable_file(out, known if data is None else [*known, data])
    if out.suffix != ".json":
        msg = f"The table would be named {out.name}; expected a name that ends in .json."
        raise OutputError(msg, f"Write --out {out.stem}.json.")


def write_bench(out: Path, done: Bench, max_ms: float | None = None) -> None:
    """Write the measurements as JSON, and a picture of what there is to choose from where anything was scored.

    Raises:
        OutputError: The folder cannot be written to.
    """
    picture = out.with_suffix(".png") if any(one.measured for one in done.candidates) else None
    if picture is not None:
        with atomic_path(picture) as temporary:
            temporary.write_bytes(_picture(done, max_ms))
    write_json(
        out,
        {
            "machine": asdict(this_machine()),
            "times": {
                name: [asdict(row) | {"images_per_second": row.images_per_second} for row in some]
                for name, some in done.rows.items()
            },
            "peak_memory_mb": done.peak_mb,
            "networks": {name: asdict(cost) for name, cost in done.costs.items()},
            "candidates": [asdict(one) for one in done.candidates],
            "non_dominated": [one.name for one in done.best],
            "choice": done.choice.sentence,
            "warnings": list(done.warnings),
            "picture": picture and picture.name,
        },
    )


def _picture(done: Bench, max_ms: float | None) -> bytes:
    columns = zip(
        *((one.name, one.macro_f1, one.p50_ms, one.size_mb) for one in done.candidates), strict=True
    )
    return figure_to_png(plot_pareto(*columns, [one.name for one in done.best], max_ms, key=True))


def cost_of(runner: OnnxClassifier) -> Cost:
    """Count the network of an exported file, as the registry builds it for as many classes."""
    card = runner.card
    network = reparameterized(
        build_classifier(card.network, len(card.classes), card.channels, size=card.size)
    )
    adds = multiply_adds(network, card.channels, card.size)
    merged = classifier_of(network).facts.reparameterize
    return Cost(card.network, parameter_count(network), adds, merged)


def exported_files(folder: Path) -> dict[str, Path]:
    """Return the files of an export by precision.

    Raises:
        InputError: There is no ``model.onnx``.
    """
    files = {name: folder / file for name, file in FILES.items() if (folder / file).is_file()}
    if "float32" not in files:
        msg = f"{folder} holds no model.onnx."
        raise InputError(msg, "Export a run first: medssl classify export RUN --out FOLDER.")
    return files


def require_files_of(model: Path, folder: Path) -> None:
    """Refuse exported files that tell apart other classes than a model; their order may be another.

    Raises:
        InputError: There is no export, or no model.
        CheckpointError: A file has other classes, or is none that was exported here.
    """
    expected = open_classifier(model).card.classes
    for file in exported_files(folder).values():
        found = OnnxClassifier(file).classes
        if set(found) != set(expected):
            msg = f"{file} tells apart {', '.join(found)}; {model} tells apart {', '.join(expected)}."
            raise CheckpointError(msg, f"Export the model itself: medssl classify export {model} --out FILES")


def slow_files(candidates: Sequence[Candidate]) -> dict[str, str]:
    """Return the 8-bit candidates that are no faster than the float32 of the same export, each with a sentence."""
    milliseconds = {one.name: one.p50_ms for one in candidates}
    slow = {}
    for name, taken in milliseconds.items():
        export, _, precision = name.rpartition(", ")
        if precision == "int8":
            gate = SpeedGate(milliseconds[f"{export}, float32"], taken)
            slow |= {} if gate.passed else {name: f"{export}: {gate}."}
    return slow


def choose(
    candidates: Sequence[Candidate],
    slow: Mapping[str, str],
    *,
    max_mb: float | None = None,
    max_ms: float | None = None,
) -> Choice:
    """Return the best within limits; 8-bit files that are slow here only where nothing else fits."""
    fast = [one for one in candidates if one.name not in slow]
    choice = best_within(fast, max_mb=max_mb, max_ms=max_ms)
    return choice if choice.best else best_within(candidates, max_mb=max_mb, max_ms=max_ms)


def _peak_mb(
    form: str, files: Mapping[str, Path], model: ImageModel | None, shape: tuple[int, int, int]
) -> float:
    """Return the most memory of a process that classifies with a form, such as "onnxruntime int8", in MB."""
    backend, precision = form.split()
    if backend == "torch" and model is not None:  # weights take as much memory whatever they are
        subject = Subject(backend, str(model.card.network["name"]), shape, len(model.card.classes))
    else:
        subject = Subject(backend, str(files[precision]), shape)
    return peak_memory(subject).peak_mb


def _candidate(name: str, file: Path, rows: Sequence[Latency], validation: Sequence[ImageItem]) -> Candidate:
    """Return a file with the time of what runs it fastest, and the score that it has there."""
    fastest = min((row for row in rows if not row.name.startswith("torch")), key=lambda row: row.p50_ms)
    backend = fastest.name.split()[0]
    return Candidate(name, _macro_f1(file, validation, backend), fastest.p50_ms, file_mb(file), backend)


def _macro_f1(file: Path, validation: Sequence[ImageItem], backend: str) -> float:
    """Score a file as it is run in the time that it is offered with."""
    if not validation:
        return float("nan")
    model = open_classifier(file, backend=backend, tried=True)
    labels = numbers_of(validation, model.card.classes)
    found = scores(labels, predict_items(validation, [model]).probabilities, model.card.classes, draws=0)
    return float(found.measures["macro_f1"])
