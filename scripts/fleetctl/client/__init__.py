"""The control plane as fleetctl sees it.

query       rows, and which of them a request is about: light, for every command
api         Supabase's own client: rows in, rows out
api_errors  every foreign exception as a FleetctlError
session     the person who is signed in at this terminal
"""

__all__ = ["api", "query", "session"]
