"""The embedded stack: PostgreSQL and one Deno process that speak Supabase, in one data folder.

local_stack   start, find, stop and inspect one stack: what the other rooms use
connection    where it answers, and with which keys: light
dashboard_export   the dashboard for another host, with the policy for its project
supervisor    the process that owns PostgreSQL and the API server (`python -m fleetctl.stack`)
lock, state_file, keys, layout   what stands in the data folder
postgres, dashboard, deno, process, ports   the parts it starts
"""

__all__ = [
    "connection",
    "dashboard",
    "dashboard_export",
    "deno",
    "layout",
    "local_stack",
    "ports",
    "supervisor",
]
