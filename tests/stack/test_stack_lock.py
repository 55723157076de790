"""What the server's packages are pinned to."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

from fleetctl.stack.deno import find_deno

ROOT = Path(__file__).resolve().parents[2]
LOCAL = ROOT / "supabase" / "local"


def test_lock_covers_the_server_and_every_function() -> None:
    """Otherwise the first start on another machine would pick versions by itself and rewrite the lock."""
    sources = [LOCAL / "server.ts", LOCAL / "realtime" / "mod.ts"]
    sources += sorted((ROOT / "edge_functions").glob("[a-z]*/index.ts"))
    result = subprocess.run(
        [find_deno(), "cache", "--frozen", "--config", str(LOCAL / "deno.json"), *map(str, sources)],
        capture_output=True, text=True, check=False, cwd=LOCAL,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr


def test_nothing_is_imported_from_an_address_or_unpinned() -> None:
    imports = set(json.loads((LOCAL / "deno.json").read_text())["imports"].values())
    for source in [*LOCAL.glob("*.ts"), *LOCAL.glob("realtime/*.ts"), *ROOT.glob("edge_functions/**/*.ts")]:
        imports |= set(re.findall(r'''from "((?:npm|jsr|https?):[^"]*)"''', source.read_text()))
    unpinned = [
        name for name in imports if not re.fullmatch(r"npm:/?(@[\w-]+/)?[\w-]+@\d+\.\d+\.\d+(/.*)?", name)
    ]
    assert unpinned == []
