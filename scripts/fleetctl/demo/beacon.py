"""Releases of the role `beacon`: whole, and broken for real in nine ways, on Docker and simulated.

Example:
    repo = BeaconRepo.create(folder)
    v1 = repo.release("v1")  # a signed commit's id
    v2 = repo.release("v2", breakage=Breakage.UNHEALTHY)
"""

from __future__ import annotations

from enum import StrEnum

from fleetctl.errors import FleetctlError
from fleetctl.fleet_repo import ROLES, FleetRepo, SigningKey

BEACON = "roles/beacon"


class Breakage(StrEnum):
    """Ways to break the beacon for real. The labels make simulated devices break the same way."""

    UNHEALTHY = "unhealthy"  # runs, and nothing listens
    CRASH = "crash"  # exits at once
    CRASH_LATE = "crash_late"  # serves well, exits after 20 seconds
    HTTP_ERROR = "http_error"  # listens, answers 404
    IGNORES_TERM = "ignores_term"  # broken, and has to be killed
    CONFIG_ERROR = "config_error"  # compose.yaml is not valid
    IMAGE_MISSING = "image_missing"  # an image that does not exist
    VARIABLE_MISSING = "variable_missing"  # requires a variable that devices do not have
    VALIDATE_FAILS = "validate_fails"  # the role's own check refuses


class BeaconRepo(FleetRepo):
    """A fleet repository whose releases are beacons."""

    def release(
        self,
        version: str,
        *,
        breakage: Breakage | None = None,
        sign: bool = True,
        key: SigningKey | None = None,
        branch: str | None = None,
    ) -> str:
        """Commit a beacon whose page names `version`, whole or broken as `breakage` says; return the id."""
        return self.commit(version, beacon(version, breakage), sign=sign, key=key, branch=branch)


def beacon(version: str, breakage: Breakage | None = None) -> dict[str, str]:
    """The beacon's files for one version, as edits for `FleetRepo.commit`."""
    files = {
        name: (ROLES / "beacon" / name).read_text()
        for name in ("compose.yaml", "role.yaml", "validate", "web/index.html", "web/serve")
    }
    files["web/index.html"] = files["web/index.html"].replace(
        "</html>", f"<p>Page of {version}.</p>\n</html>"
    )
    if breakage is not None:
        files = _break(files, breakage)
    return {f"{BEACON}/{name}": text for name, text in files.items()}


def _break(files: dict[str, str], breakage: Breakage) -> dict[str, str]:
    """Each is one small slip that a person could make."""
    name, old, new = {
        Breakage.UNHEALTHY: ("web/serve", "httpd -f -p 8080", "httpd -f -p 8088"),
        Breakage.CRASH: ("web/serve", "cp /web/index.html", "cp /web/indx.html"),
        Breakage.CRASH_LATE: (
            "web/serve",
            'wait "$server"',
            "sleep 20 &\nwait $!\necho 'out of luck' >&2\nexit 3",
        ),
        Breakage.HTTP_ERROR: ("web/serve", "/srv/version", "/srv/versoin"),
        Breakage.IGNORES_TERM: (
            "web/serve",
            "trap 'kill \"$server\"; exit 0' TERM INT\nhttpd -f -p 8080",
            "trap '' TERM INT\nhttpd -f -p 8088",
        ),
        Breakage.CONFIG_ERROR: ("compose.yaml", "  web:\n    <<: *service\n", "  web:\n    <<: *srevice\n"),
        Breakage.IMAGE_MISSING: (
            "compose.yaml",
            "    command: [sh, /web/serve]\n",
            "    image: fleet.invalid/beacon:missing\n    command: [sh, /web/serve]\n",
        ),
        Breakage.VARIABLE_MISSING: (
            "role.yaml",
            "variables:\n",
            "variables:\n  BEACON_TOKEN: {required: true, secret: true, description: Set on no device.}\n",
        ),
        Breakage.VALIDATE_FAILS: (
            "validate",
            "set -eu\n",
            "set -eu\necho 'this release refuses itself'\nexit 1\n",
        ),
    }[breakage]
    if old not in files[name]:
        raise FleetctlError(
            "beacon_changed", f"The beacon's {name} no longer contains {old!r}, which this breakage changes."
        )
    broken = {**files, name: files[name].replace(old, new)}
    if label := _LABELS.get(breakage):
        broken["compose.yaml"] = broken["compose.yaml"].replace(
            "    command: [sh, /web/serve]\n",
            f"    labels:\n      fleet.simulate: {label}\n    command: [sh, /web/serve]\n",
        )
    return broken


#: `fleet.simulate` for what a device without containers could not notice.
_LABELS = {
    Breakage.UNHEALTHY: "unhealthy",
    Breakage.CRASH: "crash",
    Breakage.CRASH_LATE: "crash-later=2",
    Breakage.HTTP_ERROR: "unhealthy",
    Breakage.IGNORES_TERM: "unhealthy",
}
