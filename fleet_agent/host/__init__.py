"""This machine.

    systemd         renders the units in `units/`, installs and removes them
    rescue_ssh      ssh while in safe mode: checks what device.json asks for, makes the host key
    sd_notify       tells systemd that the daemon is ready, that it is alive, and what it does
    machine         model, operating system, memory, disk, temperature (from /proc and /sys)
    process_memory  keeps the daemon's memory small

May import `support` and the shared words. Imports nothing here.
"""

__all__ = ["machine", "process_memory", "rescue_ssh", "sd_notify", "systemd"]
