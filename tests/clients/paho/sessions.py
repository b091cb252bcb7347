"""What outlives a connection: sessions, in-flight messages, wills; and what ends one."""

import time

from client import WAIT, Client, Refused, equal, properties
from scenario import collector

SCENARIOS, scenario = collector()
NEVER = 0xFFFFFFFF


@scenario()
def offline_messages_wait_in_order(run):
    """QoS 1 and 2 wait for a session that lasts. [MQTT-3.1.2-5] [MQTT-3.1.2-23] [MQTT-4.5.0-1]
    [MQTT-3.1.2-5 3.1.1] [MQTT-3.1.2-4 3.1.1] [MQTT-3.2.2-2 3.1.1]"""
    me, topic = run.name("me"), run.name("t")
    with Client(run, me, clean=False, expiry=600) as first:
        equal(first.session_present, False)
        first.subscribe((topic, 2), (run.name("other"), 1))
    with Client(run) as publisher:
        for n in range(200):
            publisher.publish(topic, f"{n}".encode(), 1 + n % 2)
    with Client(run, me, clean=False, expiry=600) as again:
        equal(again.session_present, True)
        got = [again.receive() for _ in range(200)]
        for qos in (1, 2):
            equal([m.payload for m in got if m.qos == qos],
                  [f"{n}".encode() for n in range(200) if 1 + n % 2 == qos], f"QoS {qos}")
        equal([m.dup for m in got], [False] * 200, "never sent before")
        again.publish(run.name("other"), b"live", 1)
        equal(again.receive().payload, b"live")


@scenario()
def clean_start_discards_everything(run):
    """[MQTT-3.1.2-4] [MQTT-3.2.2-2] [MQTT-3.1.2-6 3.1.1] [MQTT-3.2.2-1 3.1.1]"""
    me, topic = run.name("me"), run.name("t")
    with Client(run, me, clean=False, expiry=600) as first:
        first.subscribe((topic, 1))
    with Client(run) as publisher:
        publisher.publish(topic, b"discarded", 1)
        with Client(run, me, clean=True, expiry=600) as clean:
            equal(clean.session_present, False)
            publisher.publish(topic, b"not subscribed", 1)
            clean.subscribe((run.name("fence"), 1))
            clean.publish(run.name("fence"), b"fence", 1)
            equal(clean.until(b"fence"), [])


@scenario()
def a_session_that_does_not_last(run):
    """CleanSession 1, or Session Expiry Interval 0, ends with its connection. [MQTT-4.1.0-2]"""
    me, topic = run.name("me"), run.name("t")
    with Client(run, me, clean=True) as first:
        first.subscribe((topic, 1))
    with Client(run) as publisher:
        publisher.publish(topic, b"lost", 1)
    with Client(run, me, clean=False, expiry=0) as again:
        equal(again.session_present, False, "Session Present")
        again.subscribe((run.name("fence"), 1))
        again.publish(run.name("fence"), b"fence", 1)
        equal(again.until(b"fence"), [])


@scenario()
def unacknowledged_messages_are_sent_again(run):
    """In order, with DUP and before new ones. [MQTT-4.4.0-1] [MQTT-4.6.0-1] [MQTT-3.3.1-1]
    [MQTT-4.4.0-1 3.1.1] [MQTT-4.6.0-1 3.1.1] [MQTT-3.3.1-1 3.1.1]"""
    me, topic = run.name("me"), run.name("t")
    first = Client(run, me, clean=False, expiry=600, manual_ack=True).connect()
    first.subscribe((topic, 1))
    with Client(run) as publisher:
        for n in range(5):
            publisher.publish(topic, f"{n}".encode(), 1)
        sent = [first.receive() for _ in range(5)]
        equal([m.dup for m in sent], [False] * 5)
        first.cut()
        for n in range(5, 8):
            publisher.publish(topic, f"{n}".encode(), 1)
    with Client(run, me, clean=False, expiry=600) as again:
        equal(again.session_present, True)
        got = [again.receive() for _ in range(8)]
        equal([m.payload for m in got], [f"{n}".encode() for n in range(8)])
        # The broker may have sent one more before it saw the end of the first connection.
        dup = [bool(m.dup) for m in got]
        equal((dup[:5], dup), ([True] * 5, sorted(dup, reverse=True)), "DUP")
        equal([m.mid for m in got[:5]], [m.mid for m in sent], "packet identifiers")


@scenario()
def takeover_by_the_same_client_id(run):
    """[MQTT-3.1.4-3] [MQTT-3.1.4-2 3.1.1] mosquitto 2.0.11 closes without 0x8E."""
    me, topic = run.name("me"), run.name("t")
    for round_ in range(10):
        old = Client(run, me, clean=False, expiry=600).connect()
        old.subscribe((topic, 1))
        with Client(run, me, clean=False, expiry=600) as new:
            reason = old.ended()
            if run.version == 5:
                equal(reason.value, 0x8E, "session taken over")
            equal(new.session_present, True)
            with Client(run) as publisher:
                publisher.publish(topic, f"{round_}".encode(), 1)
            equal(new.receive().payload, f"{round_}".encode())
        old.paho.loop_stop()


@scenario()
def racing_for_one_client_id(run):
    """Whoever connects last owns the session; everybody else is told."""
    me, topic = run.name("me"), run.name("t")
    clients = [Client(run, me, clean=False, expiry=600) for _ in range(12)]
    for client in clients:
        client.connect()
    for client in clients[:-1]:
        reason = client.ended()
        if run.version == 5:
            equal(reason.value, 0x8E)
        client.paho.loop_stop()
    owner = clients[-1]
    owner.subscribe((topic, 1))
    owner.publish(topic, b"mine", 1)
    equal(owner.receive().payload, b"mine")
    owner.close()


def _will(run, qos=1, retain=False, payload=b"gone", **more):
    made = {"topic": run.name("will"), "payload": payload, "qos": qos, "retain": retain}
    if more:
            made["properties"] = properties("WILLMESSAGE", **more)
    return made


@scenario()
def will_after_a_cut(run):
    """[MQTT-3.1.2-8] [MQTT-3.1.2-14] [MQTT-3.1.2-8 3.1.1] [MQTT-3.1.2-16 3.1.1]"""
    with Client(run) as watcher:
        watcher.subscribe((run.name("will"), 2))
        for qos in (0, 1, 2):
            Client(run, will=_will(run, qos, payload=f"{qos}".encode())).connect().cut()
            message = watcher.receive("the will")
            equal((message.payload, message.qos, bool(message.retain)),
                  (f"{qos}".encode(), qos, False))
        with Client(run) as late:
            late.subscribe((run.name("will"), 2))
            watcher.publish(run.name("will"), b"fence", 1)
            equal(late.until(b"fence"), [], "no will was retained")


@scenario()
def no_will_after_disconnect(run):
    """[MQTT-3.14.4-3] [MQTT-3.1.2-10] [MQTT-3.14.4-3 3.1.1] [MQTT-3.1.2-10 3.1.1]"""
    with Client(run) as watcher:
        watcher.subscribe((run.name("will"), 1))
        with Client(run, will=_will(run)):
            pass
        Client(run, will=_will(run, payload=b"fence")).connect().cut()
        equal(watcher.until(b"fence"), [])


@scenario()
def retained_will_is_a_death_certificate(run):
    """[MQTT-3.1.2-15] [MQTT-3.1.2-17 3.1.1]"""
    topic = run.name("will")
    with Client(run) as watcher:
        device = Client(run, will=_will(run, retain=True, payload=b"offline")).connect()
        device.publish(topic, b"online", 1, retain=True)
        watcher.subscribe((topic, 1))
        equal(watcher.receive().payload, b"online")
        device.cut()
        equal(watcher.receive("the will").payload, b"offline")
        with Client(run) as late:
            late.subscribe((topic, 1))
            message = late.receive("the retained will")
            equal((message.payload, message.retain), (b"offline", True))
        watcher.publish(topic, b"", 1, retain=True)


@scenario()
def will_on_takeover(run):
    """The network connection was closed by the server, so the will is due. [MQTT-3.1.2-8]"""
    me = run.name("me")
    with Client(run) as watcher:
        watcher.subscribe((run.name("will"), 1))
        old = Client(run, me, will=_will(run)).connect()
        with Client(run, me):
            old.ended()
            equal(watcher.receive("the will").payload, b"gone")
        old.paho.loop_stop()


@scenario(5)
def disconnect_with_will_message(run):
    """DISCONNECT 0x04 leaves the will in force. [MQTT-3.1.2-8]"""
    with Client(run) as watcher:
        watcher.subscribe((run.name("will"), 1))
        Client(run, will=_will(run)).connect().close(reason=0x04)
        equal(watcher.receive("the will").payload, b"gone")


@scenario(5)
def will_delay(run):
    """Not before the delay is over. [MQTT-3.1.2-8] [MQTT-3.1.3-9]"""
    with Client(run) as watcher:
        watcher.subscribe((run.name("will"), 1))
        client = Client(run, expiry=600, will=_will(run, WillDelayInterval=2)).connect()
        client.cut()
        cut_at = time.monotonic()
        equal(watcher.receive("the will").payload, b"gone")
        waited = time.monotonic() - cut_at
        # The cut is seen by the broker a little before this side has noticed it.
        equal(waited > 1.9, True, f"the will came after {waited:.2f} s instead of 2")


@scenario(5)
def will_delay_is_cut_short_by_the_sessions_end(run):
    """[MQTT-3.1.2-8] mosquitto 2.0.11 publishes no will when a session expires."""
    with Client(run) as watcher:
        watcher.subscribe((run.name("will"), 1))
        Client(run, expiry=1, will=_will(run, WillDelayInterval=3600)).connect().cut()
        equal(watcher.receive("the will").payload, b"gone")
        Client(run, expiry=0, will=_will(run, WillDelayInterval=3600)).connect().cut()
        equal(watcher.receive("the will").payload, b"gone")


@scenario(5)
def will_delay_is_cancelled_by_a_resume(run):
    """[MQTT-3.1.3-9]"""
    me = run.name("me")
    with Client(run) as watcher:
        watcher.subscribe((run.name("will"), 1))
        Client(run, me, expiry=600, will=_will(run, WillDelayInterval=1, payload=b"too early")) \
            .connect().cut()
        with Client(run, me, clean=False, expiry=600) as again:
            equal(again.session_present, True)
            # A later will with the same delay proves that the first one's time has passed.
            Client(run, expiry=600, will=_will(run, WillDelayInterval=1, payload=b"fence")) \
                .connect().cut()
            equal(watcher.until(b"fence"), [])


@scenario(5)
def will_properties(run):
    """[MQTT-3.1.3-10] [MQTT-3.1.2-7]"""
    pairs = [("b", "2"), ("a", "1"), ("b", "2"), ("", "")]
    with Client(run) as watcher:
        watcher.subscribe((run.name("will"), 1))
        Client(run, will=_will(run, UserProperty=pairs, ContentType="text/plain",
                               ResponseTopic="re/ply", CorrelationData=b"\x00\xff",
                               PayloadFormatIndicator=1, MessageExpiryInterval=100)) \
            .connect().cut()
        got = watcher.receive("the will").properties
        equal(got.UserProperty, pairs)
        equal((got.ContentType, got.ResponseTopic, got.CorrelationData,
               got.PayloadFormatIndicator), ("text/plain", "re/ply", b"\x00\xff", 1))
        equal(95 <= got.MessageExpiryInterval <= 100, True, "expiry is counted down")


@scenario()
def keep_alive_timeout(run):
    """1.5 times the interval of silence; the will follows. [MQTT-3.1.2-22]
    [MQTT-3.1.2-24 3.1.1] mosquitto 2.0.11 closes without 0x8D."""
    with Client(run) as watcher:
        watcher.subscribe((run.name("will"), 1))
        # paho sends PINGREQ by itself; a client that hangs is one whose loop does not run.
        silent = Client(run, keepalive=1, will=_will(run)).connect()
        silent.paho.loop_stop()
        since = time.monotonic()
        equal(watcher.receive("the will of the silent client").payload, b"gone")
        waited = time.monotonic() - since
        equal(0.9 < waited < 10, True, f"closed after {waited:.2f} s")
        if run.version == 5:
            silent.paho.loop_start()
            equal(silent.ended().value, 0x8D, "keep-alive timeout")
            silent.paho.loop_stop()


@scenario()
def pings_keep_it_alive(run):
    topic = run.name("t")
    with Client(run, keepalive=1) as quiet, Client(run) as other:
        quiet.subscribe((topic, 1))
        # Three intervals pass while another client's keep-alive runs out three times.
        for _ in range(2):
            silent = Client(run, keepalive=1).connect()
            silent.paho.loop_stop()
            _wait_closed(silent)
        other.publish(topic, b"still here", 1)
        equal(quiet.receive().payload, b"still here")


def _wait_closed(client):
    """Reads the socket of a client whose loop has stopped until the broker closes it."""
    sock = client.socket()
    sock.settimeout(WAIT)
    try:
        while sock.recv(100):
            pass
    except (BlockingIOError, ConnectionResetError):
        pass


@scenario()
def client_ids(run):
    """[MQTT-3.1.3-5] [MQTT-3.1.3-6] [MQTT-3.1.3-7] [MQTT-3.2.2-16] [MQTT-3.1.3-5 3.1.1]
    [MQTT-3.1.3-6 3.1.1] [MQTT-3.1.3-8 3.1.1]"""
    for client_id in ("0", "abcdefghijklmnopqrstuvw", "ABCDEFGHIJKLMNOPQRSTUVW", "9" * 23):
        Client(run, client_id).connect().close()
    if run.version == 5:
        assigned = set()
        clients = [Client(run, "").connect() for _ in range(20)]
        for client in clients:
            assigned.add(client.connack.AssignedClientIdentifier)
        equal(len(assigned), 20, "assigned identifiers are unique")
        for client in clients:
            client.close()
    else:
        clients = [Client(run, "").connect() for _ in range(20)]
        for n, client in enumerate(clients):
            client.subscribe((run.name(f"{n}"), 1))
            client.publish(run.name(f"{n}"), b"own", 1)
            equal(client.receive().payload, b"own")
            client.close()


@scenario(5)
def session_expiry(run):
    """[MQTT-3.1.2-23] [MQTT-4.1.0-2]"""
    short, changed, forever = run.name("short"), run.name("changed"), run.name("forever")
    Client(run, short, expiry=1).connect().cut()
    Client(run, changed, expiry=600).connect().close(
        reason=0, props=properties("DISCONNECT", SessionExpiryInterval=0))
    Client(run, forever, expiry=NEVER).connect().close()
    with Client(run) as watcher:
        # The end of another session of one second, told by its will, is the clock here.
        watcher.subscribe((run.name("will"), 1))
        Client(run, expiry=1, will=_will(run, WillDelayInterval=100)).connect().cut()
        watcher.receive("the will at the session's end")
    for client_id, present in ((short, False), (changed, False), (forever, True)):
        with Client(run, client_id, clean=False) as again:
            equal(again.session_present, present, client_id)


@scenario(5)
def session_expiry_cannot_be_raised_from_zero(run):
    """A Protocol Error."""
    with Client(run) as watcher:
        watcher.subscribe((run.name("will"), 1))
        client = Client(run, expiry=0, will=_will(run)).connect()
        client.close(reason=0, props=properties("DISCONNECT", SessionExpiryInterval=10))
        # The broker refuses the DISCONNECT, so the connection ended abnormally.
        equal(watcher.receive("the will").payload, b"gone")


@scenario(5)
def refused_method_of_authentication(run):
    """[MQTT-4.12.0-1]"""
    try:
        Client(run, connect={"AuthenticationMethod": "GS2-UNKNOWN"}).connect()
    except Refused as refused:
        equal(refused.code in (0x8C, 0x87), True, hex(refused.code))
    else:
        raise AssertionError("an unknown authentication method was accepted")


@scenario()
def unacknowledged_qos_2_is_finished_after_a_resume(run):
    """After PUBREC only PUBREL is sent again. [MQTT-4.3.3-6] [MQTT-4.4.0-1]"""
    me, topic = run.name("me"), run.name("t")
    first = Client(run, me, clean=False, expiry=600, manual_ack=True).connect()
    first.subscribe((topic, 2))
    with Client(run) as publisher:
        for n in range(20):
            publisher.publish(topic, f"{n}".encode(), 2)
        # paho's manual_ack withholds PUBCOMP: PUBREC and PUBREL are exchanged.
        for _ in range(20):
            first.receive()
        first.cut()
        publisher.publish(topic, b"fence", 2)
    with Client(run, me, clean=False, expiry=600) as again:
        equal(again.session_present, True)
        got = [m.payload for m in again.until(b"fence")]
        equal(got, [], "PUBREC was sent for all of them: PUBREL comes again, PUBLISH never")
