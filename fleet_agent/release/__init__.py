"""A release from the Git host to a folder that can be trusted.

    fetch    brings one commit, and of its files only those of one role, into a bare repository
    verify   says who signed it, or refuses
    export   writes it to `releases/<commit>/` with a manifest, complete or not at all
    prune    forgets what no longer is needed

Each function does one step and may be repeated: what is there already is kept. Callers hold the converge
lock.
"""

from fleet_agent.release.export import export
from fleet_agent.release.fetch import FetchResult, fetch
from fleet_agent.release.limits import Limits
from fleet_agent.release.manifest import Manifest, check_manifest
from fleet_agent.release.prune import prune
from fleet_agent.release.verify import verify

__all__ = ["FetchResult", "Limits", "Manifest", "check_manifest", "export", "fetch", "prune", "verify"]
