"""`python -m medssl` is the command `medssl`."""

from medssl.cli import OWN_PROCESS, main


def run() -> None:
    """Run one command, for which this process was started."""
    main(prog_name="medssl", obj=OWN_PROCESS)


if __name__ == "__main__":
    run()
