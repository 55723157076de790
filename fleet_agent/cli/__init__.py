"""The command line of a device: `fleet-agent`.

    main        the parser, and one command's way from arguments to an exit code
    enroll      `enroll`
    run         `run`, `once`, `rollback`: what moves this device
    status      `status`, `history`: read from this device alone, without a network
    service     `install`, `uninstall`, `validate-config`: the agent as a part of its machine
    context     what every command is given
    exit_codes  what the process exits with

A command imports what it needs when it runs, so that `--help` is quick and the daemon stays small.
May import every room.
"""

__all__ = ["context", "enroll", "exit_codes", "main", "run", "service", "status"]
