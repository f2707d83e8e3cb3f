"""The program ``nura``; ``python -m nura_cli`` is the same."""

import gc


def main() -> None:
    """Run the command line.

    Python looks for cycles seldom: what is imported stays to the end, where looking takes a tenth of the time of a short command; and
    of the tuples that a chunk of lines makes, none is in one.
    """
    gc.set_threshold(100_000)
    from nura_cli.cli import main as run

    run()


if __name__ == "__main__":
    main()
