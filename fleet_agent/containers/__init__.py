"""The container runtime: Docker Compose for real, simulated for large fleets and bare machines.

    base               the protocol that the engine uses, and its words (`Runtime`, `ComposeStack`, ...)
    factory            which runtime a device uses
    compose            Docker for real; below it `compose_cli` and `compose_program` (the Compose program),
                       `docker_engine`, `docker_images` and `docker_exec` (Docker's API), `docker_errors`
                       (from their output to our errors), `docker_connection` (was Docker restarted?)
    simulated          containers that exist only in a file
    compose_file       what a resolved Compose file contains: services, images, ports
    content_store      what a role mounts, stored by its content, so that services restart only for a change
    secret_files       `secrets:` and `configs:` as plain mounts, of files that the agent writes
    comparison         what runs, compared whole with what should run
    host_needs         what a Compose file needs of this machine

May import `roles`, `support` and the shared words. Imports nothing here: Docker's SDK loads when it is used.
"""

__all__ = [
    "base",
    "comparison",
    "compose",
    "compose_file",
    "compose_program",
    "content_store",
    "docker_errors",
    "factory",
    "host_needs",
    "secret_files",
]
