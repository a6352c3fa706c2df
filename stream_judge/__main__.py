"""`python -m stream_judge`."""

from stream_judge.cli import main

main()
