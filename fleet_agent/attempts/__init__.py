"""Finished attempts on this disk, one file each.

    outbox   attempts that the control plane does not have yet
    history  the last attempts that it has, kept for whoever stands at the device

The engine writes the outbox, the daemon uploads attempts and moves them to the history, and
`fleet-agent history` reads both. May import `support` and the shared words. Imports nothing here: the daemon
uses it.
"""

__all__ = ["history", "outbox"]
