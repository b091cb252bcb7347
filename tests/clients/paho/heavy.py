"""Many clients and many messages. One after the other, so that they have the machine."""

import threading

from client import Client, equal
from scenario import collector

SCENARIOS, scenario = collector()


@scenario()
def shared_subscription_spreads_and_loses_nothing(run):
    """Each message goes to one member. [MQTT-4.8.2-3]"""
    topic, count = run.name("t"), 600
    members = [Client(run).connect() for _ in range(3)]
    alone = Client(run).connect()
    for member in members:
        equal(member.subscribe((f"$share/group/{topic}", 1)), [1])
    alone.subscribe((f"$share/other/{topic}", 1))
    with Client(run) as publisher:
        for n in range(count):
            publisher.publish(topic, f"{n}".encode(), 1)
        equal(alone.payloads(count), [f"{n}".encode() for n in range(count)], "a group of one")
        # One fence for each member, behind everything.
        for n, member in enumerate(members):
            member.subscribe((f"{topic}/{n}", 1))
            publisher.publish(f"{topic}/{n}", b"fence", 1)
        parts = [[int(m.payload) for m in member.until(b"fence")] for member in members]
    equal(sorted(sum(parts, [])), list(range(count)), "each once")
    for part in parts:
        equal(len(part) > 0, True, "every member got something")
        equal(part, sorted(part), "in order within a member")
    for member in members + [alone]:
        member.close()


@scenario()
def shared_subscription_passes_on_what_a_member_leaves(run):
    """QoS 1 that a member did not acknowledge when its session ended goes to another one.

    mosquitto 2.0.11 drops it."""
    topic = run.name("t")
    leaver = Client(run, manual_ack=True).connect()
    leaver.subscribe((f"$share/g/{topic}", 1))
    with Client(run) as publisher:
        for n in range(10):
            publisher.publish(topic, f"{n}".encode(), 1)
        for _ in range(10):
            leaver.receive()
        with Client(run) as stayer:
            stayer.subscribe((f"$share/g/{topic}", 1))
            leaver.cut()
            equal(sorted(stayer.payloads(10)), sorted(f"{n}".encode() for n in range(10)))


@scenario()
def shared_subscription_gets_no_retained(run):
    """mosquitto 2.0.11 sends it."""
    topic = run.name("t")
    with Client(run) as client:
        client.publish(topic, b"kept", 1, retain=True)
        client.subscribe((f"$share/g/{topic}", 1), (run.name("fence"), 1))
        client.publish(run.name("fence"), b"fence", 1)
        equal(client.until(b"fence"), [])
        client.publish(topic, b"", 1, retain=True)


@scenario()
def five_hundred_clients_come_and_go(run):
    topic = run.name("t")
    failures = []

    def some(lane):
        try:
            for n in range(50):
                with Client(run) as client:
                    own = f"{topic}/{lane}/{n}"
                    client.subscribe((own, 1))
                    client.publish(own, b"x", 1)
                    equal(client.receive().payload, b"x")
                    if n % 2:
                        client.cut()
        except Exception as error:
            failures.append(f"lane {lane}: {error!r}")

    with Client(run) as watcher:
        watcher.subscribe((f"{topic}/#", 0))
        lanes = [threading.Thread(target=some, args=(lane,)) for lane in range(10)]
        for lane in lanes:
            lane.start()
        for lane in lanes:
            lane.join()
        equal(failures, [])
        equal(len(watcher.payloads(500)), 500)


@scenario()
def twenty_thousand_in_order(run):
    """QoS 1 from one publisher to two subscribers. [MQTT-4.6.0-5] [MQTT-4.6.0-6]
    [MQTT-4.6.0-6 3.1.1] [MQTT-4.6.0-5 3.1.1]"""
    topic, count = run.name("t"), 20_000
    with Client(run, inflight=200) as publisher, Client(run) as one, Client(run) as two:
        one.subscribe((topic, 1))
        two.subscribe((f"{topic}/#", 0))
        # In parts that fit into the queue of a session (10,000 messages), because this publisher is
        # faster than these subscribers and the oldest would give way.
        part = 5_000
        for start in range(0, count, part):
            for n in range(start, start + part):
                last = publisher.publish(topic, f"{n}".encode(), 1, wait=False)
            expected = [f"{n}".encode() for n in range(start, start + part)]
            equal(one.payloads(part) == expected, True, "QoS 1 in order")
            equal(two.payloads(part) == expected, True, "QoS 0 in order")
            publisher.published(last)


@scenario()
def order_and_answers_between_many_pairs(run):
    """Clients on every shard ask clients on every shard; each pair keeps its order."""
    pairs, count = 16, 60
    services = [Client(run).connect() for _ in range(pairs)]
    callers = [Client(run).connect() for _ in range(pairs)]
    for n, (service, caller) in enumerate(zip(services, callers)):
        service.subscribe((run.name(f"ask/{n}"), 1))
        caller.subscribe((run.name(f"answer/{n}"), 1))
    for k in range(count):
        for n, caller in enumerate(callers):
            caller.publish(run.name(f"ask/{(n + k) % pairs}"), f"{n} {k}".encode(), 1, wait=False)
    for n, service in enumerate(services):
        for payload in service.payloads(count):
            asker = int(payload.split()[0])
            service.publish(run.name(f"answer/{asker}"), payload, 1, wait=False)
    for n, caller in enumerate(callers):
        got = caller.payloads(count)
        equal(sorted(int(p.split()[1]) for p in got), list(range(count)), f"caller {n}")
    for client in services + callers:
        client.close()


@scenario()
def one_publisher_to_subscribers_on_every_shard(run):
    topic, count = run.name("t"), 1_000
    subscribers = [Client(run).connect() for _ in range(12)]
    for n, subscriber in enumerate(subscribers):
        subscriber.subscribe((topic if n % 2 else f"{topic}/#", n % 3))
    with Client(run) as publisher:
        for n in range(count):
            publisher.publish(topic, f"{n}".encode(), 2 if n % 10 == 0 else 1, wait=False)
        for n, subscriber in enumerate(subscribers):
            got = [subscriber.receive() for _ in range(count)]
            numbers = [int(m.payload) for m in got]
            for published in (True, False):  # order holds per QoS that it was published with
                part = [k for k in numbers if (k % 10 == 0) == published]
                equal(part, sorted(part), f"subscriber {n}, QoS 2: {published}")
            equal(sorted(numbers), list(range(count)), f"subscriber {n}")
            subscriber.close()
