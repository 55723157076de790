"""Supabase as one device sees it.

    client           the REST calls: what to run, reports, history, answers to commands
    edge_functions   `enroll` and `device-token`, each with a signed assertion
    identity         the device's key pair and id
    tokens           the device's JWT: fetched, kept on disk, renewed
    subscription     wakes over Realtime: one session after another, with backoff
    realtime_client  one connection: our socket and heartbeat around the library
    connection       client and subscription, rebuilt together when the address changes
    error_mapping    from every answer and exception to a `ControlPlaneError`

May import `support` and the shared words. Imports nothing here: the daemon loads what it uses.
"""

__all__ = [
    "client",
    "connection",
    "edge_functions",
    "error_mapping",
    "identity",
    "realtime_client",
    "subscription",
    "tokens",
]
