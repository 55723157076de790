"""The long-running process: one loop in one task; wakes only move the time of the next check-in.

    loop            turns, signals, the watchdog, a changed configuration
    schedule        when the next check-in is due, and why
    check_in        one turn: repair what runs, upload, ask, carry out, decide, act, report
    decide          what to do next: pure functions
    settings        what is in effect: the device's own file over what the control plane sends
    commands        what operators send; `command_journal` sees to it that each is carried out once at most
    engine_process  the engine as a child process, which can be killed and is never imported
    docker_watch    has Docker ended and returned?
    reachability    answered, refused or cut off, and when to ask again; `isolation`: cut off for long
    status_report   writes `device_status`
    attempt_upload  finished attempts: from the outbox to `update_history`

May import `control_plane`, `attempts`, `host`, `support`, the shared words, and of `engine` only `phases` and
`lock`. Imports nothing here.
"""

__all__ = [
    "attempt_upload",
    "check_in",
    "command_journal",
    "commands",
    "decide",
    "docker_watch",
    "engine_process",
    "isolation",
    "loop",
    "reachability",
    "schedule",
    "settings",
    "status_report",
]
