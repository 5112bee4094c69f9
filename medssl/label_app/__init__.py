"""The MONAI Label app: 3D Slicer segments, corrects and trains with medssl. Needs monailabel (make label).

MONAI Label imports torchvision and ends where its operators do not fit torch (a CUDA build beside a CPU build). So
it is made importable here, before any module of the app is, in the server and in its trainings.
"""

from importlib.util import find_spec

if find_spec("monailabel") is not None:
    from medssl.networks.torchvision_compat import ensure_torchvision

    ensure_torchvision()
