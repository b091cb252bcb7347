// Runs the scenarios: run.cjs PORT LEVEL SHARDS [NAME]. Prints `ok NAME` or `FAILED NAME: why`.
'use strict'

const scenarios = require('./scenarios.cjs')

async function main() {
  const [port, version, , ...wanted] = process.argv.slice(2)
  const run = { port: Number(port), version: Number(version) }
  const chosen = scenarios.filter(({ name, versions }) =>
    versions.includes(run.version) && (wanted.length === 0 || wanted.includes(name)))
  let failed = 0
  const one = async ({ name, body }) => {
    try {
      await body({ ...run, name: text => `js${version}-${name}-${text}` })
      console.log(`ok ${name}`)
    } catch (error) {
      failed += 1
      const why = `${error.message}`.replaceAll('\n', ' ').slice(0, 600)
      const where = `${error.stack}`.split('\n').find(line => line.includes('scenarios.cjs')) ?? ''
      console.log(`FAILED ${name}: ${why} (${where.trim().split('/').pop()}`)
    }
  }
  // Each scenario has topics and clients of its own, so some overlap. More than a few would keep the
  // one thread of this process from sending its PINGREQs in time.
  const queue = [...chosen]
  const lane = async () => { while (queue.length > 0) await one(queue.shift()) }
  await Promise.all(Array.from({ length: 6 }, lane))
  console.log(`${chosen.length - failed} passed, ${failed} failed`)
  process.exit(failed === 0 ? 0 : 1)
}

main()
