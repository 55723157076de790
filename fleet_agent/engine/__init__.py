"""The update engine: moves a device from one release to another, and can be killed at any instant.

    __main__     the engine as a process: requests and answers
    api          its verbs; `directive` (what the control plane asks for), `status` (what is reported)
    core         `Engine`: the journal and the one function that changes phase; `config`, `dependencies`
    phases       the table of phases and moves; `steps/` has one file for each phase; `runner` runs them
    failure_policy, failure_memory   what follows from a failure, and what is remembered of it
    recovery, links, journal         after a crash: from the journal, or from the links if it is lost
    upkeep, repair, health_watch     keep running what was committed; watch what was just started
    running      start what should run, and have all of it run as it should
    stack_builder, stack_store       from an exported release to what runs here
    prefetch, retention, disk_space, safe_mode, drift, project, redaction   one subject each

May import every room but `control_plane`, `daemon` and `cli`. Imports nothing here: the daemon uses only
`phases` and `lock`, and starts the rest as a process.
"""

__all__ = ["api", "config", "dependencies", "lock", "phases"]
