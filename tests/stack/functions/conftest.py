"""The two functions, twice: in the embedded stack, and alone under plain `deno run` with an ES256 key.

The latter is how they are deployed. On the device's side, nothing of ours but the agent's own client is used.
"""

import json
import os
import subprocess
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import jwt
import psycopg
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from psycopg.rows import dict_row

from fleet_agent.control_plane.identity import Identity
from fleet_agent.paths import Paths
from fleetctl.stack.deno import find_deno
from tests.conftest import ROOT
from tests.support.functions import FUNCTIONS, Site, join
from tests.support.patience import PATIENCE_S


@pytest.fixture(scope="module")
def db(stack: Any) -> Iterator[psycopg.Connection[dict[str, Any]]]:
    with psycopg.connect(stack.db_url, autocommit=True, row_factory=dict_row) as connection:
        # The tests share one address; the rations have their own tests below.
        before = connection.execute("select * from fleet_settings").fetchone()
        assert before is not None
        connection.execute(
            "update fleet_settings set enroll_per_minute_per_address = 100000,"
            " token_per_minute_per_address = 100000 where id"
        )
        yield connection
        for name in (
            "enroll_per_minute_per_address", "token_per_minute_per_address",
            "requests_per_hour_per_device", "max_pending_devices",
        ):  # fmt: skip
            connection.execute(f"update fleet_settings set {name} = %s where id", [before[name]])


@pytest.fixture(scope="session")
def embedded(stack: Any) -> Site:
    base = f"{stack.api_url}/functions/v1"
    return Site(
        {name: f"{base}/{name}" for name in FUNCTIONS},
        stack.api_url, stack.publishable_key, "HS256", stack.jwt_secret,
    )  # fmt: skip


@pytest.fixture(scope="session")
def plain_deno(stack: Any) -> Iterator[Site]:
    """Each function in a process of its own, as `deno run` starts it, signing with an ES256 key."""
    private = ec.generate_private_key(ec.SECP256R1())
    jwk = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(private))
    # As `supabase gen signing-key` writes it, with the members that WebCrypto refuses.
    jwk |= {"kid": "key-1", "alg": "ES256", "use": "sig", "key_ops": ["sign", "verify"], "ext": True}
    environment = {
        **{name: os.environ[name] for name in ("PATH", "HOME", "DENO_DIR") if name in os.environ},
        "SUPABASE_URL": stack.api_url,
        "SUPABASE_PUBLISHABLE_KEYS": json.dumps({"default": stack.publishable_key}),
        "SUPABASE_SECRET_KEYS": json.dumps({"default": stack.secret_key}),
        "FLEET_SIGNING_JWK": json.dumps(jwk),
        "DENO_SERVE_ADDRESS": "tcp:127.0.0.1:0",
        "NO_COLOR": "1",
    }
    running = []
    urls = {}
    for name in FUNCTIONS:
        process = subprocess.Popen(
            [find_deno(), "run", "--no-prompt", "--allow-net", "--allow-env", f"{name}/index.ts"],
            cwd=ROOT / "edge_functions", env=environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        running.append(process)
        assert process.stdout is not None
        for line in process.stdout:
            if "Listening on" in line:
                port = line.rsplit(":", 1)[1].split("/")[0].strip()
                urls[name] = f"http://127.0.0.1:{port}/{name}"
                break
        else:
            pytest.fail(f"{name} did not start under plain deno")
        # Keep the pipe empty: a full one would stop the function.
        threading.Thread(target=process.stdout.read, daemon=True).start()
    yield Site(urls, stack.api_url, stack.publishable_key, "ES256", private.public_key(), "key-1")
    for process in running:
        process.terminate()
        process.wait(PATIENCE_S)


@pytest.fixture(params=["embedded", "plain_deno"])
def site(request: pytest.FixtureRequest) -> Site:
    found: Site = request.getfixturevalue(request.param)
    return found


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient() as made:
        yield made


@pytest.fixture
def identity(tmp_path: Path) -> Identity:
    return Identity.load_or_create(Paths(tmp_path))


@pytest.fixture
def member_to_be(identity: Identity, provisioning_token: Callable[..., str]) -> tuple[Identity, str]:
    return identity, provisioning_token()


@pytest.fixture
def provisioning_token(db: psycopg.Connection[dict[str, Any]]) -> Callable[..., str]:
    def make(**options: Any) -> str:
        options = {"role": "beacon", "segment": "canary", "branch": "main", "note": "test", **options}
        names = ", ".join(f"{name} => %({name})s" for name in options)
        row = db.execute(f"select create_provisioning_token({names}) as made", options).fetchone()
        assert row is not None
        return str(row["made"]["token"])

    return make


@pytest.fixture
async def member(embedded: Site, identity: Identity, provisioning_token: Callable[..., str]) -> Identity:
    got = await join(embedded, identity, provisioning_token())
    return identity.remember(got.device_id)
