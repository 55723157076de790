"""The control plane as fleetctl sees it.

query       rows, and which of them a request is about: light, for every command
api         plain requests: rows in, rows out
api_errors  every foreign exception as a FleetctlError
session     signing a person in and out at Auth
known_fleets the fleets of this terminal by name, and who is signed in there: light
target      where a command acts, and as whom: light
"""

__all__ = ["api", "known_fleets", "query", "session", "target"]
