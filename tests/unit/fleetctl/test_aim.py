"""Which fleet a command acts on: what is typed beats what is around, and contradictions are refused."""

from __future__ import annotations

import stat
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from fleetctl.client import known_fleets
from fleetctl.client.known_fleets import KnownFleets, Session
from fleetctl.client.target import Target, address
from fleetctl.commands.common.aim import Aim, Around, AtStack, Typed, choose
from fleetctl.errors import FleetctlError

LIVE = "https://abc.supabase.co"
TEST = "http://127.0.0.1:54321"


def session(fleet: str, api_url: str) -> Session:
    return Session(
        fleet=fleet, api_url=api_url, publishable_key=f"sb_publishable_{fleet}", email="ada@example.com",
        user_id="u", access_token="a", refresh_token="r", expires_at=datetime(2030, 1, 1, tzinfo=UTC),
    )  # fmt: skip


SESSIONS = {"live": session("live", LIVE), "test": session("test", TEST)}
NOTHING = Around(None, None, KnownFleets())
SIGNED_IN = Around(None, None, KnownFleets(SESSIONS, "live"))
CHOSEN_NONE = Around(None, None, KnownFleets(SESSIONS))
EVERYTHING = Around(LIVE, "sb_secret_live", KnownFleets(SESSIONS, "live"))
DATA = Path("elsewhere")


def chosen(aim: Aim) -> tuple[str, str | None]:
    """The place, and the name or key that acts there."""
    match aim:
        case AtStack(data, key):
            return str(data), key
        case Session():
            return aim.api_url, aim.fleet
        case Target():
            return aim.api_url, aim.key


@pytest.mark.parametrize(
    ("typed", "around", "place"),
    [
        # Typed: nothing that is around has a say.
        (Typed(data=DATA), EVERYTHING, ("elsewhere", None)),
        (Typed(data=Path(".fleet")), EVERYTHING, (".fleet", None)),
        (Typed(data=DATA, key="k"), EVERYTHING, ("elsewhere", "k")),
        (Typed(fleet="test"), EVERYTHING, (TEST, "test")),
        (Typed(fleet="test", key="k"), EVERYTHING, (TEST, "k")),
        (Typed(fleet="local"), EVERYTHING, (".fleet", None)),
        (Typed(api_url=f"{TEST}/"), EVERYTHING, (TEST, "test")),
        (Typed(api_url="http://other", key="k"), EVERYTHING, ("http://other", "k")),
        (Typed(api_url=LIVE.upper().replace("HTTPS", "https")), EVERYTHING, (LIVE, "sb_secret_live")),
        (Typed(api_url="http://o"), replace(EVERYTHING, api_url=None), ("http://o", "sb_secret_live")),
        (Typed(key="k"), EVERYTHING, (LIVE, "k")),
        # Around: the environment, then the fleet in use, then the stack here.
        (Typed(), EVERYTHING, (LIVE, "sb_secret_live")),
        (Typed(), Around(TEST, None, KnownFleets(SESSIONS, "live")), (TEST, "test")),
        (Typed(), SIGNED_IN, (LIVE, "live")),
        (Typed(), Around(None, None, KnownFleets(SESSIONS, "local")), (".fleet", None)),
        (Typed(), NOTHING, (".fleet", None)),
    ],
)  # fmt: skip
def test_what_is_typed_beats_what_is_around(
    typed: Typed, around: Around, place: tuple[str, str | None]
) -> None:
    assert chosen(choose(typed, around)) == place


@pytest.mark.parametrize(
    ("typed", "around", "kind", "said"),
    [
        (Typed(data=DATA, fleet="test"), NOTHING, "target_contradictory", "--data and --fleet each name"),
        (Typed(data=DATA, api_url=TEST), NOTHING, "target_contradictory", "--data and --api-url each name"),
        (Typed(fleet="test", api_url=TEST), SIGNED_IN, "target_contradictory", "--fleet and --api-url"),
        # The key of one project is not sent to another.
        (Typed(api_url="http://o"), EVERYTHING, "target_contradictory", f"FLEET_KEY is the key of {LIVE}"),
        (Typed(api_url="http://o"), SIGNED_IN, "target_incomplete", "A URL needs its secret key."),
        (Typed(key="k"), SIGNED_IN, "target_incomplete", "A key needs its URL."),
        (Typed(), replace(NOTHING, key="k"), "target_incomplete", "A key needs its URL."),
        (Typed(fleet="lvie"), SIGNED_IN, "fleet_unknown", "lvie here. Known: live, local, test."),
        (Typed(), CHOSEN_NONE, "fleet_not_chosen", "No fleet is in use. Known: live, test."),
        (Typed(api_url="nonsense"), NOTHING, "address_malformed", "nonsense is not the address"),
    ],
)  # fmt: skip
def test_contradictions_and_gaps_are_refused(typed: Typed, around: Around, kind: str, said: str) -> None:
    with pytest.raises(FleetctlError) as caught:
        choose(typed, around)
    assert (caught.value.kind, said in caught.value.message) == (kind, True), caught.value.message


@pytest.mark.parametrize(
    "text",
    ["", "x", "ftp://x", "http://", "https://a b", "http://x:99999", "http://[::1", "https://a\x1b[2J"],
)
def test_an_address_is_one(text: str) -> None:
    with pytest.raises(FleetctlError) as caught:
        address(text)
    assert caught.value.kind == "address_malformed"


def test_sessions_are_kept_by_the_name_of_their_fleet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "config" / "session.json"
    monkeypatch.setenv("FLEET_SESSION", str(file))
    assert known_fleets.load() == KnownFleets()
    known_fleets.remember(SESSIONS["live"], use=True)
    known_fleets.remember(SESSIONS["test"])
    assert known_fleets.load() == KnownFleets(SESSIONS, "live")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    known_fleets.use("test")
    known_fleets.forget("test")
    assert known_fleets.load() == KnownFleets({"live": SESSIONS["live"]})
    known_fleets.forget("live")
    assert not file.exists()
    for broken in ("{", "[]", '{"fleets": {}, "in_use": "gone"}', '{"fleets": {"a": 1}, "in_use": null}'):
        file.write_text(broken)
        with pytest.raises(FleetctlError) as caught:
            known_fleets.load()
        assert caught.value.kind == "session_unreadable"


@pytest.mark.parametrize(
    ("api_url", "name"),
    [(LIVE, "abc"), (TEST, "127.0.0.1-54321"), ("https://fleet.example.com", "fleet.example.com")],
)
def test_a_fleet_has_a_name_without_being_given_one(api_url: str, name: str) -> None:
    assert known_fleets.check_name(known_fleets.name_for(api_url)) == name
