"""Entry point of `fleetctl`."""

from __future__ import annotations

import sys
from importlib.util import find_spec

_NEEDED = ("psycopg", "rich", "typer")


def main() -> None:
    """Run fleetctl, or say how to install it if only the agent is installed."""
    # Looked for, not imported: a command that needs no database should not wait for its driver.
    for module in _NEEDED:
        if find_spec(module) is None:
            sys.exit(
                f"fleetctl needs {module}, which devices do not have. "
                "Install it with: pip install 'metrica-fleet[operator]'"
            )
    from fleetctl.cli import run

    run()


if __name__ == "__main__":
    main()
