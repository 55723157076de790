"""The embedded stack: PostgreSQL and one Deno process that speak Supabase, in one data folder."""

from fleetctl.stack.local_stack import Stack, Status

__all__ = ["Stack", "Status"]
