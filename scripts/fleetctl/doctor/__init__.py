"""Whether a control plane is as it has to be, whichever of the three kinds it is, and what to do if not.

finding       what one check found
control_plane what is known about the control plane that is examined
over_http     checks by the API, as a device or a stranger sees it
realtime      whether a stranger may join a public channel
in_database   checks that need the database: migrations, roles, grants, scheduled jobs, admins
examine       all of them, in order
"""

from __future__ import annotations

from fleetctl.doctor.control_plane import ControlPlane, Kind, kind_of, read_signing_key
from fleetctl.doctor.examine import CHECKS, examine
from fleetctl.doctor.finding import Finding, State

__all__ = ["CHECKS", "ControlPlane", "Finding", "Kind", "State", "examine", "kind_of", "read_signing_key"]
