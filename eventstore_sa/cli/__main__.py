"""`python -m eventstore_sa.cli` is `eventstore-sa`."""

from eventstore_sa.cli import main

if __name__ == "__main__":
    main(prog_name="eventstore-sa")
