"""What every client relies on: QoS, retained messages, topics and filters."""

from client import Client, equal
from scenario import collector

SCENARIOS, scenario = collector()


@scenario()
def every_qos_in_and_out(run):
    """Effective QoS is the lower of the publisher's and the subscriber's. [MQTT-3.8.4-8]
    [MQTT-3.8.4-6 3.1.1] [MQTT-3.3.5-1 3.1.1]"""
    with Client(run) as publisher:
        for granted in (0, 1, 2):
            with Client(run) as subscriber:
                topic = run.name(f"t/{granted}")
                equal(subscriber.subscribe((topic, granted)), [granted], "SUBACK")
                for qos in (0, 1, 2):
                    publisher.publish(topic, f"{qos}".encode(), qos)
                    message = subscriber.receive()
                    equal(message.payload, f"{qos}".encode())
                    equal(message.qos, min(qos, granted), f"published {qos}, granted {granted}")
                    equal(message.topic, topic)
                    equal((message.retain, message.dup), (False, False))


@scenario()
def many_of_each_qos_in_order(run):
    with Client(run) as publisher, Client(run) as subscriber:
        for qos in (0, 1, 2):
            topic = run.name(f"many/{qos}")
            subscriber.subscribe((topic, qos))
            mids = [publisher.publish(topic, f"{n}".encode(), qos, wait=False) for n in range(500)]
            equal(subscriber.payloads(500), [f"{n}".encode() for n in range(500)], f"QoS {qos}")
            for mid in mids:
                publisher.published(mid)


@scenario()
def empty_payload_and_bytes(run):
    with Client(run) as client:
        topic = run.name("bytes")
        client.subscribe((topic, 1))
        for payload in (b"", bytes(range(256)), b"\x00" * 1000):
            client.publish(topic, payload, 1)
            equal(client.receive().payload, payload)


@scenario()
def retained_set_replace_clear(run):
    """[MQTT-3.3.1-5] [MQTT-3.3.1-6] [MQTT-3.3.1-7] [MQTT-3.3.1-8] [MQTT-3.3.1-9]
    [MQTT-3.3.1-6 3.1.1] [MQTT-3.3.1-8 3.1.1] [MQTT-3.3.1-10 3.1.1] [MQTT-3.3.1-11 3.1.1]"""
    topic = run.name("retained")
    with Client(run) as publisher, Client(run) as live:
        live.subscribe((topic, 1))
        publisher.publish(topic, b"old", 2, retain=True)
        publisher.publish(topic, b"new", 1, retain=True)
        publisher.publish(topic, b"passing", 1)
        equal([(live.receive().payload, live_flag) for live_flag in (0, 0, 0)],
              [(b"old", 0), (b"new", 0), (b"passing", 0)])
        with Client(run) as late:
            late.subscribe((topic, 2))
            message = late.receive("the retained message")
            equal((message.payload, message.qos, message.retain), (b"new", 1, True))
        publisher.publish(topic, b"zero", 0, retain=True)
        equal(live.receive().payload, b"zero")
        with Client(run) as late:
            late.subscribe((topic, 2))
            equal(late.receive("the QoS 0 retained message").payload, b"zero")
        publisher.publish(topic, b"", 1, retain=True)
        message = live.receive("the empty message that clears")
        equal((message.payload, bool(message.retain)), (b"", False))
        with Client(run) as late:
            late.subscribe((topic, 2))
            publisher.publish(topic, b"fence", 1)
            equal(late.until(b"fence"), [], "nothing is retained any more")


@scenario()
def retained_by_wildcard(run):
    base = run.name("many")
    with Client(run) as publisher, Client(run) as late:
        for n in range(300):
            publisher.publish(f"{base}/{n % 10}/{n}", f"{n}".encode(), 1, retain=True)
        late.subscribe((f"{base}/#", 1))
        got = {late.receive().topic for _ in range(300)}
        equal(len(got), 300, "retained topics below #")
        late.subscribe((f"{base}/+/7", 1))
        message = late.receive("the retained message of +/7")
        equal((message.payload, message.retain), (b"7", True))
        for n in range(300):
            publisher.publish(f"{base}/{n % 10}/{n}", b"", 1, retain=True)


@scenario()
def wildcards(run):
    """[MQTT-4.7.1-1] [MQTT-4.7.1-2] [MQTT-4.7.3-4] [MQTT-4.7.1-3 3.1.1]"""
    base = run.name("w")
    table = [
        (f"{base}/sport/#", ["sport", "sport/", "sport/a", "sport/a/b"], ["sports", "Sport/a"]),
        (f"{base}/+/x", ["a/x", "/x"], ["x", "a/b/x", "a/x/"]),
        (f"{base}/e/+", ["e/", "e/a"], ["e", "e/a/b"]),
        (f"{base}/+/+/#", ["a/b", "a/b/c", "//"], ["a"]),
    ]
    for filter_, match, miss in table:
        with Client(run) as publisher, Client(run) as subscriber:
            subscriber.subscribe((filter_, 1), (f"{base}/fence", 1))
            for topic in match + miss:
                publisher.publish(f"{base}/{topic}", topic.encode(), 1)
            publisher.publish(f"{base}/fence", b"fence!", 1)
            got = [message.payload.decode() for message in subscriber.until(b"fence!")]
            equal([text for text in got if text != "fence"], match, filter_)


@scenario()
def leading_slash_and_dollar(run):
    """`/a` is not `a`; a wildcard at the start matches no `$` topic. [MQTT-4.7.2-1]
    [MQTT-4.7.2-1 3.1.1]"""
    topic = run.name("lead")
    with Client(run) as client:
        client.subscribe(("+", 1), (f"/{topic}", 1))
        client.publish(f"/{topic}", b"slash", 1)
        client.publish(f"$not-sys-{topic}", b"dollar", 1)
        client.publish(topic, f"fence {topic}".encode(), 1)
        got = client.until(f"fence {topic}".encode())
        equal([m.topic for m in got if topic in m.topic], [f"/{topic}"])


@scenario()
def sys_topics(run):
    """Named as mosquitto names them."""
    names = ["version", "uptime", "clients/connected", "clients/total", "messages/received",
             "messages/sent", "bytes/received", "bytes/sent", "subscriptions/count",
             "retained messages/count"]
    with Client(run) as client, Client(run) as plain:
        plain.subscribe(("#", 0), ("+/broker/version", 0))
        client.subscribe(("$SYS/broker/#", 0))
        missing = {f"$SYS/broker/{name}" for name in names}
        while missing:
            message = client.receive(f"one of {sorted(missing)}")
            missing.discard(message.topic)
        plain.publish(run.name("x"), b"fence-sys", 0)
        seen = [m.topic for m in plain.until(b"fence-sys") if m.topic.startswith("$")]
        equal(seen, [], "# and + match no $SYS topic")


@scenario()
def overlapping_subscriptions_give_one_copy(run):
    """One copy with the highest QoS. [MQTT-3.3.4-2] [MQTT-3.3.5-1 3.1.1]

    mosquitto 2.0.11 sends one copy to a 3.1.1 client, but with the QoS of whichever filter it meets
    first, and several to a version 5 client."""
    base = run.name("o")
    with Client(run) as publisher, Client(run) as subscriber:
        subscriber.subscribe((f"{base}/#", 0), (f"{base}/+", 2), (f"{base}/a", 1))
        publisher.publish(f"{base}/a", b"once", 2)
        publisher.publish(f"{base}/a", b"fence", 2)
        got = [subscriber.receive(), subscriber.receive()]
        equal([message.payload for message in got], [b"once", b"fence"])
        equal([message.qos for message in got], [2, 2])


@scenario()
def resubscribing_replaces(run):
    """[MQTT-3.8.4-3] [MQTT-3.8.4-4] [MQTT-3.8.4-3 3.1.1]"""
    topic = run.name("again")
    with Client(run) as client:
        client.publish(topic, b"kept", 1, retain=True)
        client.subscribe((topic, 0))
        equal((client.receive().qos), 0)
        equal(client.subscribe((topic, 2)), [2])
        message = client.receive("the retained message again")
        equal((message.payload, message.qos, message.retain), (b"kept", 1, True))
        client.publish(topic, b"one copy", 2)
        client.publish(topic, b"fence", 2)
        equal([m.payload for m in client.until(b"fence")], [b"one copy"])
        client.publish(topic, b"", 1, retain=True)


@scenario()
def unsubscribing_ends_it(run):
    """[MQTT-3.10.4-2] [MQTT-3.10.4-2 3.1.1] [MQTT-3.10.4-6 3.1.1]"""
    base = run.name("u")
    with Client(run) as client:
        client.subscribe((f"{base}/a", 1), (f"{base}/+", 1), (f"{base}/fence", 1))
        codes = client.unsubscribe(f"{base}/a", f"{base}/+", f"{base}/never")
        if run.version == 5:
            equal(codes, [0, 0, 0x11], "UNSUBACK")
        client.publish(f"{base}/a", b"gone", 1)
        client.publish(f"{base}/fence", b"fence", 1)
        equal(client.until(b"fence"), [])


@scenario()
def several_filters_in_one_subscribe(run):
    """[MQTT-3.9.3-1] [MQTT-3.9.3-1 3.1.1] [MQTT-3.8.4-5 3.1.1]"""
    base = run.name("s")
    with Client(run) as client:
        asked = [(f"{base}/{n}", n % 3) for n in range(50)]
        equal(client.subscribe(*asked), [n % 3 for n in range(50)])


@scenario()
def topics_in_any_script(run):
    """A tab is a control character that a broker may refuse; mosquitto does, we take it."""
    base = run.name("ß")
    topics = ["температура/дом", "気温/東京", "درجة/الحرارة", "🚗/速度/é", "a b\tc", "\ufeffbom"]
    with Client(run) as publisher, Client(run) as subscriber:
        subscriber.subscribe((f"{base}/#", 1))
        for topic in topics:
            publisher.publish(f"{base}/{topic}", topic.encode(), 1, retain=True)
            message = subscriber.receive(topic)
            equal((message.topic, message.payload.decode()), (f"{base}/{topic}", topic))
        with Client(run) as exact:
            for topic in topics:
                exact.subscribe((f"{base}/{topic}", 1))
                equal(exact.receive(topic).payload.decode(), topic)
        for topic in topics:
            publisher.publish(f"{base}/{topic}", b"", 1, retain=True)


@scenario()
def the_longest_topic(run):
    """65,535 bytes. [MQTT-4.7.3-3] [MQTT-4.7.3-3 3.1.1]"""
    base = run.name("long") + "/"
    topic = base + "é" * ((65_535 - len(base)) // 2) + "x" * ((65_535 - len(base)) % 2)
    equal(len(topic.encode()), 65_535)
    with Client(run) as client, Client(run) as other:
        client.subscribe((base + "+", 1))
        other.subscribe((topic, 1))
        client.publish(topic, b"far", 1)
        for who in (client, other):
            message = who.receive()
            equal((message.topic == topic, message.payload), (True, b"far"))


@scenario()
def payload_of_200_kilobytes(run):
    payload = bytes(range(256)) * 800
    topic = run.name("large")
    with Client(run) as publisher, Client(run) as subscriber:
        for qos in (0, 1, 2):
            subscriber.subscribe((topic, qos))
            publisher.publish(topic, payload, qos, retain=qos == 1)
            equal(subscriber.receive().payload == payload, True, f"QoS {qos}")
        publisher.publish(topic, b"", 1, retain=True)


@scenario()
def answers_to_every_filter_syntax(run):
    """`$share` filters that lack a name or a filter are refused one by one. [MQTT-4.8.2-1]
    [MQTT-4.8.2-2] Bad filters of other kinds are tested by raw bytes: paho refuses to send them.

    mosquitto 2.0.11 grants `$share//x`."""
    if run.version != 5:
        return
    good = run.name("fine")
    with Client(run) as client:
        codes = client.subscribe((good, 1), ("$share//x", 1), (f"$share/g/{good}", 1))
        equal((codes[0], codes[1] >= 0x80, codes[2]), (1, True, 1))
