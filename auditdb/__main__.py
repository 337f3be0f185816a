"""Run the command line with python -m auditdb."""

from auditdb.cli import main

main(prog_name="auditdb")
