"""The program ``nura``; ``python -m nura_cli`` is the same."""

import gc


def main() -> None:
    """Run the command line.

    What is imported stays to the end: looking for garbage in it takes a tenth of the time of a short command.
    """
    gc.set_threshold(100_000)
    from nura_cli.cli import main as run

    run()


if __name__ == "__main__":
    main()
