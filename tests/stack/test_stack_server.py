"""What the server serves, with a small project of its own: functions, pages, table editor, scheduler, SQL."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import jwt
import psycopg
import pytest

from fleetctl.commands.common.context import Context
from fleetctl.stack.local_stack import LocalStack

ROOT = Path(__file__).resolve().parents[2]

MIGRATION = """
create role fleet_device nologin;
grant fleet_device to authenticator;
create schema private;
create table private.ticks (at timestamptz, by_role text);
create function private.tick(at timestamptz) returns void language sql
  as $$ insert into private.ticks values (at, current_user) $$;
create table public.things (id int primary key, name text check (name <> 'bad'));
alter table public.things enable row level security;
grant select, insert, update, delete on public.things to service_role;
alter role fleet_device set statement_timeout = '5s';
create table public.notes (id int primary key, content jsonb);
alter table public.notes enable row level security;
grant select, insert, update, delete on public.notes to service_role;
create function public.kind_of(value jsonb) returns text language sql as 'select jsonb_typeof(value)';
create function public.slow() returns void language sql as $$ select pg_sleep(10) $$;
create function public.timeout() returns text language sql
  as $$ select current_setting('statement_timeout') $$;
grant execute on function public.kind_of(jsonb), public.timeout(), public.slow()
  to service_role, authenticated, fleet_device, anon;
"""

FUNCTIONS = {
    "echo": """
      export const handler = async (request: Request) => Response.json({
        path: new URL(request.url).pathname, body: await request.json(), url: Deno.env.get("SUPABASE_URL"),
        publishable: JSON.parse(Deno.env.get("SUPABASE_PUBLISHABLE_KEYS")!).default,
        secret: JSON.parse(Deno.env.get("SUPABASE_SECRET_KEYS")!).default,
        jwk: JSON.parse(Deno.env.get("FLEET_SIGNING_JWK")!),
      });
      if (import.meta.main) Deno.serve(handler);""",
    "throws": "export const handler = () => { throw new Error('on purpose'); };",
    "rejects_later": """
      export const handler = () => {
        setTimeout(() => { void Promise.reject(new Error('late, on purpose')); }, 0);
        setTimeout(() => { throw new Error('later, on purpose'); }, 0);
        return Promise.resolve(new Response('answered'));
      };""",
    "broken": "import './missing.ts'; export const handler = () => Promise.resolve(new Response());",
    "_shared": "export const nothing = 1;",
}


@pytest.fixture(scope="module")
def project() -> Iterator[Path]:
    root = Path(tempfile.mkdtemp(prefix="fleet-project-"))
    (root / "supabase").mkdir()
    (root / "supabase" / "local").symlink_to(ROOT / "supabase" / "local")
    (root / "supabase" / "seed.sql").write_text("insert into public.things values (1, 'seeded');")
    (root / "migrations").mkdir()
    (root / "migrations" / "20260101000000_make_things.sql").write_text(MIGRATION)
    for name, source in FUNCTIONS.items():
        folder = root / "edge_functions" / name
        folder.mkdir(parents=True)
        (folder / "index.ts").write_text(source)
    assets = root / "web" / "dist" / "assets"
    assets.mkdir(parents=True)
    (root / "web" / "dist" / "index.html").write_text("<title>the dashboard</title>")
    (root / "web" / "dist" / ".built-from").write_text("a stamp")
    (assets / "main-4f2a.js").write_text("export {};")
    (root / "secret.txt").write_text("outside")
    yield root
    shutil.rmtree(root)


@pytest.fixture(scope="module")
def running(project: Path) -> Iterator[LocalStack]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FLEET_PROJECT", str(project))
        with LocalStack.start(data=project / "data", port=0, web=False, durable=False) as stack:
            yield stack


@pytest.fixture(scope="module")
def api(running: LocalStack) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=running.api_url, headers={"apikey": running.secret_key}) as client:
        yield client


@pytest.fixture(scope="module")
def editor(running: LocalStack) -> Iterator[httpx.Client]:
    assert running.table_editor_url is not None
    with httpx.Client(base_url=running.table_editor_url) as client:
        yield client


# --- edge functions -----------------------------------------------------------------------------------------


def test_function_gets_the_environment_that_hosted_gives(running: LocalStack, api: httpx.Client) -> None:
    answer = api.post("/functions/v1/echo/deeper", json={"a": 1}).json()
    assert answer["path"] == "/functions/v1/echo/deeper"
    assert answer["body"] == {"a": 1}
    assert answer["url"] == running.api_url
    assert (answer["publishable"], answer["secret"]) == (running.publishable_key, running.secret_key)
    assert {key: answer["jwk"][key] for key in ("kty", "alg")} == {"kty": "oct", "alg": "HS256"}


@pytest.mark.parametrize(
    ("name", "status", "kind"),
    [
        ("throws", 500, "function_crashed"),
        ("broken", 503, "function_unavailable"),
        ("absent", 404, "function_not_found"),
        ("_shared", 404, "function_not_found"),
    ],
)
def test_function_that_fails_says_so_and_harms_nothing_else(
    running: LocalStack, api: httpx.Client, name: str, status: int, kind: str
) -> None:
    before = running.process_of("server")
    answer = api.post(f"/functions/v1/{name}", json={})
    assert (answer.status_code, answer.json()["kind"]) == (status, kind)
    assert api.post("/functions/v1/echo", json={}).status_code == 200
    assert running.process_of("server") == before


def test_error_after_the_answer_does_not_end_the_server(running: LocalStack, api: httpx.Client) -> None:
    before = running.process_of("server")
    assert api.post("/functions/v1/rejects_later").text == "answered"
    log = running.data / "logs" / "server.log"
    for _ in range(200):
        if "later, on purpose" in log.read_text():
            break
        time.sleep(0.02)
    assert "unhandled rejection: Error: late, on purpose" in log.read_text()
    assert api.post("/functions/v1/echo", json={}).status_code == 200
    assert running.process_of("server") == before


def test_function_answers_a_browsers_preflight(api: httpx.Client) -> None:
    answer = api.options("/functions/v1/echo", headers={"origin": "https://elsewhere.example"})
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (204, "*")
    assert "authorization" in answer.headers["access-control-allow-headers"]


def test_status_names_the_part_that_does_not_work(running: LocalStack, api: httpx.Client) -> None:
    answer = api.get("/_fleet/health")
    assert (answer.status_code, answer.json()["parts"]["functions"]) == (
        503,
        {"state": "failed", "detail": "could not be loaded: broken"},
    )
    status = LocalStack.status_of(running.data)
    assert (status.state, status.detail) == ("broken", "not working: functions")


def test_a_part_that_does_not_work_takes_the_commands_of_operators_not_away(
    running: LocalStack, capsys: pytest.CaptureFixture[str]
) -> None:
    context = Context(data=running.data, api_url=None, key=None, as_json=False)
    assert context.api.target.api_url == running.api_url
    said = " ".join(capsys.readouterr().err.split())
    assert said.endswith("runs, with a fault: not working: functions. hint: See fleetctl status.")


# --- the dashboard's files ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "status", "said", "cache"),
    [
        ("/", 200, "the dashboard", "no-cache"),
        ("/devices/some-id", 200, "the dashboard", "no-cache"),
        ("/assets/main-4f2a.js", 200, "export {};", "public, max-age=31536000, immutable"),
        ("/assets/gone.js", 404, "not_found", None),
        ("/.built-from", 200, "the dashboard", "no-cache"),
        ("/%2e%2e/%2e%2e/secret.txt", 200, "the dashboard", "no-cache"),
        ("/assets/..%2f..%2f..%2fsecret.txt", 404, "not_found", None),
    ],
)
def test_dashboard_files_and_nothing_beside_them(
    api: httpx.Client, path: str, status: int, said: str, cache: str | None
) -> None:
    answer = api.get(path)
    assert (answer.status_code, answer.headers.get("cache-control")) == (status, cache)
    assert said in answer.text
    assert "outside" not in answer.text


def test_unchanged_file_is_not_sent_again(api: httpx.Client) -> None:
    first = api.get("/")
    assert api.get("/", headers={"if-none-match": first.headers["etag"]}).status_code == 304


def test_dashboard_is_told_the_address_that_the_browser_used(running: LocalStack, api: httpx.Client) -> None:
    answer = api.get("/config.json", headers={"host": "fleet.example:8443"})
    assert answer.json() == {
        "supabaseUrl": "http://fleet.example:8443",
        "publishableKey": running.publishable_key,
    }
    assert answer.headers["cache-control"] == "no-store"


def test_a_missing_dashboard_is_reported_plainly(project: Path, api: httpx.Client) -> None:
    dist = project / "web" / "dist"
    dist.rename(project / "web" / "away")
    try:
        answer = api.get("/")
    finally:
        (project / "web" / "away").rename(dist)
    assert answer.status_code == 404
    assert "The dashboard has not been built" in answer.text


# --- the table editor ---------------------------------------------------------------------------------------


def test_table_editor_lists_and_edits_without_a_key(editor: httpx.Client) -> None:
    assert "<title>" in editor.get("/").text
    assert editor.get("/static/favicon.ico").headers["content-type"] == "image/x-icon"
    names = [table["name"] for table in editor.get("/_system/introspect").json()["tables"]]
    assert "things" in names
    assert editor.post("/rest/v1/things", json={"id": 2, "name": "by hand"}).status_code == 201
    assert {"id": 2, "name": "by hand"} in editor.get("/rest/v1/things").json()


@pytest.mark.parametrize(
    ("headers", "said"),
    [
        ({"host": "evil.example"}, "unknown host name"),
        ({"origin": "https://evil.example"}, "request from another site"),
        ({"sec-fetch-site": "cross-site"}, "request from another site"),
        ({"sec-fetch-site": "same-site", "sec-fetch-mode": "cors"}, "request from another site"),
    ],
)
def test_table_editor_refuses_pages_of_other_sites(
    editor: httpx.Client, headers: dict[str, str], said: str
) -> None:
    """Any page in the operator's browser can reach this port; none may act through it."""
    for path in ("/rest/v1/things", "/_system/info", "/"):
        answer = editor.get(path, headers=headers)
        assert (answer.status_code, answer.json()["message"]) == (403, f"Refused: {said}.")


def test_table_editor_tells_no_secret(running: LocalStack, editor: httpx.Client) -> None:
    said = editor.get("/_system/info").text + editor.get("/_system/config").text
    assert "postgresql://" not in said
    assert running.secret_key not in said
    assert running.jwt_secret not in said


def test_table_editor_listens_on_loopback_only(running: LocalStack) -> None:
    import psutil  # type: ignore[import-untyped]

    assert running.table_editor_url is not None
    port = int(running.table_editor_url.rstrip("/").rsplit(":", 1)[1])
    addresses = [
        connection.laddr.ip
        for connection in psutil.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN and connection.laddr.port in (port, port - 1, port - 2)
    ]
    assert addresses == ["127.0.0.1"] * 3


# --- SQL through Lite, seed, scheduler ----------------------------------------------------------------------


def test_json_arguments_arrive_as_json(api: httpx.Client) -> None:
    """Lite's own serializer would quote them once more."""
    kinds = [api.post("/rest/v1/rpc/kind_of", json={"value": value}).json() for value in ({"a": 1}, [1], 1)]
    assert kinds == ["object", "array", "number"]


def test_violated_check_is_a_bad_request_with_its_sqlstate(api: httpx.Client) -> None:
    """As PostgREST answers it; Lite alone says 500 without a code."""
    answer = api.post("/rest/v1/things", json={"id": 3, "name": "bad"})
    assert (answer.status_code, answer.json()["code"]) == (400, "23514")


@pytest.mark.parametrize(
    ("value", "kind"), [('{"a": 1}', "string"), ("[1]", "string"), ("1", "string"), ("not json", "string")]
)
def test_text_for_json_stays_text(api: httpx.Client, value: str, kind: str) -> None:
    """What only works if the text is parsed would fail on hosted. In an address, everything is text."""
    assert api.post("/rest/v1/rpc/kind_of", json={"value": value}).json() == kind
    rows = [{"id": 1, "content": value}, {"id": 2, "content": {"a": value}}]
    wanted = {"prefer": "return=representation,resolution=merge-duplicates"}
    assert api.post("/rest/v1/notes", json=rows, headers=wanted).json() == rows
    changed = api.patch("/rest/v1/notes?id=eq.2", json={"content": value}, headers=wanted)
    assert changed.json() == [{"id": 2, "content": value}]
    assert api.get("/rest/v1/rpc/kind_of", params={"value": '{"a": 1}'}).json() == "object"


@pytest.mark.parametrize("query", ["", "?order=id&limit=1", "?select=id"])
def test_a_change_of_a_whole_table_is_refused(api: httpx.Client, query: str) -> None:
    """As `safeupdate` on hosted."""
    api.post("/rest/v1/notes", json={"id": 9}, headers={"prefer": "resolution=ignore-duplicates"})
    for method, verb in (("PATCH", "UPDATE"), ("DELETE", "DELETE")):
        answer = api.request(method, f"/rest/v1/notes{query}", json={"content": None})
        assert (answer.status_code, answer.json()) == (
            400,
            {"code": "21000", "message": f"{verb} requires a WHERE clause", "details": None, "hint": None},
        )
    assert {"id": 9} in api.get("/rest/v1/notes?select=id").json()
    assert api.delete("/rest/v1/notes?id=eq.9").status_code == 204


def token(running: LocalStack, headers: dict[str, str] | None = None, **claims: object) -> str:
    standard: dict[str, object] = {"role": "service_role", "exp": int(time.time()) + 60}
    return jwt.encode(standard | claims, running.jwt_secret, algorithm="HS256", headers=headers)


NO_KEY = "No suitable key or wrong key type"


@pytest.mark.parametrize(
    ("claims", "headers", "code", "message"),
    [
        ({"exp": time.time() + 60.5}, None, "PGRST303", "JWT expired"),
        ({"exp": 1e30}, None, "PGRST303", "JWT expired"),
        ({"exp": "later"}, None, "PGRST303", "The JWT 'exp' claim must be a number"),
        ({"exp": 1}, None, "PGRST303", "JWT expired"),
        ({"nbf": time.time() // 1 + 900}, None, "PGRST303", "JWT not yet valid"),
        ({"aud": 7}, None, "PGRST303", "The JWT 'aud' claim must be a string or an array of strings"),
        ({"aud": ["a", 7]}, None, "PGRST303", "The JWT 'aud' claim must be a string or an array of strings"),
        ({"role": ["service_role"]}, None, "22023", 'role "["service_role"]" does not exist'),
        ({"role": None}, None, "22023", 'role "null" does not exist'),
        ({"role": ""}, None, "22023", 'role "" does not exist'),
        ({}, {"kid": "one"}, "PGRST301", NO_KEY),
    ],
)
def test_a_token_is_read_as_postgrest_reads_it(  # noqa: PLR0917  fixtures and parameters
    running: LocalStack,
    api: httpx.Client,
    claims: dict[str, object],
    headers: dict[str, str] | None,
    code: str,
    message: str,
) -> None:
    answer = api.get(
        "/rest/v1/notes", headers={"authorization": f"Bearer {token(running, headers, **claims)}"}
    )
    assert (answer.status_code, answer.json()["code"], answer.json()["message"]) == (401, code, message)
    assert answer.headers["proxy-status"] == f"PostgREST; error={code}"


def test_a_token_that_is_none_is_refused(running: LocalStack, api: httpx.Client) -> None:
    """Lite would take these for anon, so that a broken client looks like one without rights."""
    unsigned = jwt.encode({"role": "service_role"}, "", algorithm="none")
    forged = jwt.encode({"role": "service_role"}, "x" * 40, algorithm="HS256")
    for said, message in (
        ("rubbish", "Expected 3 parts in JWT; got 1"),
        ("a.b.c", "JWT cryptographic operation failed"),
        (unsigned, "Wrong or unsupported encoding algorithm"),
        (forged, NO_KEY),
    ):
        answer = api.get("/rest/v1/notes", headers={"authorization": f"Bearer {said}"})
        assert (answer.status_code, answer.json()["code"], answer.json()["message"]) == (
            401,
            "PGRST301",
            message,
        )
    good: list[dict[str, object]] = [
        {"aud": ["a", "b"], "iat": int(time.time())}, {"aud": "a"}, {"aud": []}, {"aud": None},
    ]  # fmt: skip
    for claims in good:
        bearer = {"authorization": f"Bearer {token(running, None, **claims)}"}
        assert api.get("/rest/v1/notes", headers=bearer).status_code == 200


@pytest.mark.parametrize(
    ("role", "timeout"),
    [("anon", "3s"), ("fleet_device", "5s"), ("authenticated", "8s"), ("service_role", "8s")],
)
def test_requests_run_under_the_statement_timeout_of_hosted(
    running: LocalStack, api: httpx.Client, role: str, timeout: str
) -> None:
    """Each role has its own; `service_role` has that of the login role `authenticator`."""
    bearer = {"authorization": f"Bearer {token(running, role=role)}"}
    for _ in range(2):
        assert api.post("/rest/v1/rpc/timeout", json={}, headers=bearer).json() == timeout


def test_a_role_that_takes_too_long_is_cut_off(running: LocalStack, api: httpx.Client) -> None:
    with psycopg.connect(running.db_url, autocommit=True) as db:
        db.execute("alter role anon in database postgres set statement_timeout = '30ms'")
        bearer = {"authorization": f"Bearer {token(running, role='anon')}"}
        answer = api.post("/rest/v1/rpc/slow", json={}, headers=bearer)
        db.execute("alter role anon in database postgres reset statement_timeout")
    assert (answer.status_code, answer.json()["code"]) == (500, "57014")


def test_the_publication_of_a_project_is_there_and_empty(running: LocalStack) -> None:
    """Hosted has it; a migration of somebody's own may add tables, as its owner `postgres`."""
    with psycopg.connect(running.db_url) as connection:
        rows = connection.execute(
            "select pg_get_userbyid(pubowner), puballtables,"
            " (select count(*) from pg_publication_tables t where t.pubname = p.pubname)"
            " from pg_publication p where pubname = 'supabase_realtime'"
        )
        assert list(rows) == [("postgres", False, 0)]


def test_new_database_is_seeded_once(running: LocalStack) -> None:
    with psycopg.connect(running.db_url) as connection:
        assert list(connection.execute("select name from public.things where id = 1")) == [("seeded",)]


def test_scheduler_ticks_as_postgres(running: LocalStack) -> None:
    with psycopg.connect(running.db_url, autocommit=True) as connection:
        roles = list(connection.execute("select distinct by_role from private.ticks"))
    assert roles == [("postgres",)]
