"""From nothing to a hosted project: a step with a verb of the Supabase CLI is run, any other is waited for.

cli     the Supabase CLI: found on PATH, each command shown before it runs
project what is known about the project, and the folder in which its files are kept
steps   what is done, in order
up      doing it: what is right already is left alone, and what a person has to do is waited for
"""

from __future__ import annotations

from fleetctl.hosted.cli import SupabaseCli
from fleetctl.hosted.project import HostedProject
from fleetctl.hosted.steps import Step, steps
from fleetctl.hosted.up import bring_up, describe

__all__ = ["HostedProject", "Step", "SupabaseCli", "bring_up", "describe", "steps"]
