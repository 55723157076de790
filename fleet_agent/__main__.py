"""`fleet-agent` and `python -m fleet_agent`."""

import sys

from fleet_agent.cli import main as cli


def main() -> None:
    sys.exit(cli.main())


if __name__ == "__main__":
    main()
