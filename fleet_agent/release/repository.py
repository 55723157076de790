"""The bare repository that releases are fetched into: its settings, clean-up after a crash, what it holds."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from fleet_agent.errors import Kind, ReleaseError
from fleet_agent.release.git_command import SETTINGS, SETTINGS_FILE, GitCommand, without_secrets
from fleet_agent.release.limits import COMMIT_SIZE, DEFAULTS, too_large
from fleet_agent.support import atomic_files

COMMIT = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")
ROLE_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
COMMON = "common"
#: One reference for each release that is here complete.
RELEASES = "refs/fleet/releases"
_CORRUPT = re.compile(
    r"corrupt|bad object|is empty|not a git repository|invalid object|unable to read|inflate|"
    r"bad (?:index|pack|ref|config)|broken|cannot be accessed|failed to (?:read|parse)|"
    r"could not (?:read|parse)|packfile .* (?:does not match|cannot)|missing (?:blob|tree|commit)|"
    r"unresolved deltas|hash mismatch|did not send all necessary|object directory",
    re.IGNORECASE,
)


class CorruptError(Exception):
    """The repository itself cannot be trusted any more and has to be recreated."""


@dataclass(frozen=True)
class Held:
    """What a repository had at some moment: its packs, and where its history ends."""

    packs: frozenset[str]
    shallow: bytes | None


def check_names(commit: str, role: str) -> None:
    """Refuse what cannot be a commit or a role before it reaches a command line. Raises ReleaseError."""
    if not COMMIT.fullmatch(commit):
        raise ReleaseError(Kind.COMMIT_MISSING, f"{commit!r} is not a full commit id.")
    if not ROLE_NAME.fullmatch(role) or role == COMMON:
        raise ReleaseError(Kind.ROLE_MISSING, f"{role!r} is not a valid role name.")


def folders(role: str) -> tuple[str, str]:
    """What a device of `role` gets."""
    return f"roles/{role}", f"roles/{COMMON}"


class Repository:
    """Handles one bare repository; nobody else uses it at the same time."""

    def __init__(self, folder: Path, *, memory: int = DEFAULTS.memory) -> None:
        self.folder = folder.absolute()
        self.git = GitCommand(self.folder, memory=memory)

    def prepare(self, url: str, commit: str, *, partial: bool) -> None:
        """Make it usable: create it if needed, remove locks and half-received packs of a killed fetch."""
        if not self._looks_sound():
            self.wipe()
        for part in ("objects/pack", "objects/info", "refs/heads", "refs/fleet"):
            (self.folder / part).mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o700)
        head = self.folder / "HEAD"
        if not head.exists():
            atomic_files.write_atomic(head, b"ref: refs/heads/none\n")
        self._write_settings(url, commit, partial=partial)
        self.clean_up()

    def wipe(self) -> None:
        """Remove all of it. Exported releases do not need it."""
        try:
            if self.folder.is_symlink() or self.folder.is_file():
                self.folder.unlink()
            elif self.folder.exists():
                shutil.rmtree(self.folder)
        except OSError as error:
            raise atomic_files.unwritable(self.folder, error) from error

    def partial_refused(self, url: str) -> bool:
        """True if this host has shown that it does not serve single files."""
        marker = self.folder / "fleet.whole"
        return marker.is_file() and marker.read_text() == quote(without_secrets(url))

    def remember_partial_refused(self, url: str) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        atomic_files.write_atomic(self.folder / "fleet.whole", quote(without_secrets(url)).encode())

    def has_commit(self, commit: str) -> bool:
        """Whether it is here. Raises ReleaseError (`release_too_large`) for a commit that nobody writes."""
        told = self.read("cat-file", "--batch-check", stdin=_asking_for(commit))
        return self._size_of_commit(told) is not None

    def commit(self, commit: str) -> bytes:
        """What a commit says. Raises CorruptError without it, ReleaseError as `has_commit` does."""
        told, _, rest = self.read("cat-file", "--batch", stdin=_asking_for(commit)).partition(b"\n")
        size = self._size_of_commit(told)
        if size is None:
            raise CorruptError(f"no commit {commit}: {told[:100].decode(errors='replace')}")
        return rest[:size]

    @staticmethod
    def _size_of_commit(told: bytes) -> int | None:
        """From an answer of `cat-file`; None if there is no commit."""
        kind, size = (*told.split()[1:], b"", b"")[:2]
        if kind != b"commit":
            return None
        if int(size) > COMMIT_SIZE:
            raise too_large(f"its commit alone has {int(size)} bytes, at most {COMMIT_SIZE} are allowed")
        return int(size)

    def trees(self, commit: str, role: str) -> list[str]:
        """The ids of the folders that a device of `role` gets. Raises ReleaseError (`role_missing`)."""
        wanted = folders(role)
        listed = self.read("ls-tree", "-d", "-z", "--full-tree", commit, "--", *wanted)
        entries = [entry.decode(errors="replace").split("\t") for entry in listed.split(b"\0") if entry]
        found = {path: about.split()[2] for about, path in entries}
        if wanted[0] not in found:
            raise role_missing(commit, role)
        return [found[folder] for folder in wanted if folder in found]

    def missing(self, trees: Iterable[str]) -> list[str]:
        """The ids of the files below `trees` that are not here yet, and of folders."""
        listed = self.read("rev-list", "--objects", "--missing=print", *trees)
        return [line[1:].decode() for line in listed.splitlines() if line.startswith(b"?")]

    def size(self) -> int:
        """Bytes on the disk. Quick enough to be asked while a transfer runs."""
        total = 0
        for folder in (self.folder / "objects" / "pack", self.folder / "objects"):
            with contextlib.suppress(OSError), os.scandir(folder) as entries:
                for entry in entries:
                    with contextlib.suppress(OSError):
                        total += entry.stat(follow_symlinks=False).st_size
        return total

    def held(self) -> Held:
        """What is here now, for `forget_since`."""
        packs, shallow = self.folder / "objects" / "pack", self.folder / "shallow"
        names = frozenset(file.name for file in packs.iterdir()) if packs.is_dir() else frozenset()
        return Held(names, shallow.read_bytes() if shallow.is_file() else None)

    def largest_since(self, before: Held) -> int:
        """Bytes of the largest file that a transfer has written."""
        packs = (self.folder / "objects" / "pack").iterdir()
        return max((file.stat().st_size for file in packs if file.name not in before.packs), default=0)

    def forget_since(self, before: Held) -> None:
        """Remove what a failed transfer left, whole or not: over many tries it would fill the disk."""
        self.clean_up()
        packs, shallow = self.folder / "objects" / "pack", self.folder / "shallow"
        left = [file for file in packs.iterdir() if file.name not in before.packs]
        # Indexes first: one without its pack breaks every read.
        for file in sorted(left, key=lambda file: file.suffix != ".idx"):
            file.unlink(missing_ok=True)
        if before.shallow is None:
            shallow.unlink(missing_ok=True)
        elif left:
            atomic_files.write_atomic(shallow, before.shallow)

    def keep(self, commit: str) -> None:
        """Mark a release as here and complete."""
        self.read("update-ref", f"{RELEASES}/{commit}", commit)

    def read(self, *arguments: str, stdin: bytes = b"") -> bytes:
        """Run a local command that must succeed. Raises CorruptError if it does not."""
        done = self.git.local(*arguments, stdin=stdin)
        if done.status != 0:
            raise CorruptError(f"git {arguments[0]}: {done.err.strip()[-500:]}")
        return done.out

    def _looks_sound(self) -> bool:
        """Cheap: catches folders that are not a repository, and references cut short by a power failure."""
        if not self.folder.is_dir():
            return False
        if not any(self.folder.iterdir()):
            return True
        references = (file for file in (self.folder / "refs").rglob("*") if file.is_file())
        for reference in references:
            if reference.suffix != ".lock" and not COMMIT.fullmatch(
                reference.read_bytes().decode("latin1").strip()
            ):
                return False
        packs = list((self.folder / "objects" / "pack").glob("*.idx"))
        whole = all(pack.stat().st_size and pack.with_suffix(".pack").is_file() for pack in packs)
        return whole and (self.folder / "objects").is_dir()

    def _write_settings(self, url: str, commit: str, *, partial: bool) -> None:
        long = len(commit) == 64
        lines = ["[core]", "\trepositoryformatversion = 1", "\tbare = true", "\tfilemode = true"]
        lines += ["[extensions]"] if partial or long else []
        lines += ["\tobjectformat = sha256"] if long else []
        lines += ["\tpartialClone = origin"] if partial else []
        lines += ['[remote "origin"]', f'\turl = "{url}"', "\ttagOpt = --no-tags"]
        lines += ["\tpromisor = true", "\tpartialclonefilter = blob:none"] if partial else []
        wanted = ("\n".join(lines) + "\n").encode()
        config = self.folder / "config"
        # Only what changed: an update that brings nothing new writes nothing. The address may hold a token.
        for file, content in ((config, wanted), (self.folder / SETTINGS_FILE, SETTINGS.encode())):
            if not file.is_file() or file.read_bytes() != content:
                atomic_files.write_atomic(file, content, mode=0o600)

    def clean_up(self) -> None:
        """Remove what Git left when it was killed or the disk was full.

        The caller holds the converge lock, so every lock file here is from a process that died.
        """
        for pattern in (
            "*.lock",
            "refs/**/*.lock",
            "objects/pack/tmp_*",
            "objects/tmp_*",
            "objects/incoming-*",
        ):
            for left in self.folder.glob(pattern):
                if left.is_dir():
                    shutil.rmtree(left, ignore_errors=True)
                else:
                    left.unlink(missing_ok=True)
        for pack in (self.folder / "objects" / "pack").glob("*.pack"):
            if not pack.with_suffix(".idx").exists():
                pack.unlink()


def role_missing(commit: str, role: str) -> ReleaseError:
    """The error for a release without the device's role."""
    return ReleaseError(
        Kind.ROLE_MISSING,
        f"The release {commit[:12]} has no role {role}.",
        hint=f"Add {folders(role)[0]}/ to the fleet repository, or give the device another role.",
    )


def _asking_for(commit: str) -> bytes:
    return f"{commit}^{{commit}}\n".encode()


def looks_corrupt(own: str) -> bool:
    """True if what our own Git says is a complaint about the repository on this device."""
    return _CORRUPT.search(own) is not None
