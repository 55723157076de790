"""Bring the release here. If space is short, leftovers of older releases go first.

Whatever fails here passes: the Git host needs no trust, so nothing that it says or does can make a release
known bad. Verifying comes next, and decides.
"""

from __future__ import annotations

from fleet_agent.engine import disk_space, retention
from fleet_agent.engine.core import Engine
from fleet_agent.engine.phases import Phase
from fleet_agent.errors import Kind, ReleaseError
from fleet_agent.model import Progress


def run(engine: Engine) -> None:
    fetched = retention.cleaning_up_once(engine, lambda: _fetch(engine))
    attempt = engine.attempt
    total = attempt.bytes_fetched + fetched
    engine.move(Phase.VERIFYING, attempt=attempt.model_copy(update={"bytes_fetched": total}))


def _fetch(engine: Engine) -> int:
    disk_space.need_space(engine)
    target = engine.attempt.target

    def report(progress: Progress) -> None:
        engine.report_progress(progress.detail, progress.percent)

    try:
        return engine.source.fetch(target.release, target.role, report)
    except ReleaseError as error:
        if error.kind is not Kind.ROLE_MISSING:
            raise
        # Exporting says the same, after the signature was verified: then it is the release's fault.
        return 0
