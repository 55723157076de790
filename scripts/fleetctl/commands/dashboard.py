"""`fleetctl dashboard export`: the dashboard for a static host."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fleetctl.console import out, print_json

app = typer.Typer(help="Write the dashboard to a folder for any static host.", no_args_is_help=True)


@app.command()
def export(
    folder: Annotated[
        Path, typer.Argument(help="Where to write it; files of an earlier export are replaced.")
    ],
    api_url: Annotated[
        str, typer.Option(envvar="FLEET_API_URL", help="URL of the project, such as https://….supabase.co.")
    ],
    publishable_key: Annotated[
        str, typer.Option(envvar="FLEET_PUBLISHABLE_KEY", help="The project's publishable key.")
    ],
    poll_seconds: Annotated[
        int | None,
        typer.Option(
            min=5, max=86_400, help="Seconds between reads of the lists while the live channel works."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Build the dashboard and write it, with its config.json and headers for that one project.

    Example: fleetctl dashboard export site --api-url https://….supabase.co --publishable-key sb_publishable_…
    """
    from fleetctl.stack import dashboard_export

    written = dashboard_export.build_and_export(folder, api_url, publishable_key, poll_seconds=poll_seconds)
    if as_json:
        print_json({"folder": str(folder), "written": [path.name for path in written]})
        return
    out.print(f"The dashboard is in {folder}.", markup=False)
    out.print(
        "Serve it with the headers in _headers (Netlify, Cloudflare Pages), headers.nginx.conf or "
        "headers.Caddyfile.",
        markup=False,
    )
