"""The checks, one group a file. A check is a small function that yields findings; add it to `CHECKS`, too."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from fleetctl.role_check.checks import files, health, host, images, services, variables
from fleetctl.role_check.findings import Finding
from fleetctl.role_check.subject import Subject

Check = Callable[[Subject], Iterator[Finding]]

CHECKS: tuple[Check, ...] = (
    images.images_are_pinned,
    images.nothing_is_built,
    services.services_have_healthchecks,
    services.services_restart,
    variables.variables_are_declared,
    variables.variables_are_used,
    variables.defaults_agree,
    variables.releases_restart_little,
    host.mounts_stay_inside,
    files.links_have_content,
    files.writable_mounts_are_meant,
    files.files_are_not_in_lfs,
    files.secrets_can_be_had,
    files.names_can_be_written,
    host.access_is_declared,
    host.sizes_are_sane,
    host.places_in_containers_are_possible,
    services.names_are_left_to_compose,
    health.checked_services_exist,
    health.health_is_declared,
    health.validate_can_run,
    health.patterns_are_quick,
)
