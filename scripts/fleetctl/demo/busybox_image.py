"""`busybox:stable` without a registry: imported from a static busybox on this machine.

Nothing happens if the image is there already (pulled, or imported before).
"""

from __future__ import annotations

import io
import shutil
import subprocess
import tarfile
from pathlib import Path

IMAGE = "busybox:stable"


def ensure_busybox() -> str | None:
    """Return None when `busybox:stable` is in the local engine, else why it is not."""
    if _present():
        return None
    pulled = subprocess.run(["docker", "pull", "--quiet", IMAGE], capture_output=True, text=True, check=False)
    if pulled.returncode == 0:
        return None
    busybox = shutil.which("busybox")
    if busybox is None or not _is_static(Path(busybox)):
        return (
            f"{IMAGE} cannot be pulled, and no static busybox is installed to build it from (busybox-static)"
        )
    imported = subprocess.run(
        ["docker", "import", "-", IMAGE],
        input=_root_file_system(Path(busybox)),
        capture_output=True,
        check=False,
    )
    return None if imported.returncode == 0 else f"docker import failed: {imported.stderr.decode().strip()}"


def _present() -> bool:
    inspect = subprocess.run(["docker", "image", "inspect", IMAGE], capture_output=True, check=False)
    return inspect.returncode == 0


def _is_static(binary: Path) -> bool:
    """A static ELF names no interpreter."""
    return b"/ld-linux" not in binary.read_bytes()[:4096]


def _root_file_system(busybox: Path) -> bytes:
    """A tar of `/bin/busybox`, a link for each of its applets, and the folders that programs expect."""
    applets = subprocess.run(
        [str(busybox), "--list"], capture_output=True, text=True, check=True
    ).stdout.split()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for folder, mode in (
            ("bin", 0o755),
            ("etc", 0o755),
            ("tmp", 0o1777),
            ("var", 0o755),
            ("root", 0o700),
        ):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, mode
            tar.addfile(entry)
        tar.add(busybox, "bin/busybox", filter=_plain)
        for applet in applets:
            if applet == "busybox":
                continue
            link = tarfile.TarInfo(f"bin/{applet}")
            link.type, link.linkname, link.mode = tarfile.SYMTYPE, "busybox", 0o777
            tar.addfile(link)
        passwd = b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"
        entry = tarfile.TarInfo("etc/passwd")
        entry.size = len(passwd)
        tar.addfile(entry, io.BytesIO(passwd))
    return buffer.getvalue()


def _plain(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = "root"
    entry.mode = 0o755
    return entry
