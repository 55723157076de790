"""`fleetctl up`, `down`, `status`, `reset`, `migrate`: the embedded stack from the command line."""

from __future__ import annotations

import signal
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import Annotated

import psycopg
import typer

from fleetctl.console import err, out, pairs, print_json
from fleetctl.errors import FleetctlError
from fleetctl.stack.layout import DEFAULT_DATA, DEFAULT_PORT, DEMO_MARKER, Project

Data = Annotated[Path, typer.Option("--data", help="Folder that holds the stack's database, keys and logs.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]


def up(  # noqa: PLR0917  # Typer reads options from parameters
    port: Annotated[int, typer.Option(min=0, max=65533, help="API port; 0 picks a free one.")] = DEFAULT_PORT,
    data: Data = DEFAULT_DATA,
    host: Annotated[
        str, typer.Option(help="Address of the API; 0.0.0.0 opens it to the network.")
    ] = "127.0.0.1",
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Return when it is ready.")] = False,
    table_editor: Annotated[
        bool, typer.Option("--table-editor/--no-table-editor", help="Supabase's table editor, on port + 2.")
    ] = True,
    web: Annotated[bool, typer.Option("--web/--no-web", help="Build the dashboard if it is not.")] = True,
    as_json: Json = False,
) -> None:
    """Start the embedded control plane, with the data of the last time.

    PostgreSQL listens on port + 1 and the table editor on port + 2, both on this machine only. Ctrl-C
    stops it.

    Example: fleetctl up --detach
    """
    from fleetctl.stack.local_stack import LocalStack
    from fleetctl.stack.supervisor import Options, Supervisor

    if host not in ("127.0.0.1", "::1", "localhost"):
        err.print(
            "[yellow]note:[/] the API is plain HTTP and open to the network; put TLS in front of it.",
        )

    (data / DEMO_MARKER).unlink(missing_ok=True)

    def progress(text: str) -> None:
        err.print(f"  [dim]{text}[/]", markup=True)

    if detach:
        with err.status("Starting the control plane"):
            LocalStack.start(
                data=data, port=port, host=host, table_editor=table_editor, web=web, detach=True,
                progress=progress,
            )  # fmt: skip
        _show(data, as_json=as_json)
        return

    options = Options(data=str(data), port=port, host=host, table_editor=table_editor, web=web)
    supervisor = Supervisor(options, progress)

    def on_signal(number: int, frame: FrameType | None) -> None:
        supervisor.request_stop()

    before = {
        number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    }

    def ready() -> None:
        _show(data, as_json=as_json)
        err.print("\nRunning. Ctrl-C stops it; the data stays.")

    try:
        supervisor.run(ready)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    err.print("Stopped.")


def down(data: Data = DEFAULT_DATA, as_json: Json = False) -> None:
    """Stop the embedded control plane, wherever it was started. Its data stays.

    Example: fleetctl down
    """
    from fleetctl.stack.local_stack import LocalStack

    stopped = LocalStack.down(data)
    if as_json:
        print_json({"stopped": stopped, "data": str(data.resolve())})
    else:
        out.print("Stopped." if stopped else f"Nothing was running in {data}.")


def status(data: Data = DEFAULT_DATA, as_json: Json = False) -> None:
    """Say whether the control plane runs, where, and with which keys. Exit code 3 when it does not run.

    Example: fleetctl status --json
    """
    if _show(data, as_json=as_json) != "running":
        raise typer.Exit(3)


def reset(
    data: Data = DEFAULT_DATA,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: Json = False,
) -> None:
    """Delete the database of a stopped stack: every device, release and operator. The keys stay.

    Example: fleetctl reset --yes
    """
    from fleetctl.stack.local_stack import LocalStack

    if not yes and not typer.confirm(
        f"Delete the whole fleet database in {data.resolve()}? This cannot be undone."
    ):
        raise FleetctlError("not_confirmed", "Nothing was deleted.", hint="Pass --yes to skip the question.")
    deleted = LocalStack.reset(data)
    if as_json:
        print_json({"deleted": deleted, "data": str(data.resolve())})
    else:
        out.print("Deleted. The next start makes an empty database." if deleted else "There was no database.")


def migrate(
    db_url: Annotated[str, typer.Option("--db-url", help="Where; as `postgres` or one who may become it.")],
    as_json: Json = False,
) -> None:
    """Apply the migrations to any Supabase database, with the history that `supabase db push` keeps.

    Example: fleetctl migrate --db-url postgresql://postgres:…@db.example.com:5432/postgres
    """
    from fleetctl.migrate import migrate as run

    try:
        with psycopg.connect(db_url, autocommit=True, connect_timeout=15) as connection:
            outcome = run(
                connection, Project.find().migrations, progress=lambda label: err.print(f"  [dim]{label}[/]")
            )
    except psycopg.OperationalError as error:
        raise FleetctlError(
            "database_unreachable",
            f"The database did not answer: {str(error).strip()}",
            hint="Check --db-url and the network.",
            exit_code=3,
        ) from error
    if as_json:
        print_json(asdict(outcome))
        return
    for label in outcome.changed:
        err.print(f"[yellow]warning:[/] {label} was edited after it was applied.")
    out.print(f"{len(outcome.applied)} applied, {outcome.already} were there already.")


def _show(data: Path, *, as_json: bool) -> str:
    """Print the status; return its state."""
    from fleetctl.stack.local_stack import LocalStack

    found = LocalStack.status_of(data)
    if as_json:
        print_json(asdict(found))
        return found.state
    if found.state == "running":
        out.print()
        pairs(
            {
                "dashboard": found.dashboard_url or "",
                "API": found.api_url or "",
                "table editor": found.table_editor_url or "off",
                "publishable key": found.publishable_key or "",
                "secret key and database": "fleetctl status --json",
                "data": found.data,
            }
        )
    else:
        pairs({"state": found.state, "why": found.detail, "data": found.data})
    return found.state
