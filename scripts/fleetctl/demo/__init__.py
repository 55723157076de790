"""A whole fleet on one machine.

walkthrough     `fleetctl demo`: from an empty folder to a fleet that has seen good and bad releases
faults/         `fleetctl demo faults`: each way an update can fail, on one device
beacon          releases of the role they use, whole and broken
device, docker, busybox_image, probe   what runs, where it runs, and a client that measures outages
"""

__all__ = ["faults", "walkthrough"]
