"""The MONAI Label app: 3D Slicer segments, corrects and trains with medssl. Needs monailabel (make label)."""
