"""The embedded stack: PostgreSQL and one Deno process that speak Supabase, in one data folder."""

from fleetctl.stack.stack import Stack, Status

__all__ = ["Stack", "Status"]
