"""`python -m ampmm.cli`: the command line, for launchers that start modules."""

from ampmm.cli import main

main()
