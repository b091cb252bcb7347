"""Logs in once: login.py PORT LEVEL USER PASSWORD. Prints `Success`, or `refused` and why."""

import sys
import threading

import paho.mqtt.client as mqtt

port, level, user, password = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]
answered = threading.Event()
reasons = []


def on_connect(client, userdata, flags, reason, properties):
    reasons.append(reason)
    answered.set()


client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id="paho-login",
                     protocol=mqtt.MQTTv5 if level == 5 else mqtt.MQTTv311)
client.username_pw_set(user, password)
client.on_connect = on_connect
client.connect("127.0.0.1", port)
client.loop_start()
if not answered.wait(20):
    print("no answer")
elif reasons[0].is_failure:
    print(f"refused: {reasons[0]}")
else:
    print(f"{reasons[0]}")
client.disconnect()
client.loop_stop()
