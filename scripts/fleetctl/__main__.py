"""Entry point of `fleetctl`."""

from __future__ import annotations

import sys


def main() -> None:
    """Run fleetctl, or say how to install it where only the agent is."""
    try:
        import psycopg  # noqa: F401
        import rich  # noqa: F401
        import typer  # noqa: F401
    except ModuleNotFoundError as error:
        sys.exit(
            f"fleetctl needs {error.name}, which devices do not carry. "
            "Try: pip install 'metrica-fleet[operator]'"
        )
    from fleetctl.cli import run

    run()


if __name__ == "__main__":
    main()
