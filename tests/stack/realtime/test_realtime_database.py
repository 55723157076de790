"""Broadcast from the database: after commit, in its order, nothing lost; and replay of what went before."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from tests.stack.realtime.support import Endpoint, EndpointFactory, Project, Subscriber, Subscribers, send
from tests.support.patience import PATIENCE_S

CUT = "select pg_terminate_backend(pid) from pg_stat_activity where application_name like %s"


@pytest.fixture(scope="module")
def quick(endpoint: EndpointFactory) -> Endpoint:
    """An endpoint that refuses at once and moves its mark often."""
    return endpoint(feedMarkMs=50)


@pytest.fixture
def other_db(project: Project) -> Iterator[psycopg.Connection]:
    """A second connection, whose transactions overlap those of `db`."""
    with psycopg.connect(project.db_url) as connection:
        yield connection


async def test_messages_come_in_the_order_of_commit_not_of_sending(
    subscribers: Subscribers,
    db: psycopg.Connection,
    other_db: psycopg.Connection,
    topic: str,
) -> None:
    subscriber = await subscribers.join_as_service(topic)
    send(other_db, topic, "sent-first", {})
    send(other_db, topic, "sent-second", {})
    send(db, topic, "committed-first", {})
    other_db.commit()
    send(db, topic, "end", {})
    assert await subscriber.events("end") == ["committed-first", "sent-first", "sent-second"]


async def test_what_is_rolled_back_is_never_delivered(
    subscribers: Subscribers,
    db: psycopg.Connection,
    other_db: psycopg.Connection,
    topic: str,
) -> None:
    subscriber = await subscribers.join_as_service(topic)
    send(other_db, topic, "rolled-back", {})
    other_db.rollback()
    with other_db.transaction():
        send(other_db, topic, "kept", {})
        with other_db.transaction(force_rollback=True):
            send(other_db, topic, "savepoint-rolled-back", {})
    send(db, topic, "end", {})
    assert await subscriber.events("end") == ["kept"]


async def test_a_burst_arrives_complete_and_in_order(
    subscribers: Subscribers, db: psycopg.Connection, topic: str
) -> None:
    """More than one batch of what the feed reads back at once, in one transaction and in many."""
    subscriber = await subscribers.join_as_service(topic)
    db.execute("select realtime.send('{}', 'n' || n, %s) from generate_series(1, 600) n", [topic])
    with db.pipeline():
        for n in range(601, 701):
            db.execute("select realtime.send('{}', %s, %s)", [f"n{n}", topic])
    send(db, topic, "end", {})
    assert await subscriber.events("end") == [f"n{n}" for n in range(1, 701)]


async def test_what_commits_while_the_feed_is_cut_off_is_delivered_once(
    subscribers: Subscribers,
    db: psycopg.Connection,
    other_db: psycopg.Connection,
    topic: str,
) -> None:
    subscriber = await subscribers.join_as_service(topic)
    send(db, topic, "before", {})
    # The cut takes effect at once, the message at commit: nobody listens then.
    other_db.execute(CUT, ["realtime_feed"])
    send(other_db, topic, "meanwhile", {})
    other_db.commit()
    send(db, topic, "after", {})
    assert [(await subscriber.broadcast())["event"] for _ in range(3)] == ["before", "meanwhile", "after"]
    send(db, topic, "end", {})
    assert await subscriber.events("end") == []


async def test_a_transaction_that_began_before_the_mark_and_commits_in_the_cut_is_delivered(
    subscribers: Subscribers,
    quick: Endpoint,
    db: psycopg.Connection,
    other_db: psycopg.Connection,
    topic: str,
) -> None:
    """Its timestamp is older than everything the feed has seen: only visibility tells that it is new."""
    subscriber = await subscribers.join_as_service(topic, quick.url)
    send(other_db, topic, "old-transaction", {})
    db.execute("listen realtime_marks")
    for event in ("one", "two"):
        send(db, topic, event, {})
        assert (await subscriber.broadcast())["event"] == event
        # The feed forgets what is before its mark; the second one proves that the first has come back to it.
        mark = await asyncio.to_thread(lambda: next(db.notifies(timeout=PATIENCE_S, stop_after=1), None))
        assert mark is not None
    other_db.execute(CUT, ["realtime_feed"])
    other_db.commit()
    assert (await subscriber.broadcast())["event"] == "old-transaction"
    send(db, topic, "end", {})
    assert await subscriber.events("end") == []


async def test_nothing_is_lost_or_doubled_while_all_connections_are_cut_again_and_again(
    project: Project, subscribers: Subscribers, quick: Endpoint, topic: str
) -> None:
    subscriber = await subscribers.join_as_service(topic, quick.url)
    sent = 300
    seen: list[str] = []
    progress = threading.Semaphore(0)

    def work() -> None:
        with psycopg.connect(project.db_url, autocommit=True) as sender:
            for n in range(sent):
                if n % 50 == 25:
                    sender.execute(CUT, ["realtime_%"])
                send(sender, topic, f"n{n}", {})
                # A part of it has to arrive between the cuts, or all would be one catching up.
                if n % 50 == 0:
                    progress.acquire(timeout=PATIENCE_S)
            send(sender, topic, "end", {})

    working = asyncio.create_task(asyncio.to_thread(work))
    while (event := (await subscriber.broadcast())["event"]) != "end":
        seen.append(event)
        if int(event[1:]) % 50 == 0:
            progress.release()
    await working
    assert seen == [f"n{n}" for n in range(sent)]


async def test_a_join_can_ask_when_the_database_feed_is_live(
    project: Project, subscribers: Subscribers, topic: str
) -> None:
    token = project.token("service_role")
    subscriber = await subscribers(topic, token=token, replication_ready=True).join()
    async with asyncio.timeout(10):
        system = await subscriber.system.get()
    assert (system["status"], system["message"]) == ("ok", "Replication connection established")


async def replayed(subscriber: Subscriber) -> list[str]:
    """Events up to the first that is not replayed."""
    seen: list[str] = []
    while (message := await subscriber.broadcast()).get("meta", {}).get("replayed"):
        seen.append(message["event"])
    return seen


async def test_replay_gives_the_newest_since_then_oldest_first_and_marked(
    project: Project, subscribers: Subscribers, db: psycopg.Connection, topic: str
) -> None:
    send(db, topic, "too-old", {})
    row = db.execute("select (extract(epoch from clock_timestamp()) * 1000)::bigint").fetchone()
    assert row is not None
    await asyncio.to_thread(db.execute, "select pg_sleep(0.005)")
    for n in range(4):
        send(db, topic, f"n{n}", {})
    send(db, topic, "public", {}, private=False)
    token = project.token("service_role")
    every = await subscribers(topic, token=token, replay={"since": row[0]}).join()
    newest = await subscribers(topic, token=token, replay={"since": 0, "limit": 2}).join()
    send(db, topic, "live", {})
    assert await replayed(every) == ["n0", "n1", "n2", "n3"]
    assert await replayed(newest) == ["n2", "n3"]


async def test_replay_gives_no_more_than_25(
    project: Project, subscribers: Subscribers, db: psycopg.Connection, topic: str
) -> None:
    db.execute("select realtime.send('{}', 'n' || n, %s) from generate_series(1, 30) n", [topic])
    subscriber = await subscribers(
        topic, token=project.token("service_role"), replay={"since": 0, "limit": 30}
    ).join()
    send(db, topic, "live", {})
    assert await replayed(subscriber) == [f"n{n}" for n in range(6, 31)]


@pytest.mark.parametrize(
    ("join", "reason"),
    [
        ({"private": False, "replay": {"since": 0}}, "Replay is not allowed for public channels"),
        ({"replay": {"since": "yesterday"}}, "Replay params are not valid"),
        ({"replay": {"limit": 5}}, "Replay params are not valid"),
    ],
)
async def test_a_replay_that_cannot_be_is_refused(
    project: Project, subscribers: Subscribers, quick: Endpoint, join: dict[str, Any], reason: str
) -> None:
    token = project.token("service_role")
    refusal = await subscribers("test:replay", token=token, url=quick.url, **join).refusal()
    assert refusal == f"UnableToReplayMessages: {reason}"


async def test_the_partition_of_the_day_after_tomorrow_is_there(db: psycopg.Connection, topic: str) -> None:
    db.execute(
        """insert into realtime.messages (topic, extension, inserted_at)
           values (%s, 'presence', now() + interval '2 days')""",
        [topic],
    )
    db.execute("delete from realtime.messages where topic = %s", [topic])
