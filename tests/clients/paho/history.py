"""History streams: `$history/RANGE/FILTER`. The broker keeps `+/kept/#`; other brokers have nothing of the kind."""

import threading
from datetime import datetime, timedelta, timezone

from client import Client, equal
from scenario import collector

SCENARIOS, scenario = collector()


def numbers(messages):
    return [int(bytes(message.payload)) for message in messages]


@scenario()
def what_was_kept_comes_again(run):
    """In order, with its topic and QoS, without RETAIN, and told when it was received."""
    topic = run.name("t") + "/kept"
    before = datetime.now(timezone.utc)
    with Client(run) as publisher:
        for n in range(300):
            publisher.publish(f"{topic}/{n % 3}", f"{n}".encode(), n % 3, retain=n == 299)
        with Client(run) as late:
            equal(late.subscribe((f"$history/-1h/{topic}/+", 1)), [1])
            got = [late.receive() for _ in range(300)]
            equal(numbers(got), list(range(300)))
            equal([m.topic for m in got], [f"{topic}/{n % 3}" for n in range(300)])
            equal([m.qos for m in got], [min(n % 3, 1) for n in range(300)])
            equal(any(m.retain for m in got), False)
            if run.version == 5:
                times = [dict(m.properties.UserProperty)["received-at"] for m in got]
                equal(times, sorted(times), "in the order of time")
                first = datetime.fromisoformat(times[0].replace("Z", "+00:00"))
                equal(abs(first - before) < timedelta(seconds=60), True, times[0])
            # It is over: what comes now is not its business.
            publisher.publish(f"{topic}/0", b"later", 1)
            late.subscribe((run.name("fence"), 1))
            late.publish(run.name("fence"), b"fence", 1)
            equal(late.until(b"fence"), [])
            # Of one topic, and from a time on.
            equal(late.subscribe((f"$history/{times[150] if run.version == 5 else '-1h'}/{topic}/1", 0)), [0])
            wanted = [n for n in range(150 if run.version == 5 else 0, 300) if n % 3 == 1]
            equal(numbers(late.receive() for _ in wanted), wanted)
        publisher.publish(f"{topic}/2", b"", 1, retain=True)


def publish_all(run, topic, vehicle, count):
    with Client(run) as publisher:
        for n in range(count):
            publisher.publish(f"{topic}/{vehicle}", f"{n}".encode(), 1, wait=n % 20 == 19)


@scenario()
def live_goes_on_without_gap_or_duplicate(run):
    """Vehicles publish while subscribers come, each of which gets all of it once and in order."""
    topic, count = run.name("t") + "/kept", 1_500
    vehicles = [threading.Thread(target=publish_all, args=(run, topic, v, count)) for v in range(4)]
    with Client(run) as first, Client(run) as second, Client(run) as third:
        clients = [(first, 0), (second, 1), (third, 2)]
        for vehicle in vehicles:
            vehicle.start()
        for n, (client, qos) in enumerate(clients):
            client.subscribe((f"$history/-1h../{topic}/+", qos))
            if n < 2:
                for _ in range(50):
                    client.receive()  # the next one comes later
                client.unsubscribe(f"$history/-1h../{topic}/+")
                while not client.messages.empty():
                    client.messages.get()
                client.subscribe((run.name(f"fence{n}"), 1))
                client.publish(run.name(f"fence{n}"), b"fence", 1)
                client.until(b"fence")
                client.subscribe((f"$history/-1h../{topic}/+", qos))
        for client, _ in clients:
            last = dict.fromkeys(range(4), -1)
            for _ in range(4 * count):
                message = client.receive(f"a message after {last}")
                vehicle, n = int(message.topic[-1]), int(message.payload)
                equal(n, last[vehicle] + 1, f"vehicle {vehicle}")
                last[vehicle] = n
        for vehicle in vehicles:
            vehicle.join()
        # Nothing comes twice, and what comes now comes at once.
        with Client(run) as publisher:
            publisher.publish(f"{topic}/0", b"fence", 1)
        for client, _ in clients:
            equal(client.until(b"fence"), [])


@scenario()
def what_cannot_be_had_is_refused(run):
    failure = 0x80 if run.version == 4 else 0x8F
    with Client(run) as client:
        topic = run.name("t") + "/kept"
        for text in (f"$history/-1h/{run.name('t')}/other", f"$history/soon/{topic}", "$history/-1h",
                     f"$share/g/$history/-1h/{topic}"):
            equal(client.subscribe((text, 1)), [failure], text)
        equal(client.subscribe((f"$history/-1h/{topic}", 2), ("$history/-1h/x", 0)), [2, failure])


@scenario()
def a_slow_reader_gets_everything(run):
    """One acknowledgement at a time."""
    topic, count = run.name("t") + "/kept/slow", 400
    with Client(run) as publisher:
        for n in range(count):
            publisher.publish(topic, f"{n}".encode(), 2, wait=n % 50 == 49)
    extra = {"ReceiveMaximum": 1} if run.version == 5 else {}
    with Client(run, connect=extra, manual_ack=True) as slow:
        slow.subscribe((f"$history/-1h/{topic}", 1))
        for n in range(count):
            message = slow.receive()
            equal(bytes(message.payload), f"{n}".encode())
            slow.paho.ack(message.mid, message.qos)
