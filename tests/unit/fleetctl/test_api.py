"""What fleetctl asks of a control plane, and what it makes of the answers."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from fleetctl.client import session
from fleetctl.client.api import Api
from fleetctl.client.query import every_row, is_one_of, where
from fleetctl.client.target import Target
from fleetctl.errors import FleetctlError

OUTAGES = [
    (503, {"code": "PGRST000", "message": "Database connection error. Retrying the connection."}),
    (503, {"code": "PGRST001", "message": "Database client error. Retrying the connection."}),
    (503, {"code": "PGRST002", "message": "Could not query the database for the schema cache. Retrying."}),
    (504, {"code": "PGRST003", "message": "Timed out acquiring connection from connection pool."}),
    (500, {"code": "57P03", "message": "the database system is starting up"}),
    (502, "<html>Bad Gateway</html>"),
]


@dataclass
class Said:
    """The answers that are still to come, the last one for good, and what was asked."""

    answers: list[tuple[int, Any]] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    retry_after: str | None = None
    paused: list[float] = field(default_factory=list)


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> Said:
    made = Said()
    monkeypatch.setattr("fleetctl.client.api.time.sleep", made.paused.append)
    return made


@pytest.fixture
def api(said: Said) -> Iterator[Api]:
    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            said.asked.append(f"{self.command} {self.path} {body.decode()}".strip())
            status, answer = said.answers[0]
            if len(said.answers) > 1:
                del said.answers[0]
            if callable(answer):
                answer = answer(parse_qs(urlsplit(self.path).query))
            content = (answer if isinstance(answer, str) else json.dumps(answer)).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(content)))
            if said.retry_after is not None:
                self.send_header("retry-after", said.retry_after)
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PATCH = do_DELETE = _answer  # noqa: N815  # as the library calls them

        def log_message(self, *ignored: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield Api(Target(f"http://127.0.0.1:{server.server_port}", "sb_secret_x"))
    server.shutdown()
    thread.join()
    server.server_close()


def refused(act: Any) -> FleetctlError:
    with pytest.raises(FleetctlError) as caught:
        act()
    return caught.value


@pytest.mark.parametrize("outage", OUTAGES, ids=lambda outage: str(outage[1])[:24])
def test_an_outage_is_unavailable_and_only_what_does_no_harm_is_repeated(
    api: Api, said: Said, outage: tuple[int, Any]
) -> None:
    said.answers = [outage]
    repeated = [
        lambda: api.rows("devices", order="id"),
        lambda: api.count("devices"),
        lambda: api.ask("explain_device", device_id="x"),
        lambda: api.ask_rows("preview_rollout", order="stage"),
        lambda: api.update("devices", {"hold": True}, where(id="x")),
    ]
    once = [
        lambda: api.rpc("halt_fleet", reason="r"),
        lambda: api.insert("halts", {}),
        lambda: api.delete("operators", where(email="x")),
    ]
    for acts, tries in ((repeated, 3), (once, 1)):
        for act in acts:
            said.asked.clear()
            error = refused(act)
            assert (error.kind, error.exit_code, len(said.asked)) == ("unavailable", 3, tries)
            assert ("Whether the change was made is not known." in error.message) == (tries == 1)
            assert str(outage[1])[:12] not in error.message


def test_what_passes_is_waited_for_as_long_as_the_answer_asks(api: Api, said: Said) -> None:
    said.retry_after = "4"
    said.answers = [OUTAGES[2], OUTAGES[3], (200, [{"id": 1}])]
    assert api.rows("devices", order="id") == [{"id": 1}]
    assert said.paused == [4.0, 4.0]
    said.retry_after = "600"
    said.answers = [OUTAGES[2], (200, [])]
    api.rows("devices", order="id")
    assert said.paused[-1] == 10.0


def test_an_outage_of_auth_refuses_nobody(api: Api, said: Said) -> None:
    said.answers = [(503, {"msg": "Database error querying schema"})]
    error = refused(lambda: session.sign_in("f", api.target.api_url, "key", "ada@example.com", "x"))
    assert (error.kind, error.exit_code) == ("unavailable", 3)
    error = refused(lambda: api.make_user("ada@example.com", "x"))
    assert (error.kind, error.exit_code) == ("unavailable", 3)


def test_tables_and_functions_are_read_page_by_page(api: Api, said: Said) -> None:
    def page(query: dict[str, list[str]]) -> list[dict[str, int]]:
        first, most = int(query["offset"][0]), min(1000, int(query["limit"][0]))
        return [{"id": number} for number in range(first, min(2500, first + most))]

    said.answers = [(200, page)]
    assert len(api.rows("devices", order="id")) == 2500
    assert len(api.ask_rows("preview_rollout", order="stage,device_id", rollout_id="x")) == 2500
    assert len(api.rows("devices", order="id", limit=1200)) == 1200
    assert [asked.split()[0] for asked in said.asked] == ["GET"] * 3 + ["POST"] * 3 + ["GET"] * 2


def test_filters_mean_what_they_say(api: Api, said: Said) -> None:
    """Also values that look like another type, or like a part of a filter."""
    said.answers = [(200, [])]
    for narrow in (where(version="1.0"), where(version="true"), is_one_of("name", ["a", 'b"),c'])):
        api.rows("releases", narrow, order="id")
    queries = [parse_qs(urlsplit(asked.split()[1]).query) for asked in said.asked]
    assert [query.get("version") or query.get("name") for query in queries] == [
        ['in.("1.0")'], ['in.("true")'], ['in.(a,"b\\"),c")'],
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("body", "kind", "sentence"),
    [
        ({"code": "22P02", "message": 'invalid input syntax for type integer: "x"'}, "value_refused",
         '"x" is not a valid integer.'),
        ({"code": "22P02", "message": 'invalid input value for enum public.attempt_outcome: "gone"'},
         "value_refused", '"gone" is not a valid value of attempt_outcome.'),
        ({"code": "23502", "message": 'null value in column "name" of relation "devices" violates not-null'
          ' constraint'}, "value_missing", "Name needs a value."),
        ({"code": "23514", "message": 'new row for relation "d" violates check constraint "a name is short"'},
         "value_refused", "A name is short."),
        ({"code": "23505", "message": "duplicate", "details": "Key (name)=(kitchen) already exists."},
         "already_exists", "There is already one with name kitchen."),
        ({"code": "23503", "details": 'Key (name)=(x) is still referenced from table "y".'},
         "still_in_use", "x is still used by y."),
        ({"code": "42883", "message": "function public.f(uuid) does not exist"}, "function_missing",
         "There is no function f here."),
        ({"code": "XX000", "message": "could not open relation with OID 3"}, "refused", None),
        ({"code": "PT404", "message": "Own words.", "details": "device_unknown"}, "device_unknown",
         "Own words."),
    ],
)  # fmt: skip
def test_what_postgresql_says_is_told_in_our_words(
    api: Api, said: Said, body: dict[str, str], kind: str, sentence: str | None
) -> None:
    said.answers = [(400, body)]
    error = refused(lambda: api.rows("devices", every_row, order="id"))
    assert error.kind == kind
    assert error.message == (sentence or f"{api.target.api_url} refused the request (XX000).")
