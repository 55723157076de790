"""The whole story on one machine: `fleetctl demo`."""
