"""Plant seedlings: 5,500 photos of twelve species, in medssl's layout.

    python data_scripts/plant_seedlings.py SOURCE OUT

SOURCE is the folder with one folder a species. The study prints 5,500 images; downloads differ by version, and
others take --partial. Terms: look them up with your copy.

The split of the study is not known: ours is drawn by --seed. It tested on 1,053 images, as its printed accuracies
tell; about as many are drawn.
"""

from __future__ import annotations

from common import Task, run_task

TASK = Task(counts={"images": 5500, "classes": 12}, tested=1053)

if __name__ == "__main__":
    run_task(TASK, __doc__)
