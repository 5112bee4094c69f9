"""iSeg-2017 or iSeg-2019 (6-month brains, T1w and T2w) as BIDS folders with a datalist.

    python data_scripts/iseg.py SOURCE OUT --challenge 2017

SOURCE holds the challenge's own folders (subject-1-T1.hdr and .img, -T2, -label). medssl reads them as they are;
this is for those who want NIfTI. Label values become BIDS' (1 gray, 2 white, 3 CSF), grids stay what they are. The
terms forbid passing the scans on, in this form too.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
from common import new_folder, parser, require_counts, run

from medssl.errors import InputError
from medssl.io.datalist import FILE_NAME, write_datalist
from medssl.io.files import write_json, write_tsv
from medssl.io.iseg import find_subjects
from medssl.io.nifti import read_labels, read_volume, save_new
from medssl.io.subjects import DEFAULT_CONTRASTS, Cohort, Subject
from medssl.labels import BRAIN_TISSUES

COUNTS = {"2017": {"training": 10, "unlabeled": 13}, "2019": {"training": 10, "unlabeled": 29}}
"""Challenge -> subjects with and without labels."""

_LABELS = "derivatives/manual"


def convert(given: argparse.Namespace) -> str:
    """Write all subjects and what BIDS wants beside them."""
    found = find_subjects(given.source, DEFAULT_CONTRASTS)
    names = [subject.subject for subject in found]
    if not found or len(set(names)) < len(names):
        msg = f"{given.source} holds {'the subjects of several challenges' if found else 'no subject-1-T1.hdr'}."
        raise InputError(msg, "Give the folder of one challenge.")
    with new_folder(given.out, given.source) as folder:
        subjects = [_convert_subject(subject, folder) for subject in found]
        training = tuple(subject for subject in subjects if subject.label is not None)
        unlabeled = tuple(subject for subject in subjects if subject.label is None)
        counts = {"training": len(training), "unlabeled": len(unlabeled)}
        if not given.partial:
            require_counts(counts, COUNTS[given.challenge])
        cohort = Cohort(folder, DEFAULT_CONTRASTS, BRAIN_TISSUES, training=training, unlabeled=unlabeled)
        write_datalist(folder / FILE_NAME, cohort)
        for place, kind in ((folder, "raw"), (folder / _LABELS, "derivative")):
            text = {"Name": f"iSeg-{given.challenge}", "BIDSVersion": "1.10.0", "DatasetType": kind}
            write_json(place / "dataset_description.json", text)
        rows = BRAIN_TISSUES.rows()
        write_tsv(folder / _LABELS / "dseg.tsv", rows, ["index", "name", "abbreviation", "color"])
    return f"{len(training)} labeled and {len(unlabeled)} unlabeled subjects: {given.out}"


def _convert_subject(subject: Subject, folder: Path) -> Subject:
    """Write the scans and labels of one subject as NIfTI."""
    name = f"{int(subject.subject):02d}"
    images = []
    for contrast, source in zip(DEFAULT_CONTRASTS, subject.images, strict=True):
        volume = read_volume(source, subject.key)
        images.append(folder / f"sub-{name}/anat/sub-{name}_{contrast}.nii.gz")
        save_new(images[-1], np.rint(volume.data).astype(np.int16), volume.grid.affine)
    label = None
    if subject.label is not None:
        volume = read_labels(subject.label, subject.key, BRAIN_TISSUES, subject.encoding)
        label = folder / _LABELS / f"sub-{name}/anat/sub-{name}_seg-braintissues_dseg.nii.gz"
        save_new(label, volume.data, volume.grid.affine)
    return replace(subject, subject=name, images=tuple(images), label=label, encoding="table")


if __name__ == "__main__":
    made = parser(__doc__)
    made.add_argument("--challenge", choices=sorted(COUNTS), default="2017", help="year (default 2017)")
    given = made.parse_args()
    run(lambda: convert(given))
