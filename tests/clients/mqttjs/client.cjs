// A face on MQTT.js in which each call waits for the event it is about, bounded by WAIT.
'use strict'

const fs = require('fs')
const mqtt = require('mqtt')

const WAIT = 30_000

// What lies below MQTT: tcp, tls, ws or wss, with the authority of its certificate in SHARDMQ_TEST_CA.
const TRANSPORT = process.env.SHARDMQ_TEST_TRANSPORT ?? 'tcp'
const SCHEME = { tcp: 'mqtt', tls: 'mqtts', ws: 'ws', wss: 'wss' }[TRANSPORT]
const PATH = TRANSPORT.startsWith('ws') ? '/mqtt' : ''
const TRUST = process.env.SHARDMQ_TEST_CA ? { ca: fs.readFileSync(process.env.SHARDMQ_TEST_CA) } : {}
let number = 0

/** Waits for a promise, but not for ever. */
function within(promise, what) {
  let timer
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what} did not come`)), WAIT)
  })
  return Promise.race([promise, late]).finally(() => clearTimeout(timer))
}

class Client {
  /** `run` tells port and version; `options` are those of MQTT.js. */
  static async connect(run, options = {}) {
    const client = new Client(run, options)
    await within(new Promise((resolve, reject) => {
      client.mqtt.once('connect', packet => { client.connack = packet; resolve() })
      client.mqtt.once('error', reject)
    }), 'CONNACK')
    return client
  }

  constructor(run, options) {
    this.messages = []
    this.waiting = []
    this.ended = new Promise(resolve => { this.hasEnded = resolve })
    this.disconnect = null
    this.mqtt = mqtt.connect(`${SCHEME}://127.0.0.1:${run.port}${PATH}`, {
      ...TRUST,
      protocolVersion: run.version,
      clientId: run.name(`c${++number}`),
      reconnectPeriod: 0,
      connectTimeout: WAIT,
      resubscribe: false,
      ...options
    })
    this.mqtt.on('message', (topic, payload, packet) => this.take({ topic, payload, packet }))
    this.mqtt.on('disconnect', packet => { this.disconnect = packet })
    this.mqtt.on('close', () => this.hasEnded())
    this.mqtt.on('error', () => {})
  }

  take(message) {
    const next = this.waiting.shift()
    if (next) next(message)
    else this.messages.push(message)
  }

  receive(what = 'a message') {
    if (this.messages.length > 0) return Promise.resolve(this.messages.shift())
    return within(new Promise(resolve => this.waiting.push(resolve)), what)
  }

  async payloads(count) {
    const got = []
    while (got.length < count) {
      const { payload } = await this.receive(`message ${got.length + 1} of ${count}`)
      got.push(payload.toString())
    }
    return got
  }

  /** All messages before the one with this payload. */
  async until(fence) {
    const before = []
    for (;;) {
      const message = await this.receive(`the fence ${fence}`)
      if (message.payload.toString() === fence) return before
      before.push(message)
    }
  }

  /** The granted codes; a refused filter has its code too. */
  async subscribe(filters, options = { qos: 0 }) {
    return within(new Promise((resolve, reject) => {
      this.mqtt.subscribe(filters, options, (error, granted, packet) => {
        if (packet && packet.granted) resolve(packet.granted)
        else if (error) reject(error)
        else resolve(granted.map(one => one.qos))
      })
    }), 'SUBACK')
  }

  async unsubscribe(filters) {
    return within(new Promise((resolve, reject) => {
      this.mqtt.unsubscribe(filters, (error, packet) => error ? reject(error) : resolve(packet))
    }), 'UNSUBACK')
  }

  async publish(topic, payload, options = {}) {
    return within(new Promise((resolve, reject) => {
      this.mqtt.publish(topic, payload, options, (error, packet) =>
        error ? reject(error) : resolve(packet))
    }), `the acknowledgement of ${topic.slice(0, 80)}`)
  }

  async close() {
    await within(this.mqtt.endAsync(false), 'the end')
  }

  /** Ends the connection without DISCONNECT. */
  async cut() {
    this.mqtt.stream.destroy()
    await within(this.ended, 'the end of the connection')
    await this.mqtt.endAsync(true)
  }
}

module.exports = { Client, within }
