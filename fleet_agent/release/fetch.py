"""Bring one commit here, with the files of one role only; only what is new crosses the network.

First choice: exactly the commit (depth 1, folders without file contents), then the contents of the role's
missing files in batches. A host that refuses single files sends the commit whole; one that refuses single
commits sends its branches, deepened until the commit is among them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from loguru import logger

from fleet_agent.errors import FleetError, Kind, ReleaseError, disk_full
from fleet_agent.model import Progress
from fleet_agent.release.fetch_errors import (
    NotThereError,
    RedirectedError,
    WantRefusedError,
    failure,
    refused_redirect,
)
from fleet_agent.release.git_command import GitCrashedError, check_url, protocol, without_secrets
from fleet_agent.release.limits import DEFAULTS, Limits, free_bytes, need_space, too_large
from fleet_agent.release.redirects import redirected
from fleet_agent.release.repository import CorruptError, Repository, check_names
from fleet_agent.support import retry
from fleet_agent.support.sizes import MIB

Report = Callable[[Progress], None]
Sleep = Callable[[float], None]
PHASE = "fetch"
#: What Git writes beside a pack: its index, of at most so many bytes (more objects do not fit its memory).
_INDEX_SIZE = 56 * MIB
_BLOCK = 4096
_REDIRECTS = 5
#: How far a branch is deepened when the host does not hand out the commit itself; 0 is all of it.
_DEPTHS = (1, 50, 1000, 0)


@dataclass(frozen=True)
class FetchResult:
    """`bytes_fetched` counts the packs that came over the network: 0 when all was here already."""

    bytes_fetched: int


def fetch(
    repository: Path,
    url: str,
    commit: str,
    role: str,
    report: Report = lambda _: None,
    *,
    branch: str | None = None,
    limits: Limits = DEFAULTS,
    sleep: Sleep = time.sleep,
) -> FetchResult:
    """Have `commit` and its files of `role` in `repository`.

    `branch` is where a host that refuses single commits is asked for it; without it, every branch. Broken
    connections are retried, and what arrived is kept; a corrupt repository is recreated, once.

    Raises ReleaseError: `git_unreachable` and `timed_out` (retryable), `clock_wrong`, `git_refused`,
    `commit_missing`, `role_missing`, `release_too_large`, `disk_full`, `config_invalid`, `tool_missing`;
    StateError if the folder cannot be written.
    """
    check_names(commit, role)
    check_url(url)
    need_space(repository, 0, limits.min_free, "to fetch a release")
    job = _Fetch(
        Repository(repository, memory=limits.memory), url, commit, role,
        branch=branch, limits=limits, report=report, sleep=sleep,
    )  # fmt: skip
    try:
        _run(job)
    except CorruptError as error:
        logger.warning("the release repository is corrupt; recreating it: {error}", error=error)
        job.repository.wipe()
        try:
            _run(job)
        except CorruptError as again:
            raise ReleaseError(
                Kind.GIT_UNREACHABLE,
                f"The release {commit[:12]} cannot be read although it was fetched.",
                hint="If this persists, check the disk.",
                retryable=True,
                evidence={"git": str(again)},
            ) from again
    return FetchResult(job.bytes_fetched)


def _run(job: _Fetch) -> None:
    try:
        job.run()
    except GitCrashedError as error:
        raise CorruptError(error.message) from error
    except FleetError as error:
        if error.kind is Kind.DISK_FULL:
            # Git leaves what it could not finish, and there would be no room for anything else.
            job.repository.clean_up()
        raise


@dataclass
class _Fetch:
    repository: Repository
    url: str
    commit: str
    role: str
    branch: str | None
    limits: Limits
    report: Report
    sleep: Sleep
    bytes_fetched: int = 0
    #: Bytes in the repository before anything came.
    size_before: int = 0
    #: Where `url` was redirected to, each time further.
    redirects: list[str] = field(default_factory=list)

    def run(self) -> None:
        repository, commit, role = self.repository, self.commit, self.role
        single_files = not repository.partial_refused(self.url)
        self._prepare(single_files=single_files)
        if repository.size() > self.limits.fetch_size:
            logger.warning("the release repository holds more than a fetch may bring; recreating it")
            self._start_again(single_files=single_files)
        self.size_before = repository.size()
        if not repository.has_commit(commit):
            self._fetch_commit(single_files=single_files)
        trees = repository.trees(commit, role)
        if missing := repository.missing(trees):
            try:
                self._fetch_files(missing)
            except WantRefusedError:
                self._start_whole()
                self._fetch_commit(single_files=False)
            if repository.missing(trees):
                raise CorruptError("files are still missing after the fetch")
        repository.keep(commit)

    def _fetch_commit(self, *, single_files: bool) -> None:
        self._say("requesting the release")
        shape = ["--filter=blob:none"] if single_files else []
        try:
            self._retrying(lambda: self._network("--depth=1", *shape, "origin", self.commit))
        except NotThereError as error:
            raise self._commit_missing() from error
        except WantRefusedError:
            self._fetch_branches(shape)
        if not self.repository.has_commit(self.commit):
            raise CorruptError("the commit is not here after its fetch")

    def _fetch_files(self, missing: list[str]) -> None:
        total = len(missing)
        size = self.limits.batch_files

        def next_batch() -> None:
            nonlocal size, missing
            batch = missing[:size]
            before = total - len(missing)
            try:
                self._network(
                    "--filter=blob:none", "--stdin", "origin",
                    stdin="".join(f"{blob}\n" for blob in batch).encode(),
                    files=(before, len(batch), total),
                )  # fmt: skip
            except ReleaseError:
                size = max(1, size // 4)
                raise
            missing = missing[len(batch) :]

        while missing:
            self._retrying(next_batch)

    def _fetch_branches(self, shape: list[str]) -> None:
        """The slow way: branches, deeper and deeper, until the commit is among what came."""
        source = f"refs/heads/{self.branch}" if self.branch else "refs/heads/*"
        target = f"refs/fleet/branches/{self.branch or '*'}"
        for depth in _DEPTHS:
            self._say("requesting the branch" if depth == 1 else "requesting older releases")
            if not depth and not (self.repository.folder / "shallow").exists():
                break
            deepen = f"--depth={depth}" if depth else "--unshallow"
            fetch_it = partial(self._network, deepen, *shape, "origin", f"+{source}:{target}")
            try:
                self._retrying(fetch_it)
            except NotThereError as error:
                raise self._commit_missing() from error
            if self.repository.has_commit(self.commit):
                return
        raise self._commit_missing()

    def _start_whole(self) -> None:
        """A repository marked as partial would fetch its gaps by id, which this host refuses."""
        logger.info("the Git host does not serve single objects; fetching whole commits")
        self._start_again(single_files=False)

    def _start_again(self, *, single_files: bool) -> None:
        self.repository.wipe()
        if not single_files:
            self.repository.remember_partial_refused(self.url)
        self._prepare(single_files=single_files)
        self.size_before = self.repository.size()

    @property
    def _address(self) -> str:
        return self.redirects[-1] if self.redirects else self.url

    def _prepare(self, *, single_files: bool) -> None:
        self.repository.prepare(self._address, self.commit, partial=single_files)

    def _network(
        self, *arguments: str, stdin: bytes = b"", files: tuple[int, int, int] | None = None
    ) -> None:
        while True:
            try:
                self._transfer(*arguments, stdin=stdin, files=files)
                return
            except RedirectedError as error:
                place = redirected(self._address) if len(self.redirects) < _REDIRECTS else None
                if place is None:
                    raise refused_redirect(str(error), self._address) from error
                self.redirects.append(place)
                self._prepare(single_files=not self.repository.partial_refused(self.url))

    def _transfer(
        self, *arguments: str, stdin: bytes = b"", files: tuple[int, int, int] | None = None
    ) -> None:
        repository, limits = self.repository, self.limits
        room, ends_with = self._room()
        file_size = room - min(room // 4, _INDEX_SIZE)
        before = repository.held()
        # No negotiation for single files: they are wanted whatever else is here.
        quiet = ("-c", "fetch.negotiationAlgorithm=noop") if stdin else ()
        transfer = repository.git.network(
            *quiet, "fetch", "--progress", "--no-tags", "--no-write-fetch-head", "--no-auto-maintenance",
            *arguments,
            transport=protocol(self._address),
            stdin=stdin,
            idle_s=limits.idle_s,
            total_s=limits.total_s,
            on_progress=lambda detail, percent: self._say(detail, percent, files),
            file_size=file_size,
            overrun=self._overrun,
        )  # fmt: skip
        self.bytes_fetched += transfer.received_bytes
        if transfer.status != 0 or transfer.timed_out or transfer.overrun is not None:
            # Git does not say that a file was too large: its writer is killed.
            if transfer.overrun is None and repository.largest_since(before) >= file_size - _BLOCK:
                transfer.overrun = ends_with
            repository.forget_since(before)
            raise failure(transfer, self.url, memory=limits.memory)

    def _room(self) -> tuple[int, Exception]:
        """How many bytes may come now, and the error if there are more. Raises ReleaseError if none may."""
        free = free_bytes(self.repository.folder) - self.limits.min_free
        left = self.limits.fetch_size - (self.repository.size() - self.size_before)
        need_space(self.repository.folder, 0, self.limits.min_free, "to fetch a release")
        if (over := self._overrun()) is not None:
            raise over
        return min(free, left), self._no_space() if free < left else self._too_much()

    def _overrun(self) -> Exception | None:
        """Why nothing more may come. Asked while data flows."""
        if free_bytes(self.repository.folder) < self.limits.min_free:
            return self._no_space()
        if self.repository.size() - self.size_before >= self.limits.fetch_size:
            return self._too_much()
        return None

    def _no_space(self) -> Exception:
        kept = self.limits.min_free // MIB
        why = f"{kept} MiB must stay free while a release is fetched"
        return disk_full(
            why if kept else "the disk filled up while a release was fetched", error=ReleaseError
        )

    def _too_much(self) -> Exception:
        limit = self.limits.fetch_size // MIB
        return too_large(f"the Git host sends more than {limit} MiB for it")

    def _retrying(self, step: Callable[[], None]) -> None:
        limits = self.limits
        policy = replace(
            retry.FETCH, attempts=limits.attempts, base_s=limits.backoff_s, cap_s=limits.backoff_cap_s
        )
        retry.transfer(policy, step, sleep=self.sleep)

    def _say(
        self, detail: str, percent: float | None = None, files: tuple[int, int, int] | None = None
    ) -> None:
        if files is not None:
            before, batch, total = files
            done = before + int(batch * (percent or 0) / 100)
            detail, percent = f"{detail} (file {min(done + 1, total)} of {total})", 100 * done / total
        self.report(Progress(phase=PHASE, detail=detail, percent=percent))

    def _commit_missing(self) -> ReleaseError:
        where = f"branch {self.branch} of " if self.branch else ""
        return ReleaseError(
            Kind.COMMIT_MISSING,
            f"Commit {self.commit[:12]} is not in {where}{without_secrets(self.url)}.",
            hint="Push the commit, or withdraw the release.",
        )
