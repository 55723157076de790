"""The whole story on one machine: `fleetctl demo`, and each way to fail: `fleetctl demo faults`."""
