"""Logs in once: login.py PORT LEVEL USER PASSWORD [stay]. Prints `Success`, or `refused` and why; with
`stay` it waits until the broker ends the connection and prints `ended` and why."""

import sys
import threading

import paho.mqtt.client as mqtt

port, level, user, password = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]
answered = threading.Event()
reasons = []


def on_connect(client, userdata, flags, reason, properties):
    reasons.append(reason)
    answered.set()


client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id="paho-login", reconnect_on_failure=False,
                     protocol=mqtt.MQTTv5 if level == 5 else mqtt.MQTTv311)
client.username_pw_set(user, password)
client.on_connect = on_connect
ended = threading.Event()
ends = []


def on_disconnect(client, userdata, flags, reason, properties):
    ends.append(reason)
    ended.set()


client.on_disconnect = on_disconnect
client.connect("127.0.0.1", port)
client.loop_start()
if not answered.wait(20):
    print("no answer")
elif reasons[0].is_failure:
    print(f"refused: {reasons[0]}")
else:
    print(f"{reasons[0]}")
    if len(sys.argv) > 5:
        print(f"ended: {ends[0]}" if ended.wait(20) else "never ended")
client.disconnect()
client.loop_stop()
