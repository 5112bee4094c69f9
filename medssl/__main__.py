"""`python -m medssl` is the command `medssl`."""

from medssl.cli import main

main(prog_name="medssl")
