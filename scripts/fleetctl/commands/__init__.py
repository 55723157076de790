"""One module a subject, each with a Typer `app`."""
