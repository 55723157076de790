"""Which fleet this device belongs to, and which releases it has run: a signature alone is not enough.

The same key may sign for several fleets, and whoever has a service key may offer any commit that it signed.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING
from uuid import UUID

from loguru import logger
from pydantic import Field
from pydantic import ValidationError as PydanticValidationError

from fleet_agent.engine.core import Engine
from fleet_agent.errors import FleetError, Kind, ReleaseError
from fleet_agent.model import FLEET_FILE, FleetFile, Frozen

if TYPE_CHECKING:
    from fleet_agent.release import Origin

#: Commits of one day may be released in any order.
TOLERANCE = timedelta(days=1)
#: Years of releases; the first to have run is forgotten first.
LIMIT = 200


class Membership(Frozen):
    """`state/membership.json`: the fleet that this device belongs to, and the commits that it has run."""

    fleet_id: UUID | None = None
    #: By commit: its time.
    ran: dict[str, datetime] = Field(default_factory=dict)


def load(engine: Engine) -> Membership:
    """Read it. One that was lost is rebuilt from what runs: nothing else can say which fleet this is."""
    try:
        return Membership.model_validate_json(engine.paths.membership.read_bytes())
    except FileNotFoundError:
        pass
    except (OSError, PydanticValidationError) as error:
        logger.error("{file} cannot be read: {error}", file=engine.paths.membership, error=error)
    current = engine.journal.current
    if current is None:
        return Membership()
    try:
        found = (engine.paths.release(current.release.commit_sha) / FLEET_FILE).read_bytes()
        return Membership(fleet_id=FleetFile.model_validate_json(found).fleet_id)
    except (OSError, ValueError):
        return Membership()


def admit(engine: Engine, origin: Origin, *, verified: bool) -> None:
    """Refuse a release of another fleet, and an older one if the device does that.

    The first verified release says which fleet this is, unless `device.json` does. Raises ReleaseError
    (`wrong_fleet`, `release_older`).
    """
    known = load(engine)
    _check_fleet(engine, origin, engine.config.fleet_id or known.fleet_id)
    if engine.config.refuse_older_releases:
        _check_age(engine, origin, known)
    if verified and known.fleet_id is None and origin.fleet_id is not None:
        logger.info("this device belongs to the fleet {fleet} from now on", fleet=origin.fleet_id)
        _save(engine, known.model_copy(update={"fleet_id": origin.fleet_id}))


def remember_run(engine: Engine, commit: str, committed_at: datetime | None) -> None:
    """It has proven healthy here, and may be run again however old it is."""
    known = load(engine)
    if committed_at is None or commit in known.ran:
        return
    kept = dict(list(known.ran.items())[-(LIMIT - 1) :])
    _save(engine, known.model_copy(update={"ran": {**kept, commit: committed_at}}))


def _check_fleet(engine: Engine, origin: Origin, fleet_id: UUID | None) -> None:
    if fleet_id is None or origin.fleet_id == fleet_id:
        return
    of = f"of the fleet {origin.fleet_id}" if origin.fleet_id else f"without {FLEET_FILE}"
    raise ReleaseError(
        Kind.WRONG_FLEET,
        f"{engine.attempt.target.release.version} is a release {of}; this device belongs to {fleet_id}.",
        hint="Offer a release of this fleet's repository. If the device changed fleets, set fleet_id in "
        "its device.json.",
    )


def _check_age(engine: Engine, origin: Origin, known: Membership) -> None:
    current, target = engine.journal.current, engine.attempt.target.release
    if current is None or target.commit_sha in (current.release.commit_sha, *known.ran):
        return
    running = _time_of_current(engine, current.release.commit_sha, known)
    if running is None:
        return
    if origin.committed_at is None or origin.committed_at < running - TOLERANCE:
        made = f"{origin.committed_at:%Y-%m-%d %H:%M} UTC" if origin.committed_at else "at an unknown time"
        raise ReleaseError(
            Kind.RELEASE_OLDER,
            f"{target.version} was committed {made}, more than a day before {current.release.version}, "
            "which runs here, and this device has never run it.",
            hint="Release it as a new commit, or turn refuse_older_releases off in device.json.",
        )


def _time_of_current(engine: Engine, commit: str, known: Membership) -> datetime | None:
    if commit in known.ran:
        return known.ran[commit]
    try:
        return engine.source.origin(commit).committed_at
    except FleetError as error:
        # Older agents did not remember it, and the repository was recreated since.
        logger.warning("the age of what runs is not known: {error}", error=error.message)
        return None


def _save(engine: Engine, known: Membership) -> None:
    engine.files.write(engine.paths.membership, known.model_dump_json(indent=1).encode())
