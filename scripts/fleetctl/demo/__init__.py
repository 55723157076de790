"""The whole story on one machine: `fleetctl demo`."""

#: A file in a data folder that the demo made and may begin afresh. `fleetctl up` takes it away: from then on
#: the folder is somebody's own fleet.
MARKER = "demo-data"
