"""This machine.

systemd         renders the units in `units/`, installs and removes them
rescue_ssh   ssh while in safe mode: checks what device.json asks for, makes the host key
sd_notify       tells systemd that the daemon is ready, alive, and what it does
machine         the model, the operating system, memory, disk, temperature (/proc and /sys)
process_memory  keeps the daemon's memory small
"""

__all__ = ["machine", "process_memory", "rescue_ssh", "sd_notify", "systemd"]
