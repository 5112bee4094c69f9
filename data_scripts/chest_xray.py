"""Chest X-ray (Kermany): normal and pneumonia, in medssl's layout.

    python data_scripts/chest_xray.py SOURCE OUT

SOURCE holds train/ and test/ with NORMAL and PNEUMONIA. The study used 2,355 images with the official 624 for
testing, out of the 5,856 of the download; which ones is not known, so that the whole download takes --partial.
CC BY 4.0.
"""

from __future__ import annotations

from common import Task, run_task

TASK = Task(counts={"images": 2355, "classes": 2, "test": 624, "test/NORMAL": 234, "test/PNEUMONIA": 390})

if __name__ == "__main__":
    run_task(TASK, __doc__)
