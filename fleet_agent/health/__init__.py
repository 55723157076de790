"""Is what was started healthy?

    base     the interface: what a check looks at (`CheckContext`) and what it finds (`CheckResult`)
    checks   from the checks that a role declares to the code that runs them
    judge    from the rounds of checks to a verdict; pure, no clock
    command, compose, container, file, http, log, tcp   one file for each kind: copy one to add another

May import `containers`, `roles`, `support` and the shared words. Imports nothing here.
"""

__all__ = ["base", "checks", "container", "judge"]
