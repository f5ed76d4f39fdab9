"""`python -m fed_fsad.cli`, for where the command is not on the path."""

from fed_fsad.cli import main

main()
