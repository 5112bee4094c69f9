"""HAM10000: 10,015 dermatoscopic photos of seven diagnoses, in medssl's layout.

    python data_scripts/ham10000.py SOURCE OUT --table SOURCE/HAM10000_metadata.csv

SOURCE holds the photos in any folders; the labels are in HAM10000_metadata.csv (image_id,dx,lesion_id): pass it
with --table. All photos of a lesion stay on one side of the split. Terms: look them up with your copy.

The split of the study is not known: ours is drawn by --seed. It tested on 2,504 images, as its printed accuracies
tell; about as many are drawn.
"""

from __future__ import annotations

from common import Task, run_task

TASK = Task(counts={"images": 10_015, "classes": 7}, tested=2504, columns=("image_id", "dx", "lesion_id"))

if __name__ == "__main__":
    run_task(TASK, __doc__)
