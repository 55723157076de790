"""The update engine: moves a device from one release to another, and can be killed at any instant.

`api` is what the rest of the agent calls; `python -m fleet_agent.engine` is the same as a process.
"""
