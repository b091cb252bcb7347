'use strict'

const assert = require('node:assert/strict')
const { Client, within } = require('./client.cjs')

const scenarios = []

/** Adds a scenario for these versions. */
function scenario(versions, body) {
  scenarios.push({ name: body.name, versions, body })
}

const BOTH = [4, 5]
const V5 = [5]

scenario(BOTH, async function everyQosInAndOut(run) {
  const publisher = await Client.connect(run)
  for (const granted of [0, 1, 2]) {
    const subscriber = await Client.connect(run)
    const topic = run.name(`t/${granted}`)
    assert.deepEqual(await subscriber.subscribe(topic, { qos: granted }), [granted])
    for (const qos of [0, 1, 2]) {
      await publisher.publish(topic, `${qos}`, { qos })
      const { payload, packet } = await subscriber.receive()
      assert.deepEqual([payload.toString(), packet.qos, packet.retain, packet.dup],
        [`${qos}`, Math.min(qos, granted), false, false])
    }
    await subscriber.close()
  }
  await publisher.close()
})

scenario(BOTH, async function retainedSetReplaceClear(run) {
  const topic = run.name('t')
  const client = await Client.connect(run)
  // Retained messages come from the shard that keeps them, so a live fence may overtake them: those
  // that are expected are waited for, and the fence shows that no more came.
  const retained = async count => {
    const late = await Client.connect(run)
    await late.subscribe([topic, run.name('fence')], { qos: 1 })
    const found = []
    while (found.length < count) found.push(await late.receive('a retained message'))
    await client.publish(run.name('fence'), 'fence', { qos: 1 })
    found.push(...await late.until('fence'))
    await late.close()
    return found.map(m => [m.payload.toString(), m.packet.retain])
  }
  await client.publish(topic, 'old', { qos: 1, retain: true })
  await client.publish(topic, 'new', { qos: 2, retain: true })
  assert.deepEqual(await retained(1), [['new', true]])
  await client.publish(topic, '', { qos: 1, retain: true })
  assert.deepEqual(await retained(0), [])
  await client.close()
})

scenario(BOTH, async function wildcards(run) {
  const base = run.name('w')
  const table = [
    [`${base}/sport/#`, ['sport', 'sport/', 'sport/a/b'], ['sports', 'Sport/a']],
    [`${base}/+/x`, ['a/x', '/x'], ['x', 'a/b/x']],
    [`${base}/+/+/#`, ['a/b', 'a/b/c'], ['a']]
  ]
  for (const [filter, match, miss] of table) {
    const client = await Client.connect(run)
    await client.subscribe([filter, run.name('fence')], { qos: 1 })
    for (const topic of [...match, ...miss]) {
      await client.publish(`${base}/${topic}`, topic, { qos: 1 })
    }
    await client.publish(run.name('fence'), 'fence', { qos: 1 })
    assert.deepEqual((await client.until('fence')).map(m => m.payload.toString()), match, filter)
    await client.close()
  }
})

// mosquitto 2.0.11 sends one copy to a 3.1.1 client with the QoS of whichever filter it meets first,
// and several copies to a version 5 client.
scenario(BOTH, async function overlappingSubscriptionsGiveOneCopy(run) {
  const base = run.name('o')
  const client = await Client.connect(run)
  await client.subscribe(`${base}/#`, { qos: 0 })
  await client.subscribe(`${base}/+`, { qos: 1 })
  await client.publish(`${base}/a`, 'once', { qos: 1 })
  await client.publish(`${base}/a`, 'fence', { qos: 1 })
  const got = await client.until('fence')
  assert.deepEqual(got.map(m => [m.payload.toString(), m.packet.qos]), [['once', 1]])
  await client.close()
})

scenario(BOTH, async function topicsInAnyScript(run) {
  const client = await Client.connect(run)
  await client.subscribe(run.name('/#'), { qos: 1 })
  for (const topic of ['температура', '気温/東京', 'درجة/الحرارة', '🚗/速度/é']) {
    await client.publish(run.name('/' + topic), topic, { qos: 1 })
    const message = await client.receive(topic)
    assert.deepEqual([message.topic, message.payload.toString()], [run.name('/' + topic), topic])
  }
  await client.close()
})

scenario(BOTH, async function theLongestTopicAndAPayloadOf200Kilobytes(run) {
  const start = run.name('long/')
  const topic = start + 'x'.repeat(65_535 - Buffer.byteLength(start))
  const payload = Buffer.alloc(200_000, 'abcdefg')
  const client = await Client.connect(run)
  for (const qos of [0, 1, 2]) {
    await client.subscribe(start + '+', { qos })
    await client.publish(topic, payload, { qos })
    const message = await client.receive()
    assert.ok(message.topic === topic && message.payload.equals(payload), `QoS ${qos}`)
  }
  await client.close()
})

scenario(BOTH, async function willAfterACutAndNoneAfterDisconnect(run) {
  const watcher = await Client.connect(run)
  await watcher.subscribe(run.name('will'), { qos: 1 })
  const will = payload => ({ will: { topic: run.name('will'), payload, qos: 1, retain: false } })
  await (await Client.connect(run, will('never'))).close()
  await (await Client.connect(run, will('gone'))).cut()
  const message = await watcher.receive('the will')
  assert.deepEqual([message.payload.toString(), message.packet.qos], ['gone', 1])
  await watcher.close()
})

scenario(BOTH, async function offlineMessagesWait(run) {
  const me = {
    clientId: run.name('me'),
    clean: false,
    properties: run.version === 5 ? { sessionExpiryInterval: 600 } : undefined
  }
  const first = await Client.connect(run, me)
  assert.equal(first.connack.sessionPresent, false)
  await first.subscribe(run.name('t'), { qos: 2 })
  await first.close()
  const publisher = await Client.connect(run)
  const expected = []
  for (let n = 0; n < 100; n++) {
    expected.push(`${n}`)
    await publisher.publish(run.name('t'), `${n}`, { qos: 1 })
  }
  await publisher.close()
  const again = await Client.connect(run, me)
  assert.equal(again.connack.sessionPresent, true)
  assert.deepEqual(await again.payloads(100), expected)
  await again.close()
})

scenario(BOTH, async function takeover(run) {
  const me = { clientId: run.name('me') }
  const old = await Client.connect(run, me)
  const young = await Client.connect(run, me)
  await within(old.ended, 'the end of the old connection')
  // mosquitto 2.0.11 closes without a reason.
  if (run.version === 5) assert.equal(old.disconnect?.reasonCode, 0x8e)
  await young.subscribe(run.name('t'), { qos: 1 })
  await young.publish(run.name('t'), 'mine', { qos: 1 })
  assert.deepEqual(await young.payloads(1), ['mine'])
  await young.close()
  await old.mqtt.endAsync(true)
})

scenario(BOTH, async function sharedSubscription(run) {
  const topic = run.name('t')
  const members = []
  for (let n = 0; n < 3; n++) {
    members.push(await Client.connect(run))
    await members[n].subscribe([`$share/g/${topic}`, `${topic}/${n}`], { qos: 1 })
  }
  const publisher = await Client.connect(run)
  for (let n = 0; n < 150; n++) await publisher.publish(topic, `${n}`, { qos: 1 })
  const parts = []
  for (let n = 0; n < 3; n++) {
    await publisher.publish(`${topic}/${n}`, 'fence', { qos: 1 })
    parts.push((await members[n].until('fence')).map(m => Number(m.payload)))
  }
  assert.ok(parts.every(part => part.length > 0), 'every member got something')
  assert.deepEqual(parts.flat().sort((a, b) => a - b), [...Array(150).keys()])
  for (const client of [...members, publisher]) await client.close()
})

scenario(BOTH, async function keepAliveIsKept(run) {
  const watcher = await Client.connect(run)
  await watcher.subscribe(run.name('will'), { qos: 1 })
  const will = { topic: run.name('will'), payload: 'timeout', qos: 1 }
  const pinging = await Client.connect(run, { keepalive: 3 })
  const silent = await Client.connect(run, { keepalive: 3, will })
  // A client that hangs: it neither sends PINGREQ nor reads.
  silent.mqtt.keepaliveManager?.destroy()
  silent.mqtt.stream.pause()
  assert.deepEqual(await watcher.payloads(1), ['timeout'])
  await pinging.subscribe(run.name('t'), { qos: 1 })
  await pinging.publish(run.name('t'), 'alive', { qos: 1 })
  assert.deepEqual(await pinging.payloads(1), ['alive'])
  await silent.mqtt.endAsync(true)
  await pinging.close()
  await watcher.close()
})

scenario(BOTH, async function fiveThousandInOrder(run) {
  const count = 5_000
  const [publisher, one, two] =
    [await Client.connect(run), await Client.connect(run), await Client.connect(run)]
  await one.subscribe(run.name('t'), { qos: 1 })
  await two.subscribe(run.name('t'), { qos: 2 })
  const sent = []
  for (let n = 0; n < count; n++) {
    sent.push(publisher.publish(run.name('t'), `${n}`, { qos: 1 }))
    if (n % 500 === 499) await Promise.all(sent)
  }
  const expected = Array.from({ length: count }, (_, n) => `${n}`)
  assert.deepEqual(await one.payloads(count), expected)
  assert.deepEqual(await two.payloads(count), expected)
  for (const client of [publisher, one, two]) await client.close()
})

scenario(BOTH, async function manyClientsAtOnce(run) {
  const clients = await Promise.all(Array.from({ length: 100 }, () => Client.connect(run)))
  await Promise.all(clients.map((c, n) => c.subscribe(run.name(`${n}`), { qos: 1 })))
  await Promise.all(clients.map((c, n) =>
    c.publish(run.name(`${(n + 37) % 100}`), `from ${n}`, { qos: 1 })))
  await Promise.all(clients.map(async (c, n) =>
    assert.deepEqual(await c.payloads(1), [`from ${(n + 63) % 100}`])))
  await Promise.all(clients.map(c => c.close()))
})

scenario(V5, async function propertiesEndToEnd(run) {
  const client = await Client.connect(run)
  await client.subscribe(run.name('t'), { qos: 1, properties: { subscriptionIdentifier: 321 } })
  await client.publish(run.name('t'), '{}', {
    qos: 1,
    properties: {
      payloadFormatIndicator: true,
      messageExpiryInterval: 100,
      contentType: 'application/json; ü',
      responseTopic: 'answers/here',
      correlationData: Buffer.from([0, 1, 255]),
      userProperties: { a: ['1', '2'], b: 'ß' }
    }
  })
  const { properties } = (await client.receive()).packet
  assert.ok(properties.messageExpiryInterval > 90 && properties.messageExpiryInterval <= 100)
  delete properties.messageExpiryInterval
  assert.deepEqual(JSON.parse(JSON.stringify(properties)), {
    payloadFormatIndicator: true,
    contentType: 'application/json; ü',
    responseTopic: 'answers/here',
    correlationData: { type: 'Buffer', data: [0, 1, 255] },
    userProperties: { a: ['1', '2'], b: 'ß' },
    subscriptionIdentifier: 321
  })
  await client.close()
})

// MQTT.js resolves aliases in both directions by itself. mosquitto 2.0.11 assigns none.
scenario(V5, async function topicAliases(run) {
  const sender = await Client.connect(run, { autoAssignTopicAlias: true })
  assert.ok(sender.connack.properties.topicAliasMaximum > 0)
  const reader = await Client.connect(run, { properties: { topicAliasMaximum: 3 } })
  const aliases = new Set()
  reader.mqtt.on('packetreceive', packet => {
    if (packet.cmd === 'publish' && packet.properties?.topicAlias) {
      aliases.add(packet.properties.topicAlias)
    }
  })
  await reader.subscribe(run.name('/#'), { qos: 1 })
  for (let n = 0; n < 60; n++) {
    await sender.publish(run.name(`/${n % 6}`), `${n}`, { qos: 1 })
    const message = await reader.receive()
    assert.deepEqual([message.topic, message.payload.toString()], [run.name(`/${n % 6}`), `${n}`])
  }
  assert.ok(aliases.size > 0 && [...aliases].every(alias => alias <= 3), [...aliases].join())
  await sender.close()
  await reader.close()
})

scenario(V5, async function subscriptionOptions(run) {
  const topic = run.name('t')
  const [me, other] = [await Client.connect(run), await Client.connect(run)]
  await other.publish(topic, 'kept', { qos: 1, retain: true })
  await me.subscribe(topic, { qos: 1, nl: true, rap: true, rh: 2 })
  await me.publish(topic, 'mine', { qos: 1 })
  await other.publish(topic, 'theirs', { qos: 1, retain: true })
  const message = await me.receive()
  assert.deepEqual([message.payload.toString(), message.packet.retain], ['theirs', true])
  await me.subscribe(topic, { qos: 1, rh: 0 })
  assert.equal((await me.receive('the retained message')).payload.toString(), 'theirs')
  await other.publish(topic, '', { qos: 1, retain: true })
  await me.close()
  await other.close()
})

// mosquitto 2.0.11 gives no place back for a QoS 2 message that was too large, and stops.
scenario(V5, async function receiveMaximumAndPacketSize(run) {
  const publisher = await Client.connect(run)
  const client = await Client.connect(run, { properties: { receiveMaximum: 2, maximumPacketSize: 300 } })
  await client.subscribe(run.name('t'), { qos: 2 })
  const expected = []
  for (let n = 0; n < 40; n++) {
    await publisher.publish(run.name('t'), 'x'.repeat(400), { qos: 2 })
    await publisher.publish(run.name('t'), `${n}`, { qos: 2 })
    expected.push(`${n}`)
  }
  assert.deepEqual(await client.payloads(40), expected)
  await publisher.close()
  await client.close()
})

scenario(V5, async function whatConnackTells(run) {
  const client = await Client.connect(run, { clientId: '' })
  const { properties } = client.connack
  assert.ok(properties.assignedClientIdentifier.length > 0)
  assert.ok(properties.maximumPacketSize > 200_000)
  await client.close()
})

scenario(V5, async function reasonCodes(run) {
  const client = await Client.connect(run)
  assert.deepEqual((await client.unsubscribe(run.name('never'))).granted, [0x11])
  await client.subscribe(run.name('t'), { qos: 2 })
  assert.deepEqual((await client.unsubscribe(run.name('t'))).granted, [0])
  const limit = client.connack.properties.maximumPacketSize
  // MQTT.js would refuse to send it by itself had it read the limit.
  client.mqtt.publish(run.name('t'), Buffer.alloc(limit), { qos: 0 })
  await within(client.ended, 'the end')
  assert.equal(client.disconnect?.reasonCode, 0x95)
  await client.mqtt.endAsync(true)
})

// mosquitto 2.0.11 publishes no will at the end of a session.
scenario(V5, async function willDelay(run) {
  const watcher = await Client.connect(run)
  await watcher.subscribe(run.name('will'), { qos: 1 })
  const dying = (payload, willDelayInterval, sessionExpiryInterval) => Client.connect(run, {
    properties: { sessionExpiryInterval },
    will: { topic: run.name('will'), payload, qos: 1, properties: { willDelayInterval } }
  })
  const late = await dying('late', 2, 600)
  const soon = await dying('soon', 1, 600)
  const now = await dying('now', 100, 0)
  await late.cut()
  await soon.cut()
  await now.cut()
  assert.deepEqual(await watcher.payloads(3), ['now', 'soon', 'late'])
  await watcher.close()
})

scenario(V5, async function requestAndResponse(run) {
  const service = await Client.connect(run)
  await service.subscribe(run.name('service'), { qos: 1 })
  const callers = await Promise.all(Array.from({ length: 20 }, () => Client.connect(run)))
  await Promise.all(callers.map((c, n) => c.subscribe(run.name(`answers/${n}`), { qos: 1 })))
  const asked = callers.map((c, n) => c.publish(run.name('service'), `${n}`, {
    qos: 1,
    properties: { responseTopic: run.name(`answers/${n}`), correlationData: Buffer.from(`id ${n}`) }
  }))
  for (let n = 0; n < callers.length; n++) {
    const { payload, packet } = await service.receive()
    const { responseTopic, correlationData } = packet.properties
    await service.publish(responseTopic, `answer ${payload}`, { qos: 1, properties: { correlationData } })
  }
  await Promise.all(asked)
  await Promise.all(callers.map(async (c, n) => {
    const { payload, packet } = await c.receive()
    assert.equal(payload.toString(), `answer ${n}`)
    assert.equal(packet.properties.correlationData.toString(), `id ${n}`)
    await c.close()
  }))
  await service.close()
})

module.exports = scenarios
