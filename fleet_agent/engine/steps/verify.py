"""Refuse what no key that this device trusts has signed, and what is signed for another fleet.

Then unpack it, completely or not at all. Only what the verification itself finds is held against a release: a
program that was killed, or that the device had no room for, passes.
"""

from __future__ import annotations

from loguru import logger

from fleet_agent.engine import membership, retention
from fleet_agent.engine.core import Engine
from fleet_agent.engine.phases import Phase


def run(engine: Engine) -> None:
    target = engine.attempt.target
    signer = engine.patiently("check the signature", lambda: engine.source.verify(target.release))
    if signer is not None:
        logger.info("{version} is signed by {signer}", version=target.release.version, signer=signer)
    origin = engine.patiently("read the commit", lambda: engine.source.origin(target.release.commit_sha))
    membership.admit(engine, origin, verified=signer is not None)
    retention.cleaning_up_once(engine, lambda: engine.source.export(target.release, target.role))
    found = {"signer": signer, "committed_at": origin.committed_at}
    engine.move(Phase.VALIDATING, attempt=engine.attempt.model_copy(update=found))
