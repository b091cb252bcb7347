"""A synchronous face on paho-mqtt: every call waits for the event it is about, bounded by WAIT.

Nothing sleeps. That something does not arrive is shown by a fence: a later message that does.
"""

import itertools
import os
import queue
import threading

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

WAIT = 30

# What lies below MQTT: tcp, tls, ws or wss, with the authority of its certificate in SHARDMQ_TEST_CA.
TRANSPORT = os.environ.get("SHARDMQ_TEST_TRANSPORT", "tcp")
_numbers = itertools.count(1)


class Refused(Exception):
    """The broker answered CONNECT with something else than success."""

    def __init__(self, reason):
        super().__init__(str(reason))
        self.code = reason.value


def properties(packet, **values):
    """Properties of a packet type named as in PacketTypes; user properties as a list of pairs."""
    made = Properties(getattr(PacketTypes, packet))
    for name, value in values.items():
        setattr(made, name, value)
    return made


def options(qos=0, **values):
    return SubscribeOptions(qos=qos, **values)


class Client:
    """One MQTT client. `run` tells port and version."""

    def __init__(self, run, client_id=None, clean=True, keepalive=60, expiry=None, will=None,
                 connect=None, manual_ack=False, user=None, inflight=1000):
        self.run = run
        self.client_id = run.name(f"c{next(_numbers)}") if client_id is None else client_id
        self.clean = clean
        self.keepalive = keepalive
        self.messages = queue.Queue()
        self.disconnected = queue.Queue()
        self._connected = queue.Queue()
        self._answers = {}
        self._lock = threading.Condition()
        self.v5 = run.version == 5
        extra = {} if self.v5 else {"clean_session": clean}
        self.paho = mqtt.Client(
            mqtt.CallbackAPIVersion.VERSION2, client_id=self.client_id,
            protocol=mqtt.MQTTv5 if self.v5 else mqtt.MQTTv311,
            reconnect_on_failure=False, manual_ack=True,
            transport="websockets" if TRANSPORT in ("ws", "wss") else "tcp", **extra)
        if TRANSPORT in ("tls", "wss"):
            self.paho.tls_set(ca_certs=os.environ["SHARDMQ_TEST_CA"])
        self._acknowledges = not manual_ack
        self.paho.max_inflight_messages_set(inflight)
        self.paho.max_queued_messages_set(0)
        if user:
            self.paho.username_pw_set(*user)
        if will:
            self.paho.will_set(**will)
        self.connect_properties = connect or {}
        if expiry is not None and self.v5:
            self.connect_properties["SessionExpiryInterval"] = expiry
        self.paho.on_connect = self._on_connect
        self.paho.on_disconnect = lambda c, u, flags, reason, props: self.disconnected.put(reason)
        self.paho.on_message = self._on_message
        self.paho.on_subscribe = lambda c, u, mid, codes, props: self._answer(mid, codes)
        self.paho.on_unsubscribe = lambda c, u, mid, codes, props: self._answer(mid, codes)
        self.paho.on_publish = lambda c, u, mid, code, props: self._answer(mid, code)
        self.session_present = None
        self.connack = None

    def _on_message(self, _client, _userdata, message):
        # Acknowledged before a scenario sees it: paho does it after this callback, and a scenario that
        # disconnects as soon as it has its message may be quicker. The message would rightly come again.
        if self._acknowledges:
            self.paho.ack(message.mid, message.qos)
        self.messages.put(message)

    def _on_connect(self, _client, _userdata, flags, reason, props):
        self._connected.put((flags, reason, props))

    def _answer(self, mid, what):
        with self._lock:
            self._answers[mid] = what
            self._lock.notify_all()

    def _wait_answer(self, mid, what):
        with self._lock:
            if not self._lock.wait_for(lambda: mid in self._answers, WAIT):
                raise TimeoutError(f"{self.client_id}: no answer to {what}")
            return self._answers.pop(mid)

    def __enter__(self):
        return self.connect()

    def __exit__(self, *_):
        self.close()

    def connect(self):
        more = {}
        if self.v5:
            more = {"clean_start": self.clean,
                    "properties": properties("CONNECT", **self.connect_properties)}
        self.paho.connect("127.0.0.1", self.run.port, self.keepalive, **more)
        self.paho.loop_start()
        try:
            flags, reason, self.connack = self._connected.get(timeout=WAIT)
        except queue.Empty:
            raise TimeoutError(f"{self.client_id}: no CONNACK") from None
        if reason.is_failure:
            self.paho.loop_stop()
            raise Refused(reason)
        self.session_present = flags.session_present
        return self

    def unless_ended(self, call, *args, **kwargs):
        """What paho's call returns, or None where the connection ended under it.

        paho's thread may send what a call has only just queued and see the connection end before the
        call returns, which then finds its waking socket closed, or no thread and no socket at all.
        Nothing is hidden by it: what a scenario waits for next, an answer or the end, tells."""
        try:
            result = call(*args, **kwargs)
        except OSError:
            if self.paho.socket() is not None:
                raise
            return None
        # What is returned is a code, a code with an identifier, or a publish's information.
        code = result[0] if isinstance(result, tuple) else getattr(result, "rc", result)
        if code == mqtt.MQTT_ERR_NO_CONN and self.paho.socket() is None:
            return None
        assert code == mqtt.MQTT_ERR_SUCCESS, code
        return result

    def _asked(self, call, *args, **kwargs):
        """The same where an answer is waited for: without a connection there is none."""
        result = self.unless_ended(call, *args, **kwargs)
        assert result is not None, f"{self.client_id}: the connection has ended"
        return result

    def close(self, reason=None, props=None):
        """DISCONNECT, and wait until the connection is gone."""
        how = ()
        if reason is not None and self.v5:
            from paho.mqtt.reasoncodes import ReasonCode
            how = (ReasonCode(PacketTypes.DISCONNECT, identifier=reason), props)
        self.unless_ended(self.paho.disconnect, *how)
        self.paho.loop_stop()

    def socket(self):
        """The socket below whatever lies on it; paho has no name for it with WebSocket."""
        sock = self.paho.socket()
        return getattr(sock, "_socket", sock)

    def cut(self):
        """Ends the connection without DISCONNECT."""
        import socket
        sock = self.socket()
        if sock is not None:
            sock.shutdown(socket.SHUT_RDWR)
        self.ended()
        self.paho.loop_stop()

    def ended(self):
        """Waits until the connection has ended and returns the reason."""
        try:
            return self.disconnected.get(timeout=WAIT)
        except queue.Empty:
            raise TimeoutError(f"{self.client_id}: the connection did not end") from None

    def subscribe(self, *filters, props=None):
        """Each filter is (filter, QoS or options). Returns the codes of the SUBACK."""
        asked = []
        for text, how in filters:
            if self.v5 and isinstance(how, int):
                how = options(how)
            asked.append((text, how))
        _, mid = self._asked(self.paho.subscribe, asked, properties=props)
        return [code.value for code in self._wait_answer(mid, "SUBSCRIBE")]

    def unsubscribe(self, *filters):
        _, mid = self._asked(self.paho.unsubscribe, list(filters))
        codes = self._wait_answer(mid, "UNSUBSCRIBE")
        if not isinstance(codes, list):
            codes = [codes]
        return [code.value for code in codes]

    def publish(self, topic, payload=b"", qos=0, retain=False, wait=True, **props):
        made = properties("PUBLISH", **props) if self.v5 and props else None
        call = self._asked if wait else self.unless_ended
        info = call(self.paho.publish, topic, payload, qos, retain, properties=made)
        if wait:
            return self._wait_answer(info.mid, f"PUBLISH {topic[:80]} QoS {qos}").value
        return info and info.mid

    def published(self, mid):
        return self._wait_answer(mid, "PUBLISH").value

    def receive(self, what="a message"):
        try:
            return self.messages.get(timeout=WAIT)
        except queue.Empty:
            raise TimeoutError(f"{self.client_id}: {what} did not arrive") from None

    def payloads(self, count):
        return [bytes(self.receive(f"message {n + 1} of {count}").payload) for n in range(count)]

    def until(self, fence):
        """All messages before the one with this payload."""
        before = []
        while True:
            message = self.receive(f"the fence {fence!r}")
            if bytes(message.payload) == fence:
                return before
            before.append(message)


def equal(actual, expected, what=""):
    if actual != expected:
        raise AssertionError(f"{what}: got {str(actual)[:300]!r}, expected {str(expected)[:300]!r}")
