"""Open Sprayer: 6,697 drone photos with and without broad-leaved docks, in medssl's layout.

    python data_scripts/open_sprayer.py SOURCE OUT

The layout of the download is not known to us: SOURCE is a folder with one folder a class, or pass --table with a
CSV file of your own. Terms: unknown. Not a medical task.

The split of the study is not known: ours is drawn by --seed. Its printed
accuracies are those of 1,340 test images (670 would fit too); about as many are drawn.
"""

from __future__ import annotations

from common import Task, run_task

TASK = Task(counts={"images": 6697, "classes": 2}, tested=1340)

if __name__ == "__main__":
    run_task(TASK, __doc__)
