"""The one kind of error that a person at the terminal can mend, and how a stage shows it."""

import sys
from collections.abc import Callable


class UserError(ValueError):
    """Something the user gave is wrong. Its text is one line: what was found, where, what was expected."""


def run_stage(main: Callable[[], None]) -> None:
    """Run a stage's `main`; a user's mistake ends as one line on stderr and exit code 1, never as a traceback."""
    try:
        main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("stopped by the user; nothing was written", file=sys.stderr)
        sys.exit(130)
