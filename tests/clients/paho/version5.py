"""What version 5 adds: properties end to end, flow control, aliases, subscription options."""

import time

from client import Client, Refused, equal, options, properties
from scenario import collector

SCENARIOS, scenario = collector()


@scenario(5)
def properties_end_to_end(run):
    """[MQTT-3.3.2-4] [MQTT-3.3.2-15] [MQTT-3.3.2-16] [MQTT-3.3.2-17] [MQTT-3.3.2-18]
    [MQTT-3.3.2-20]"""
    topic = run.name("t")
    pairs = [("z", "1"), ("a", "2"), ("z", "1"), ("ключ", "значение"), ("", "empty")]
    sent = dict(PayloadFormatIndicator=1, ContentType="application/json; ü",
                ResponseTopic="answers/to/me", CorrelationData=bytes(range(256)),
                UserProperty=pairs)
    with Client(run) as publisher, Client(run) as live:
        live.subscribe((topic, 2))
        publisher.publish(topic, b"{}", 2, retain=True, **sent)
        with Client(run) as late:
            late.subscribe((topic, 2))
            for who in (live, late):
                got = who.receive().properties
                for name, value in sent.items():
                    equal(getattr(got, name), value, name)
                equal(hasattr(got, "MessageExpiryInterval"), False)
        publisher.publish(topic, b"", 1, retain=True)


@scenario(5)
def properties_wait_with_a_queued_message(run):
    """Behaviours 6: QoS, properties and identifiers of what waits for an offline session."""
    me, topic = run.name("me"), run.name("t")
    with Client(run, me, clean=False, expiry=600) as client:
        client.subscribe((topic, options(2, retainAsPublished=True)),
                         props=properties("SUBSCRIBE", SubscriptionIdentifier=77))
    with Client(run) as publisher:
        publisher.publish(topic, b"x", 1, retain=True, UserProperty=[("k", "v")],
                          MessageExpiryInterval=100, ContentType="c")
    with Client(run, me, clean=False, expiry=600) as again:
        message = again.receive()
        got = message.properties
        equal((message.qos, message.retain, got.UserProperty, got.ContentType,
               got.SubscriptionIdentifier), (1, True, [("k", "v")], "c", [77]))
        equal(90 <= got.MessageExpiryInterval <= 100, True)
        again.publish(topic, b"", 1, retain=True)


@scenario(5)
def expiry_counts_down(run):
    """[MQTT-3.3.2-5] [MQTT-3.3.2-6]"""
    me, topic = run.name("me"), run.name("t")
    Client(run, me, clean=False, expiry=600).connect().close()
    with Client(run, me, clean=False, expiry=600) as client:
        client.subscribe((f"{topic}/#", 1))
    with Client(run) as publisher, Client(run) as clock:
        clock.subscribe((run.name("will"), 1))
        publisher.publish(f"{topic}/short", b"too old", 1, MessageExpiryInterval=1)
        publisher.publish(f"{topic}/long", b"in time", 1, MessageExpiryInterval=50)
        publisher.publish(f"{topic}/kept", b"too old", 1, retain=True, MessageExpiryInterval=1)
        publisher.publish(f"{topic}/kept2", b"in time", 1, retain=True, MessageExpiryInterval=50)
        # Two seconds pass, as the broker's own clock has it: a will with that delay arrives.
        Client(run, expiry=600, will={
            "topic": run.name("will"), "payload": b"tick", "qos": 1,
            "properties": properties("WILLMESSAGE", WillDelayInterval=2)}).connect().cut()
        equal(clock.receive("the tick").payload, b"tick")
    with Client(run, me, clean=False, expiry=600) as again:
        again.publish(f"{topic}/fence", b"fence", 1)
        got = [(m.topic.rsplit("/", 1)[1], m.properties.MessageExpiryInterval <= 48)
               for m in again.until(b"fence")]
        equal(got, [("long", True), ("kept2", True)])
    with Client(run) as late:
        late.subscribe((f"{topic}/kept2", 1), (f"{topic}/kept", 1), (f"{topic}/fence", 1))
        message = late.receive("the retained message that is not too old")
        equal((message.payload, message.properties.MessageExpiryInterval <= 48), (b"in time", True))
        late.publish(f"{topic}/fence", b"fence", 1)
        equal(late.until(b"fence"), [])
        late.publish(f"{topic}/kept2", b"", 1, retain=True)


@scenario(5)
def subscription_identifiers(run):
    """[MQTT-3.3.4-3] [MQTT-3.3.4-4] mosquitto 2.0.11 sends a copy per subscription."""
    base = run.name("i")
    with Client(run) as client:
        client.publish(f"{base}/a", b"retained", 1, retain=True)
        for identifier, text in ((1, f"{base}/+"), (268_435_455, f"{base}/#")):
            client.subscribe((text, options(1)),
                             props=properties("SUBSCRIBE", SubscriptionIdentifier=identifier))
            message = client.receive("the retained message")
            equal(message.properties.SubscriptionIdentifier, [identifier])
        client.subscribe((f"{base}/a", options(0, retainHandling=2)))
        client.publish(f"{base}/a", b"live", 1)
        message = client.receive()
        equal((message.payload, sorted(message.properties.SubscriptionIdentifier)),
              (b"live", [1, 268_435_455]))
        # A subscription that is replaced without an identifier has none.
        client.subscribe((f"{base}/#", options(1, retainHandling=2)))
        client.publish(f"{base}/a", b"live", 1)
        equal(client.receive().properties.SubscriptionIdentifier, [1])
        client.publish(f"{base}/a", b"", 1, retain=True)


@scenario(5)
def no_local(run):
    """[MQTT-3.8.3-3]"""
    topic = run.name("t")
    with Client(run) as me, Client(run) as other:
        me.subscribe((topic, options(1, noLocal=True)), (run.name("fence"), options(1)))
        other.subscribe((topic, options(1)))
        me.publish(topic, b"mine", 1)
        equal(other.receive().payload, b"mine")
        other.publish(topic, b"theirs", 1)
        equal(me.receive().payload, b"theirs")


@scenario(5)
def no_local_on_a_shared_subscription(run):
    """A Protocol Error. [MQTT-3.8.3-4] mosquitto 2.0.11 does not look."""
    client = Client(run).connect()
    client.unless_ended(client.paho.subscribe, [(f"$share/g/{run.name('t')}", options(1, noLocal=True))])
    equal(client.ended().value, 0x82)


@scenario(5)
def retain_as_published(run):
    """[MQTT-3.3.1-12] [MQTT-3.3.1-13]"""
    topic = run.name("t")
    with Client(run) as keeps, Client(run) as clears, Client(run) as publisher:
        keeps.subscribe((topic, options(1, retainAsPublished=True)))
        clears.subscribe((topic, options(1, retainAsPublished=False)))
        for retain in (True, False):
            publisher.publish(topic, b"x", 1, retain=retain)
            equal(bool(keeps.receive().retain), retain, "as published")
            equal(bool(clears.receive().retain), False)
        publisher.publish(topic, b"", 1, retain=True)


@scenario(5)
def retain_handling(run):
    """[MQTT-3.3.1-9] [MQTT-3.3.1-10] [MQTT-3.3.1-11]"""
    topic = run.name("t")
    with Client(run) as publisher:
        publisher.publish(topic, b"kept", 1, retain=True)
        # what is asked first and how many retained messages come, what is asked then and how many
        for first, then in (((0, 1), (0, 1)), ((0, 1), (1, 0)), ((0, 1), (2, 0)), ((1, 1), (1, 0)),
                            ((1, 1), (0, 1)), ((2, 0), (1, 0)), ((2, 0), (2, 0)), ((2, 0), (0, 1))):
            with Client(run) as client:
                # A retained message may come behind the SUBACK, and one that is still to come is
                # not sent twice because its subscription was made anew: so each is waited for.
                for handling, expected in (first, then):
                    client.subscribe((topic, options(1, retainHandling=handling)))
                    client.payloads(expected)
                client.subscribe((run.name("fence"), 1))
                client.publish(run.name("fence"), b"fence", 1)
                equal(len(client.until(b"fence")), 0, f"too many for {first} then {then}")
        publisher.publish(topic, b"", 1, retain=True)


@scenario(5)
def client_receive_maximum(run):
    """[MQTT-3.3.4-9] [MQTT-3.3.4-10] [MQTT-4.9.0-2] [MQTT-4.9.0-3]"""
    topic = run.name("t")
    slow = Client(run, connect={"ReceiveMaximum": 3}, manual_ack=True).connect()
    with Client(run) as publisher:
        slow.subscribe((topic, 1), (f"{topic}/fence", 0))
        for n in range(10):
            publisher.publish(topic, f"{n}".encode(), 1)
        publisher.publish(f"{topic}/fence", b"fence", 0)
        before = slow.until(b"fence")
        equal([m.payload for m in before], [b"0", b"1", b"2"], "three are unacknowledged")
        equal(slow.subscribe((f"{topic}/more", 0)), [0], "other packets are answered")
        waiting, got = before, [m.payload for m in before]
        while waiting:
            message = waiting.pop(0)
            slow.paho.ack(message.mid, message.qos)
            if len(got) < 10:
                waiting.append(slow.receive())
                got.append(waiting[-1].payload)
        equal(got, [f"{n}".encode() for n in range(10)])
    slow.close()


@scenario(5)
def client_maximum_packet_size(run):
    """[MQTT-3.1.2-24] [MQTT-3.1.2-25]"""
    topic = run.name("t")
    with Client(run, connect={"MaximumPacketSize": 200}) as small, Client(run) as publisher:
        small.subscribe((topic, 1))
        for n in range(3):
            publisher.publish(topic, b"x" * 300, 1)
            publisher.publish(topic, f"fits {n}".encode(), 1)
        equal(small.payloads(3), [b"fits 0", b"fits 1", b"fits 2"])


@scenario(5)
def packets_over_the_brokers_limit(run):
    """0x95, whatever the limit is that CONNACK told. [MQTT-3.2.2-15]"""
    with Client(run) as watcher:
        limit = watcher.connack.MaximumPacketSize
        topic = run.name("t")
        watcher.subscribe((topic, 1))
        client = Client(run).connect()
        client.publish(topic, b"y" * (limit - 100 - len(topic)), 1)
        equal(len(watcher.receive().payload), limit - 100 - len(topic))
        client.unless_ended(client.paho.publish, topic, b"x" * limit, 1)
        equal(client.ended().value, 0x95)
        watcher.publish(topic, b"fence", 1)
        equal(watcher.until(b"fence"), [])


@scenario(5)
def topic_aliases_to_the_broker(run):
    """[MQTT-3.3.2-12] [MQTT-3.3.2-7]"""
    base = run.name("a")
    with Client(run) as watcher, Client(run) as client:
        watcher.subscribe((f"{base}/#", 1))
        maximum = client.connack.TopicAliasMaximum
        equal(maximum > 0, True)
        for round_ in range(2):
            for alias in range(1, maximum + 1):
                client.publish(f"{base}/{round_}/{alias}", b"told", 1, TopicAlias=alias)
            for alias in range(1, maximum + 1):
                client.publish("", b"used", 1, TopicAlias=alias)
            for payload in (b"told", b"used"):
                for alias in range(1, maximum + 1):
                    message = watcher.receive()
                    equal((message.topic, message.payload), (f"{base}/{round_}/{alias}", payload))
                    equal(hasattr(message.properties, "TopicAlias"), False, "not forwarded")


@scenario(5)
def topic_alias_beyond_the_maximum(run):
    """[MQTT-3.2.2-17] [MQTT-3.3.2-9]"""
    client = Client(run).connect()
    beyond = client.connack.TopicAliasMaximum + 1
    client.publish(run.name("t"), b"x", 1, wait=False, TopicAlias=beyond)
    equal(client.ended().value, 0x94)


@scenario(5)
def topic_aliases_from_the_broker(run):
    """Never above the client's maximum, and told anew on each connection. [MQTT-3.1.2-26]
    [MQTT-3.3.2-11] [MQTT-3.1.2-27]

    mosquitto 2.0.11 assigns none, which is legal; we do, for what repeats."""
    base, me = run.name("a"), run.name("me")
    with Client(run) as publisher:
        for connection in range(2):
            with Client(run, me, clean=False, expiry=60, connect={"TopicAliasMaximum": 2}) as client:
                client.subscribe((f"{base}/#", 1))
                known = {}
                for n in range(12):
                    publisher.publish(f"{base}/{n % 4}", f"{n}".encode(), 1)
                    message = client.receive()
                    alias = getattr(message.properties, "TopicAlias", None)
                    if alias is not None:
                        equal(1 <= alias <= 2, True, f"alias {alias}")
                        if message.topic:
                            known[alias] = message.topic
                    topic = message.topic or known[alias]
                    equal((topic, message.payload), (f"{base}/{n % 4}", f"{n}".encode()))
                equal(len(known), 2, f"aliases used on connection {connection}")
        with Client(run) as none:
            none.subscribe((f"{base}/#", 1))
            for _ in range(3):
                publisher.publish(f"{base}/0", b"x", 1)
                message = none.receive()
                equal((message.topic, hasattr(message.properties, "TopicAlias")),
                      (f"{base}/0", False))


@scenario(5)
def reason_codes(run):
    """0x10 for a publish that nobody subscribes to is allowed, not asked for."""
    topic = run.name("t")
    with Client(run) as client:
        for qos in (1, 2):
            equal(client.publish(topic, b"x", qos) in (0, 0x10), True)
        equal(client.unsubscribe(topic), [0x11])
        equal(client.subscribe((topic, 2)), [2])
        equal(client.unsubscribe(topic), [0])


@scenario(5)
def request_and_response(run):
    """The pattern of section 4.10, by Response Topic and Correlation Data."""
    topic = run.name("service")
    with Client(run) as service, Client(run) as caller:
        service.subscribe((topic, 1))
        caller.subscribe((run.name("answers"), 1))
        for n in range(20):
            caller.publish(topic, f"{n}".encode(), 1, ResponseTopic=run.name("answers"),
                           CorrelationData=f"id {n}".encode())
            asked = service.receive()
            service.publish(asked.properties.ResponseTopic, asked.payload * 2, 1,
                            CorrelationData=asked.properties.CorrelationData)
            answer = caller.receive()
            equal((answer.payload, answer.properties.CorrelationData),
                  (f"{n}".encode() * 2, f"id {n}".encode()))


@scenario(5)
def a_version_5_message_for_a_3_1_1_client_and_back(run):
    class Old(type(run)):
        def __init__(self):
            super().__init__(run.port, 4, run.shards, run.scenario)

    topic = run.name("t")
    with Client(run) as new, Client(Old()) as old:
        new.subscribe((topic, 1))
        old.subscribe((topic, 1))
        new.publish(topic, b"from 5", 1, UserProperty=[("a", "b")], MessageExpiryInterval=9)
        for who in (new, old):
            equal(who.receive().payload, b"from 5")
        old.publish(topic, b"from 3.1.1", 1)
        for who in (new, old):
            equal(who.receive().payload, b"from 3.1.1")


@scenario(5)
def credentials_are_taken(run):
    """User name and password with any bytes are well-formed; everybody is let in yet."""
    for user in (("user", "password"), ("ü", ""), ("only name", None)):
        Client(run, user=user).connect().close()


@scenario(5)
def malformed_client_settings(run):
    """Receive Maximum 0 is a Protocol Error."""
    client = Client(run)
    made = properties("CONNECT")
    try:
        made.ReceiveMaximum = 0
    except Exception:
        return  # paho will not send it; the raw tests do
    client.connect_properties = {"ReceiveMaximum": 0}
    try:
        client.connect()
    except Refused as refused:
        equal(refused.code, 0x82)
    else:
        raise AssertionError("Receive Maximum 0 was accepted")


@scenario(5)
def session_expiry_is_told_apart_by_time(run):
    """A session of two seconds is there after one and gone after three. [MQTT-4.1.0-2]"""
    me = run.name("me")
    Client(run, me, expiry=2).connect().close()
    closed = time.monotonic()
    with Client(run, me, clean=False, expiry=2) as soon:
        if time.monotonic() - closed < 1.5:
            equal(soon.session_present, True, "within two seconds")
    with Client(run) as clock:
        clock.subscribe((run.name("will"), 1))
        Client(run, expiry=600, will={
            "topic": run.name("will"), "payload": b"tick", "qos": 1,
            "properties": properties("WILLMESSAGE", WillDelayInterval=4)}).connect().cut()
        clock.receive("the tick")
    with Client(run, me, clean=False) as late:
        equal(late.session_present, False, "after two seconds")
