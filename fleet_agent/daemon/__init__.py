"""The long-running process: one loop, one task; wakes only move the time of the next check-in.

loop             turns, signals, the watchdog, a changed configuration
schedule         when the next check-in is due, and why
check_in         one turn: look after what runs, upload, ask, carry out, decide, act, report
decide           what to do next: pure functions
settings         the device's own file over what the control plane sends
commands         what operators send, each carried out at most once (`command_journal`)
engine_process   the engine as a child process, which can be killed and is never imported
reachability     answered, refused or cut off (`isolation`: for long), and when to ask again
status_report    writes `device_status`
attempt_upload   finished attempts: from the outbox to `update_history`
"""

__all__ = [
    "attempt_upload",
    "check_in",
    "command_journal",
    "commands",
    "decide",
    "engine_process",
    "isolation",
    "loop",
    "reachability",
    "schedule",
    "settings",
    "status_report",
]
