"""A release from the Git host to a folder that can be trusted.

    fetch    brings one commit, with the files of one role only, into a bare repository
    verify   returns who signed it, or refuses
    origin   returns which fleet it is for, and when it was made
    export   writes it to `releases/<commit>/` with a manifest, complete or not at all
    prune    removes what is no longer needed

Each function does one step and may be repeated: what is there already is kept. Callers hold the converge
lock. Below them: `repository` and `git_command` (Git, locked down), `redirects`, `fetch_errors` (from Git's
output to our errors), `limits`, `manifest`, `names`. May import `support` and the shared words.
"""

from fleet_agent.release.export import export
from fleet_agent.release.fetch import FetchResult, fetch
from fleet_agent.release.limits import Limits
from fleet_agent.release.manifest import Manifest, check_manifest
from fleet_agent.release.origin import Origin, origin
from fleet_agent.release.prune import prune
from fleet_agent.release.verify import verify

__all__ = [
    "FetchResult",
    "Limits",
    "Manifest",
    "Origin",
    "check_manifest",
    "export",
    "fetch",
    "origin",
    "prune",
    "verify",
]
