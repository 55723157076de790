"""Images: named, pinned, never built on a device."""

from __future__ import annotations

from collections.abc import Iterator

from fleetctl.role_check.findings import Finding, error
from fleetctl.role_check.subject import Subject


def images_are_pinned(subject: Subject) -> Iterator[Finding]:
    for name, service in subject.services.items():
        image = str(service.get("image") or "")
        if not image:
            if "build" not in service:
                yield error("image_missing", f"{name} has no image.", name)
            continue
        last = image.rpartition("/")[2]
        digest, tag = "@sha256:" in image, last.partition("@")[0].partition(":")[2]
        if not digest and not tag:
            yield error(
                "image_unpinned", f"{name}: {image} has neither a tag nor a digest, so it means latest.", name
            )
        elif tag == "latest" and not digest:
            yield error("image_unpinned", f"{name}: {image} can change without a release.", name)


def nothing_is_built(subject: Subject) -> Iterator[Finding]:
    for name, service in subject.services.items():
        if "build" in service:
            yield error("build_used", f"{name} would be built on the device; use an image instead.", name)
