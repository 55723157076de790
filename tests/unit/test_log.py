"""The log: no secret reaches it, and the dashboard gets its warnings."""

from __future__ import annotations

import logging
import os
from time import process_time

import pytest
from loguru import logger

from fleet_agent.log import RING_MESSAGE_LIMIT, RING_SIZE, redact, set_up
from fleet_agent.release.git_command import without_secrets

JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ4In0.c2lnbmF0dXJl"


@pytest.mark.parametrize(
    "secret",
    [JWT, "sb_secret_abc-DEF_123", "fpt_0123456789abcdef", "Bearer abcdefghijklmnopqrstuvwxyz"],
)
def test_a_secret_reaches_neither_the_output_nor_the_ring(
    capsys: pytest.CaptureFixture[str], secret: str
) -> None:
    log = set_up("DEBUG")
    logger.error("it was {it}", it=secret)
    try:
        int(secret)
    except ValueError as error:
        logger.opt(exception=error).error("raised")
    bare = secret.removeprefix("Bearer ")
    assert bare not in capsys.readouterr().err
    assert bare not in str(log.ring.entries())


def test_a_password_in_an_address_is_hidden_and_the_address_is_not() -> None:
    assert redact("https://bob:hunter2@git.example/x.git") == "https://[redacted]@git.example/x.git"


def test_the_publishable_key_is_no_secret() -> None:
    assert redact("sb_publishable_x") == "sb_publishable_x"


def test_values_of_variables_are_not_printed_into_tracebacks(capsys: pytest.CaptureFixture[str]) -> None:
    set_up("DEBUG")
    password = "correct horse"
    try:
        _ = password.index("battery")
    except ValueError as error:
        logger.opt(exception=error).error("raised")
    assert "correct horse" not in capsys.readouterr().err


def test_the_ring_keeps_the_last_warnings_and_no_chatter() -> None:
    log = set_up("DEBUG")
    logger.info("chatter")
    for number in range(RING_SIZE + 5):
        logger.warning("warning {n} " + "x" * 1000, n=number)
    entries = log.ring.entries()
    assert len(entries) == RING_SIZE
    assert entries[-1]["message"].startswith(f"warning {RING_SIZE + 4} ")
    assert all(len(entry["message"]) <= RING_MESSAGE_LIMIT for entry in entries)
    assert {entry["level"] for entry in entries} == {"warning"}


def test_the_level_can_be_changed_while_running(capsys: pytest.CaptureFixture[str]) -> None:
    log = set_up("WARNING")
    logger.info("before")
    log.set_level("INFO")
    logger.info("after")
    said = capsys.readouterr().err
    assert "before" not in said
    assert said.count("after") == 1


@pytest.mark.parametrize("text", ["a" * 200_000, "a://" * 50_000, "eyJaaaaaaaa-" * 15_000, "://a:" * 40_000])
def test_secrets_are_looked_for_in_time_that_grows_with_the_text(text: str) -> None:
    """Whoever runs the Git host, or writes a service's log, chooses this text: it took minutes."""
    before = process_time()
    redact(text)
    without_secrets(text)
    assert process_time() - before < 5
    assert without_secrets("a https://u:p@w@h/x@y 'ssh://u@h'") == "a https://h/x@y 'ssh://h'"


def test_libraries_warnings_pass_through_the_same_redaction(capsys: pytest.CaptureFixture[str]) -> None:
    set_up("INFO")
    logging.getLogger("some.library").warning("token %s", JWT)
    logging.getLogger("realtime._async.client").error("Connection attempt failed")
    said = capsys.readouterr().err
    assert "some.library token [redacted]" in said
    assert "Connection attempt failed" not in said


def test_under_journald_each_line_carries_its_priority_and_no_time(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(os.environ, "JOURNAL_STREAM", "8:1")
    set_up("INFO")
    logger.warning("mind this")
    assert capsys.readouterr().err == "<4>WARNING mind this\n"
