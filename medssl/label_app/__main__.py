"""`python -m medssl.label_app start_server ...` is MONAI Label's command, without loading what no answer needs."""

from __future__ import annotations

from medssl.workflows.lean_start import import_monai_lean


def run() -> None:
    """Start MONAI Label; it loads MONAI with all optional libraries unless that was done before."""
    import_monai_lean()
    from monailabel.main import Main  # noqa: PLC0415 - loads MONAI

    Main().run()


if __name__ == "__main__":
    run()
