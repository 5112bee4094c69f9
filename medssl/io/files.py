"""Small files: written whole or not at all, read back with a clear message."""

from __future__ import annotations

import csv
import errno
import hashlib
import io
import json
import math
import os
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from medssl.errors import InputError, OutputError

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS}
_TEMPORARY = ".partial-"


@contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path in the same folder and rename it to the final one on success.

    Whatever is raised inside the block (Ctrl-C too) removes the temporary file and leaves the final name
    as it was. The temporary name keeps the extension, so that writers which look at it work.

    Args:
        path: The final name. Missing folders are made.

    Raises:
        OutputError: The folder cannot be made or written to, or the disk is full.
    """
    final = Path(path)
    temporary = final.with_name(f"{_TEMPORARY}{secrets.token_hex(4)}-{final.name}")
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch(exist_ok=False)
    except OSError as error:
        raise _not_writable(final.parent, error) from error
    try:
        yield temporary
        temporary.replace(final)
    except OSError as error:
        if error.errno in _NO_ROOM:
            raise _not_writable(final.parent, error) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


OWN_FILES = ".medssl-"
"""How the names of lock files begin."""


def write_text(path: Path | str, text: str) -> None:
    """Write a text file (UTF-8, line feeds) atomically.

    Raises:
        OutputError: The folder cannot be written to.
    """
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as stream:
        stream.write(text)


def write_json(path: Path | str, value: object) -> None:
    """Write a JSON file atomically.

    Paths become texts, numpy numbers plain numbers, tuples lists, and NaN or infinity null, since JSON
    has no name for them.

    Raises:
        OutputError: The folder cannot be written to.
    """
    write_text(path, json.dumps(_plain(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path | str) -> Any:
    """Read a JSON file.

    Raises:
        InputError: The file is missing or no JSON.
    """
    text = _read_text(Path(path))
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        msg = f"{path} is no valid JSON: {error.msg} in line {error.lineno}, column {error.colno}."
        raise InputError(msg, "Correct that line.") from error


def write_tsv(path: Path | str, rows: Iterable[Mapping[str, object]], columns: Sequence[str]) -> None:
    """Write a table atomically: tab-separated, a header line, one line a row.

    Floats get seven significant digits, NaN is written "n/a" as in BIDS, None or a missing key leaves the
    cell empty.

    Args:
        path: The final name.
        rows: Column name -> value.
        columns: The columns in their order.

    Raises:
        OutputError: The folder cannot be written to.
        ValueError: A row holds a column that the header lacks.
    """
    lines = ["\t".join(columns)]
    for row in rows:
        extra = sorted(set(row) - set(columns))
        if extra:
            msg = f"A row for {path} holds {extra}; the columns are {list(columns)}."
            raise ValueError(msg)
        lines.append("\t".join(_cell(row.get(column)) for column in columns))
    write_text(path, "\n".join(lines) + "\n")


def read_tsv(path: Path | str) -> list[dict[str, str]]:
    """Read a table as one dictionary of texts a row.

    Raises:
        InputError: The file is missing, no text, or a row has more or fewer cells than the header.
    """
    lines = _read_text(Path(path)).splitlines()
    table = list(csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))
    if not table:
        msg = f"{path} is empty; expected a header line and tab-separated rows."
        raise InputError(msg, "Write the table again or remove the file.")
    header = [name.strip() for name in table[0]]
    rows = [row for row in table[1:] if row]
    for row in rows:
        if len(row) != len(header):
            msg = f"{path}: the row {row} has {len(row)} cells; the header {header} has {len(header)}."
            raise InputError(msg, "Separate the cells by single tabs.")
    return [dict(zip(header, (cell.strip() for cell in row), strict=True)) for row in rows]


def write_csv(path: Path | str, rows: Iterable[Mapping[str, object]], columns: Sequence[str]) -> None:
    """Write a comma-separated table atomically: names of files may hold anything, so cells are quoted where needed.

    Numbers are written as in `write_tsv`, texts as they are.

    Args:
        path: The final name.
        rows: Column name -> value.
        columns: The columns in their order.

    Raises:
        OutputError: The folder cannot be written to.
        ValueError: A row holds a column that the header lacks.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, list(columns), lineterminator="\n", restval="")
    writer.writeheader()
    for row in rows:
        writer.writerow(
            {name: value if isinstance(value, str) else _cell(value) for name, value in row.items()}
        )
    write_text(path, text.getvalue())


def read_csv(path: Path | str) -> list[dict[str, str]]:
    """Read a comma-separated table as one dictionary of texts a row.

    Raises:
        InputError: The file is missing, no text, or a row has more or fewer cells than the header.
    """
    reader = csv.DictReader(io.StringIO(_read_text(Path(path)).removeprefix("\ufeff"), newline=""))
    rows = list(reader)
    ragged = [number for number, row in enumerate(rows, start=2) if None in row or None in row.values()]
    if not reader.fieldnames or ragged:
        where = f"line {ragged[0]} has not as many cells as the header" if ragged else "it is empty"
        msg = f"{path} is no comma-separated table: {where}."
        raise InputError(msg, "Write a header line, and as many cells in every row; quote cells with commas.")
    return rows


def sha256(path: Path | str) -> str:
    """Return the SHA-256 of a file in hexadecimal.

    Raises:
        InputError: The file cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with Path(path).open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise _not_readable(Path(path), error) from error
    return digest.hexdigest()


def sha256_once(path: Path | str) -> str:
    """Return the SHA-256 of a file; one of the same size and time of change is read once by a process.

    For the lists of what goes into a run, which several steps of one command write. A file that a process hashed and
    that is written once more within the same tick of the clock, with as many bytes, goes unseen in it.

    Raises:
        InputError: The file cannot be read.
    """
    return _sha256_at(*state_of(path))


def state_of(path: Path | str) -> tuple[str, int, int, int, int]:
    """Return the place of a file, and what tells it from what it was before: size, number, times of change.

    Raises:
        InputError: It cannot be read.
    """
    try:
        facts = Path(path).stat()
    except OSError as error:
        raise _not_readable(Path(path), error) from error
    return str(Path(path).absolute()), facts.st_size, facts.st_ino, facts.st_mtime_ns, facts.st_ctime_ns


@lru_cache(maxsize=1 << 18)
def _sha256_at(path: str, *facts: int) -> str:
    """Hash a file; the facts are there to tell it from what it was before."""
    return sha256(path)


def require_same_hashes(before: Mapping[str, str], now: Mapping[str, str], since: str) -> None:
    """Refuse to go on with other files than those that something was begun with.

    Args:
        before: File -> hash, then.
        now: Likewise, now.
        since: When that was, as the end of a sentence: "the run in OUT began".

    Raises:
        InputError: A file is gone, new or changed; the message names the first five.
    """
    changed = sorted(name for name in {*before, *now} if before.get(name) != now.get(name))
    if changed:
        more = f" and {len(changed) - 5} more" if len(changed) > 5 else ""
        msg = f"The data changed since {since}: {', '.join(changed[:5])}{more}."
        raise InputError(msg, "Put the files back as they were, or begin another run.")


def require_writable_folder(path: Path | str, inputs: Iterable[Path | str] = ()) -> None:
    """Refuse an output folder that cannot be written to or that lies inside the input; write nothing.

    Args:
        path: The output folder; it need not exist yet.
        inputs: What the command reads: folders, datalists (their folder counts) or single images.

    Raises:
        OutputError: The folder is an input folder or inside one, a file, or not writable.
    """
    folder = Path(path).resolve()
    for source in inputs:
        _require_outside(folder, Path(source))
    existing = next(place for place in (folder, *folder.parents) if place.exists())
    if not existing.is_dir():
        msg = f"The output {path} cannot be a folder: {existing} is a file."
        raise OutputError(msg, "Choose another output folder.")
    if not os.access(existing, os.W_OK | os.X_OK):
        msg = f"The output folder {path} cannot be written to: {existing} is read-only."
        raise OutputError(msg, "Choose another folder, or change its permissions.")


def require_absent(path: Path) -> None:
    """Refuse an output file whose name is taken.

    Raises:
        OutputError: There is something of that name.
    """
    if path.exists():
        msg = f"{path} is there already."
        raise OutputError(msg, "Give another name to --out, or remove it.")


def require_writable_file(path: Path | str, inputs: Iterable[Path | str] = ()) -> None:
    """Refuse an output file inside a folder of images, or in a folder that cannot be written to; write nothing.

    A manifest or a single image is no place of images: one file may lie beside it. An output folder may not, see
    `require_writable_folder`: it would be read as data with the folder.

    Args:
        path: The file to write.
        inputs: What the command reads.

    Raises:
        OutputError: The file would lie in an input folder or below, or its folder is not writable.
    """
    require_writable_folder(Path(path).parent, [source for source in inputs if Path(source).is_dir()])


def require_new_run(path: Path, inputs: Iterable[Path | str] = ()) -> None:
    """Refuse a run folder that holds something, or that cannot be written; write nothing.

    Args:
        path: The run folder; it need not exist yet.
        inputs: See `require_writable_folder`.

    Raises:
        OutputError: As there, or the folder is not empty.
    """
    require_writable_folder(path, inputs)
    if path.exists() and any(not one.name.startswith(OWN_FILES) for one in path.iterdir()):
        msg = f"The folder {path} is not empty."
        raise OutputError(msg, "Choose a new --out, or go on with the run that is in it: --resume.")


def require_new_table(out: Path, overwrite: bool = False, beside: Iterable[str] = (".json",)) -> None:
    """Refuse to replace a table or what is written beside it, and names that could be something else.

    Args:
        out: The table, ``*.tsv``.
        overwrite: Files that are there may be replaced.
        beside: Extensions of the files of the same name.

    Raises:
        OutputError: A file is there, or the name ends otherwise.
    """
    if out.suffix != ".tsv":
        msg = f"The table would be named {out.name}; expected a name that ends in .tsv."
        raise OutputError(msg, f"Write --out {out.stem}.tsv.")
    files = (out, *(out.with_suffix(extension) for extension in beside))
    there = [path.name for path in files if path.exists()]
    if there and not overwrite:
        msg = f"{' and '.join(there)} exist{'s' if len(there) == 1 else ''} already in {out.parent}."
        raise OutputError(msg, "Choose another --out, or replace it with --overwrite.")


def _require_outside(folder: Path, source: Path) -> None:
    input_folder = source.resolve()
    if input_folder.suffix.lower() == ".json":  # a datalist
        input_folder = input_folder.parent
    if folder == input_folder or input_folder in folder.parents:
        msg = f"The output folder {folder} lies inside the input folder {input_folder}."
        raise OutputError(msg, "Choose one outside, so that results are never read as data.")


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise _not_readable(path, error) from error
    except UnicodeDecodeError as error:
        msg = f"{path} is no UTF-8 text (byte {error.start})."
        raise InputError(msg, "Save it as UTF-8.") from error


def _plain(value: object) -> object:
    """Turn a value into what JSON knows."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _cell(value: object) -> str:
    """Turn a value into the text of one table cell."""
    if value is None:
        return ""
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float):
        return "n/a" if math.isnan(value) else f"{value:.7g}"
    return " ".join(str(value).split())


def _not_writable(folder: Path, error: OSError) -> OutputError:
    msg = f"Cannot write to {folder}: {error.strerror or error}."
    return OutputError(msg, "Choose another folder, free some space, or change its permissions.")


def _not_readable(path: Path, error: OSError) -> InputError:
    msg = f"Cannot read {path}: {error.strerror or error}."
    return InputError(msg, "Check the path and its permissions.")
