"""The policy written again, in Python, as docs/usage/policy.md has it. The first is in the migrations.

It knows nothing of SQL: `decide` takes facts and answers which action, which release, and which gates say no.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from uuid import UUID


@dataclass(frozen=True)
class Release:
    id: UUID
    age_days: int
    available: bool
    branch: str
    by_rollout_only: bool
    requires: int | None  # an older release of the branch that must be run before
    all_at_once: bool = False  # withdrawn, and taken back past the limits


@dataclass(frozen=True)
class Stage:
    segment: str | None
    percent: int | None
    named: bool  # names the device under test
    open: bool
    limit: int | None
    in_flight: int
    floor: int = 0


@dataclass(frozen=True)
class Rollout:
    id: UUID
    release: int
    state: str
    role: str | None
    selects_label: bool
    stages: tuple[Stage, ...]
    limit: int | None
    allow_downgrade: bool
    claim: str | None
    attempts: int
    max_attempts: int
    hours_ago: float = 0  # when it started
    came_from: int | None = None  # what the device ran before its slot
    claim_stage: int = 1
    going_back: int = 0  # devices on their way back that hold no slot of a stage


@dataclass(frozen=True)
class Halt:
    scope: str
    target: str | None
    lifted: bool
    roll_back: bool = False
    all_at_once: bool = False


@dataclass(frozen=True)
class Pattern:
    """A release is known bad, since five hours ago, for devices with all these attributes."""

    release: int
    attributes: frozenset[tuple[str, str]]
    lifted: bool


@dataclass(frozen=True)
class World:
    device: UUID
    state: str
    segment: str
    hold: bool
    hold_hours: int | None
    pinned: int | None
    pinned_hours_ago: int
    labeled: bool
    current: int | None
    releases: tuple[Release, ...]
    rollouts: tuple[Rollout, ...]  # oldest start first
    halts: tuple[Halt, ...]
    bad: frozenset[int]  # rolled back from, five hours ago
    patterns: tuple[Pattern, ...]
    hardware_model: str | None
    agent_version: str | None
    immediate: bool
    fleet_limit: int | None
    window: str | None  # "open", "shut", "never" opens
    prefetch: bool
    ignored: bool  # its window, for another hour
    begun: int | None  # the release to which it reports to be on its way
    branch: str = "main"
    role: str = "beacon"
    on_its_way_back: bool = False  # holds a slot to go back from what it runs
    others_back: int = 0  # devices on their way back that no rollout counts


@dataclass
class Answer:
    action: str
    release: UUID | None
    rollout: UUID | None
    prefetch: UUID | None
    no: set[str] = field(default_factory=set)


def bucket(release: UUID, device: UUID) -> int:
    digest = hashlib.md5(f"{release}{device}".encode(), usedforsecurity=False).hexdigest()
    return int(digest[:7], 16) % 100_000


def attributes(world: World) -> set[tuple[str, str]]:
    """What the device has, as patterns name it; what it never said matches nothing."""
    said = {
        "hardware_model": world.hardware_model, "agent_version": world.agent_version, "role": world.role,
        "segment": world.segment, "label site": "rome" if world.labeled else None,
    }  # fmt: skip
    return {(name, value) for name, value in said.items() if value is not None}


def holds(stage: Stage, world: World, release: UUID) -> bool:
    if stage.named:
        return True
    if stage.segment is not None and stage.segment != world.segment:
        return False
    # Without a percentage a stage is everybody; the one that names devices is those only.
    percent = 100 if stage.percent is None else stage.percent
    return percent > 0 and bucket(release, world.device) < max(percent * 1000, stage.floor)


def is_halted(world: World, open_halts: list[Halt], release: int, rollout: Rollout | None) -> bool:
    targets = {("release", str(world.releases[release].id))}
    if rollout is not None:
        targets.add(("rollout", str(rollout.id)))
    return any((halt.scope, halt.target) in targets for halt in open_halts)


def is_known_bad(world: World, release: int) -> bool:
    if world.pinned is not None and world.pinned_hours_ago < 5:
        return False
    matching = {p.release for p in world.patterns if not p.lifted and p.attributes <= attributes(world)}
    return release in world.bad | matching


def missing_step(world: World, release: int) -> int | None:
    """The release that must be run first; a device that runs nothing, or something as new, needs none."""
    needed = world.releases[release].requires
    if needed is None or world.current is None or world.current == release:
        return None
    step, current = world.releases[needed], world.releases[world.current]
    far_enough = current.branch == step.branch and current.age_days <= step.age_days
    return None if far_enough else needed


def newest_at_once(world: World) -> int | None:
    """What an immediate branch gives by itself."""
    if not world.immediate:
        return None
    given = [
        n for n, release in enumerate(world.releases)
        if release.available and release.branch == world.branch and not release.by_rollout_only
        and missing_step(world, n) is None
    ]  # fmt: skip
    return min(given, key=lambda n: world.releases[n].age_days, default=None)


def said_last(  # noqa: PLR0912  # one clause after the other, as the page lists them
    world: World, open_halts: list[Halt], no: set[str]
) -> tuple[Rollout | None, int, int | None]:
    """The rollout that gives the device its target, the stage, and the target.

    A rollout speaks when it starts.
    """
    for rollout in reversed(world.rollouts):
        release = world.releases[rollout.release]
        if (
            rollout.claim == "claimed" and takes(world, rollout) and release.available
            and missing_step(world, rollout.release) is None
            and (rollout.release == world.current
                 or not (is_halted(world, open_halts, rollout.release, rollout)
                         or is_known_bad(world, rollout.release)))
        ):  # fmt: skip
            return rollout, rollout.claim_stage, rollout.release
    by_branch = newest_at_once(world)
    needed: int | None = None
    noted_over = False
    for rollout in reversed(world.rollouts):
        if rollout.state == "draft" or not takes(world, rollout):
            continue
        if rollout.state == "cancelled" and rollout.release != world.current:
            continue
        over = rollout.state not in ("running", "paused")
        if over and by_branch is not None and rollout.hours_ago > world.releases[by_branch].age_days * 24:
            break
        release = world.releases[rollout.release]
        if not release.available:
            continue
        slots = [
            n for n, stage in enumerate(rollout.stages, 1)
            if stage.open and holds(stage, world, release.id)
        ]  # fmt: skip
        step = missing_step(world, rollout.release)
        if step is not None:
            no.add("stepping_stone?")
            needed = step if slots else needed
            continue
        if not slots and over and (rollout.release == needed or rollout.state == "cancelled"):
            slots = [n for n, stage in enumerate(rollout.stages, 1) if stage.open]
        elif not slots and rollout.state == "completed":
            # For everybody whom it takes, unless a stage that was never opened holds them.
            shut = any(not stage.open and holds(stage, world, release.id) for stage in rollout.stages)
            slots = [] if shut else [n for n, stage in enumerate(rollout.stages, 1) if stage.open][-1:]
        if not slots:
            if rollout.state == "superseded":
                by_branch = None
            elif not (over and noted_over):
                no.add("stage?")  # said, but does not block what is older
                noted_over = over
            continue
        if over and rollout.release != world.current:
            if is_halted(world, open_halts, rollout.release, rollout):
                no.add("release_halt?")
                by_branch = None
                continue
            if is_known_bad(world, rollout.release):
                no.add("known_bad?")
                by_branch = None
                continue
        return rollout, slots[0], rollout.release
    return None, 0, by_branch


def takes(world: World, rollout: Rollout) -> bool:
    return (
        world.releases[rollout.release].branch == world.branch
        and rollout.role in (None, world.role)
        and (world.labeled or not rollout.selects_label)
    )


@dataclass(frozen=True)
class Back:
    """A halt takes the device back, to this release if there is one."""

    to: int | None
    all_at_once: bool


def at(number: int | None) -> int:
    assert number is not None
    return number


def taken_back(world: World, open_halts: list[Halt]) -> Back | None:
    """By an open halt with roll_back, to what it ran before a rollout gave it what it runs."""
    if world.current is None:
        return None
    brought = [r for r in reversed(world.rollouts) if r.claim is not None and r.release == world.current]
    targets = {("release", str(world.releases[world.current].id)), *(("rollout", str(r.id)) for r in brought)}
    brakes = [halt for halt in open_halts if halt.roll_back and (halt.scope, halt.target) in targets]
    if not brakes:
        return None
    before = [
        r.came_from for r in brought
        if r.came_from is not None and world.releases[r.came_from].available
        and not is_halted(world, open_halts, r.came_from, None)
        and not is_known_bad(world, r.came_from) and r.came_from not in world.bad
    ]  # fmt: skip
    return Back(next(iter(before), None), any(halt.all_at_once for halt in brakes))


def in_flight(world: World) -> int:
    return world.others_back + sum(r.going_back + sum(s.in_flight for s in r.stages) for r in world.rollouts)


def no_slot_back(world: World) -> bool:
    """Are the limits reached of the rollout that brought what it runs, or of the fleet?"""
    given = [r for r in reversed(world.rollouts) if r.release == world.current and r.state != "draft"]
    brought = [r for r in reversed(world.rollouts) if r.claim is not None and r.release == world.current]
    if world.fleet_limit is not None and in_flight(world) >= world.fleet_limit:
        return True
    for rollout in [*brought, *given][:1]:
        flying = rollout.going_back + sum(stage.in_flight for stage in rollout.stages)
        if rollout.limit is not None and flying >= rollout.limit:
            return True
        if brought:
            stage = rollout.stages[rollout.claim_stage - 1]
            return stage.limit is not None and stage.in_flight >= stage.limit
    return False


def decide(world: World) -> Answer:  # noqa: PLR0912  # one gate after the other, as the page lists them
    """The policy, as docs/usage/policy.md has it."""
    no: set[str] = set()
    if world.state != "active":
        no.add("device_state")
    open_halts = [halt for halt in world.halts if not halt.lifted]
    mine = {("fleet", None), ("segment", world.segment), ("role", world.role), ("branch", world.branch)}
    if any((halt.scope, halt.target) in mine for halt in open_halts):
        no.add("halt")
    if world.hold and (world.hold_hours is None or world.hold_hours > 0):
        no.add("hold")

    going_back = None if no else taken_back(world, open_halts)
    if going_back is not None:
        if going_back.to is not None:
            stays = not world.on_its_way_back and not going_back.all_at_once and no_slot_back(world)
            return Answer(
                "run" if stays else "rollback",
                world.releases[at(world.current) if stays else going_back.to].id,
                None,
                None,
                {"roll_back_slot"} if stays else set(),
            )
        no.add("roll_back?")

    target: int | None = None
    chosen: Rollout | None = None
    position = 0
    current = None if world.current is None else world.releases[world.current]
    if world.pinned is not None:
        target = world.pinned
        if not world.releases[target].available:
            no.add("pin")
        if missing_step(world, target) is not None:
            no.add("stepping_stone")
    else:
        chosen, position, target = said_last(world, open_halts, no)
        if (
            chosen is not None
            and chosen.state == "paused"
            and chosen.claim != "claimed"
            and target != world.current
        ):
            no.add("rollout")
        if target is None:
            no.add("release")

    if target is not None and target != world.current:
        release = world.releases[target]
        if is_halted(world, open_halts, target, chosen):
            no.add("release_halt")
        if is_known_bad(world, target):
            no.add("known_bad")
        if (
            world.pinned is None and not (chosen and chosen.allow_downgrade)
            and current is not None and current.available and current.branch == release.branch
            and release.age_days > current.age_days
        ):  # fmt: skip
            no.add("downgrade")
        if (
            world.window in ("shut", "never")
            and not world.ignored
            and not (chosen and chosen.claim == "claimed" and world.begun == chosen.release)
        ):
            no.add("window")
        leads_back = (
            world.pinned is None and current is not None and not current.available
            and current.branch == release.branch and release.age_days > current.age_days
            and (chosen is None or chosen.state not in ("running", "paused"))
        )  # fmt: skip
        at_once = leads_back and current is not None and current.all_at_once
        if leads_back and not at_once and not world.on_its_way_back and no_slot_back(world):
            no.add("roll_back_slot")
        if chosen and chosen.claim != "claimed":
            stage = chosen.stages[position - 1]
            flying = chosen.going_back + sum(s.in_flight for s in chosen.stages)
            taken = not at_once and (
                (chosen.limit is not None and flying >= chosen.limit)
                or (stage.limit is not None and stage.in_flight >= stage.limit)
                or (world.fleet_limit is not None and in_flight(world) >= world.fleet_limit)
            )
            if taken or (chosen.claim in ("failed", "expired") and chosen.attempts >= chosen.max_attempts):
                no.add("slot")

    blocking = {gate for gate in no if not gate.endswith("?")}
    moves = not blocking and target is not None and target != world.current
    goes_to = target if moves else world.current
    ahead = blocking == {"window"} and world.window == "shut" and world.prefetch
    return Answer(
        "update" if moves else "run",
        None if goes_to is None else world.releases[goes_to].id,
        chosen.id if chosen else None,
        world.releases[target].id if ahead and target is not None else None,
        no,
    )
