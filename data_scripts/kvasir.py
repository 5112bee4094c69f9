"""Kvasir v2: 8,000 endoscopic photos of eight classes, in medssl's layout.

    python data_scripts/kvasir.py SOURCE OUT

SOURCE is the folder with one folder a class (kvasir-dataset-v2). Terms: look them up with your copy.

The split of the study is not known: ours is drawn by --seed, in the study's proportion.
"""

from __future__ import annotations

from common import Task, run_task

TASK = Task(counts={"images": 8000, "classes": 8})

if __name__ == "__main__":
    run_task(TASK, __doc__)
