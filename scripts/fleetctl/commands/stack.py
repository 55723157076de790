"""`fleetctl up`, `down`, `status`, `reset`, `migrate`: the embedded stack from the command line."""

from __future__ import annotations

import signal
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from fleetctl.console import err, out, pairs, print_json
from fleetctl.errors import FleetctlError
from fleetctl.stack.layout import DEFAULT_DATA, DEFAULT_PORT, DEMO_MARKER, Project

if TYPE_CHECKING:
    from fleetctl.stack.supervisor import Options

Data = Annotated[Path, typer.Option("--data", help="Folder with the stack's database, keys and logs.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


def up(  # noqa: PLR0917  # Typer reads options from parameters
    port: Annotated[
        int, typer.Option(min=0, max=65533, help="Port of the API; 0 picks a free one.")
    ] = DEFAULT_PORT,
    data: Data = DEFAULT_DATA,
    host: Annotated[
        str, typer.Option(help="Address the API listens on; 0.0.0.0 opens it to the network.")
    ] = "127.0.0.1",
    detach: Annotated[
        bool, typer.Option("--detach", "-d", help="Keep it running in the background.")
    ] = False,
    table_editor: Annotated[
        bool, typer.Option("--table-editor/--no-table-editor", help="Supabase's table editor, on port + 2.")
    ] = True,
    web: Annotated[bool, typer.Option("--web/--no-web", help="Build the dashboard if needed.")] = True,
    as_json: Json = False,
) -> None:
    """Start the embedded control plane. Its data is kept between runs.

    PostgreSQL listens on port + 1 and the table editor on port + 2, on this machine only. Ctrl-C stops it.

    Example: fleetctl up --detach
    """
    from fleetctl.stack.supervisor import Options

    if host not in ("127.0.0.1", "::1", "localhost"):
        err.print("[yellow]note:[/] the API is plain HTTP and open to the network; put TLS in front of it.")
    (data / DEMO_MARKER).unlink(missing_ok=True)
    options = Options(data=str(data), port=port, host=host, table_editor=table_editor, web=web, detach=detach)
    if detach:
        _up_detached(options)
        _show(data, as_json=as_json)
    else:
        _up_here(options, as_json=as_json)


def _up_detached(options: Options) -> None:
    from fleetctl.stack.local_stack import LocalStack

    with err.status("Starting the control plane"):
        LocalStack.start(
            data=Path(options.data), port=options.port, host=options.host,
            table_editor=options.table_editor, web=options.web, detach=True, progress=_print_progress,
        )  # fmt: skip


def _up_here(options: Options, *, as_json: bool) -> None:
    """Run it in this process until a signal comes."""
    from fleetctl.stack.supervisor import Supervisor

    supervisor = Supervisor(options, _print_progress)

    def on_signal(number: int, frame: FrameType | None) -> None:
        supervisor.request_stop()

    def ready() -> None:
        _show(Path(options.data), as_json=as_json)
        err.print("\nRunning. Press Ctrl-C to stop; the data is kept.")

    before = {
        number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    }
    try:
        supervisor.run(ready)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    err.print("Stopped.")


def down(data: Data = DEFAULT_DATA, as_json: Json = False) -> None:
    """Stop the embedded control plane, wherever it was started. Its data is kept.

    Example: fleetctl down
    """
    from fleetctl.stack.local_stack import LocalStack

    stopped = LocalStack.down(data)
    if as_json:
        print_json({"stopped": stopped, "data": str(data.resolve())})
    else:
        out.print("Stopped." if stopped else f"Nothing was running in {data}.")


def status(data: Data = DEFAULT_DATA, as_json: Json = False) -> None:
    """Show whether the control plane is running, where, and with which keys. Exits with 3 if it is not.

    Example: fleetctl status --json
    """
    if _show(data, as_json=as_json) != "running":
        raise typer.Exit(3)


def reset(
    data: Data = DEFAULT_DATA,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")] = False,
    as_json: Json = False,
) -> None:
    """Delete the database of a stopped stack: every device, release and operator. The keys are kept.

    Example: fleetctl reset --yes
    """
    from fleetctl.stack.local_stack import LocalStack

    if not yes and not typer.confirm(
        f"Delete the whole fleet database in {data.resolve()}? This cannot be undone."
    ):
        raise FleetctlError("not_confirmed", "Nothing was deleted.", hint="Add --yes to skip the question.")
    deleted = LocalStack.reset(data)
    if as_json:
        print_json({"deleted": deleted, "data": str(data.resolve())})
    else:
        out.print(
            "Deleted. The next start creates an empty database." if deleted else "There was no database."
        )


def migrate(
    db_url: Annotated[
        str,
        typer.Option("--db-url", help="Database URL; its role must be postgres, or able to become postgres."),
    ],
    as_json: Json = False,
) -> None:
    """Apply the migrations to any Supabase database, with the same history as `supabase db push`.

    The URL may be that of a pooler in session or transaction mode.

    Example: fleetctl migrate --db-url postgresql://postgres:…@db.example.com:5432/postgres
    """
    import psycopg

    from fleetctl.migrate import migrate as run

    try:
        with psycopg.connect(db_url, autocommit=True, connect_timeout=15) as connection:
            outcome = run(connection, Project.find().migrations, progress=_print_progress)
    except psycopg.OperationalError as error:
        raise FleetctlError(
            "database_unreachable",
            f"The database cannot be reached: {str(error).strip()}",
            hint="Check --db-url and the network, and start again: files that were applied are not repeated.",
            exit_code=3,
        ) from error
    if as_json:
        print_json(asdict(outcome))
        return
    for label in outcome.changed:
        err.print(f"[yellow]warning:[/] {label} was edited after it was applied.")
    out.print(f"Applied {len(outcome.applied)}; {outcome.already} had been applied before.")


def _print_progress(text: str) -> None:
    err.print(f"  [dim]{text}[/]")


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
                "secret key, database URL": "fleetctl status --json",
                "data": found.data,
            }
        )
    else:
        pairs({"state": found.state, "why": found.detail, "data": found.data})
    return found.state
