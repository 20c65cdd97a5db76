// Fastify with pg's pool, pino, @fastify/rate-limit, prom-client, and JSON schemas for what comes in and goes out.
//
// Fastify would log two lines for each request; here it is one, as with the other services. pino writes
// asynchronously, and the statements are prepared once: both as their documentation advises for speed.

import { randomUUID } from 'node:crypto'
import { readFileSync } from 'node:fs'
import rateLimit from '@fastify/rate-limit'
import Fastify from 'fastify'
import pg from 'pg'
import pino from 'pino'
import prometheus from 'prom-client'

const CONNECTIONS = 10
const STATEMENTS = JSON.parse(readFileSync(new URL('statements.json', import.meta.url)))

const pool = new pg.Pool({
  connectionString: process.env.DATABASE_URL,
  max: CONNECTIONS,
  min: CONNECTIONS,
  idleTimeoutMillis: 0,
  connectionTimeoutMillis: 1000,
  statement_timeout: 5000
})

const app = Fastify({
  loggerInstance: pino(pino.destination({ dest: 1, minLength: 4096, periodicFlush: 1000, sync: false })),
  disableRequestLogging: true,
  requestIdHeader: 'x-request-id',
  genReqId: () => randomUUID(),
  requestTimeout: 10_000,
  keepAliveTimeout: 75_000
})

const labels = { labelNames: ['method', 'route', 'status_code'] }
const served = new prometheus.Counter({ name: 'http_requests_total', help: 'Requests served.', ...labels })
const durations = new prometheus.Histogram({
  name: 'http_request_duration_seconds', help: 'Time to the end of the response.', ...labels
})
prometheus.collectDefaultMetrics()

app.addHook('onRequest', async (request, reply) => {
  reply.header('x-request-id', request.id)
})

app.addHook('onResponse', async (request, reply) => {
  const route = request.routeOptions.url ?? 'none'
  const seconds = reply.elapsedTime / 1000
  const values = { method: request.method, route, status_code: reply.statusCode }
  served.inc(values)
  durations.observe(values, seconds)
  request.log.info(
    { method: request.method, route, path: request.url, status: reply.statusCode, duration_seconds: seconds },
    'request_served'
  )
})

await app.register(rateLimit, { max: Number(process.env.RATE_LIMIT), timeWindow: '1 minute' })

const item = {
  type: 'object',
  properties: {
    id: { type: 'integer' },
    name: { type: 'string' },
    description: { type: ['string', 'null'] },
    price: { type: ['number', 'null'] },
    is_active: { type: 'boolean' },
    created_at: { type: 'string', format: 'date-time' },
    updated_at: { type: 'string', format: 'date-time' }
  }
}

const newItem = {
  type: 'object',
  required: ['name'],
  properties: {
    name: { type: 'string', minLength: 1, maxLength: 255 },
    description: { type: ['string', 'null'], maxLength: 10_000 },
    price: { type: ['number', 'null'], minimum: 0, maximum: 9_999_999_999.99 },
    is_active: { type: 'boolean', default: true }
  }
}

const page = {
  type: 'object',
  properties: {
    items: { type: 'array', items: item },
    page: { type: 'integer' },
    per_page: { type: 'integer' },
    total: { type: 'integer' },
    pages: { type: 'integer' }
  }
}

const itemId = { type: 'object', properties: { item_id: { type: 'integer' } } }
const paging = {
  type: 'object',
  properties: {
    page: { type: 'integer', minimum: 1, default: 1 },
    per_page: { type: 'integer', minimum: 1, maximum: 100, default: 20 }
  }
}

const run = async (name, values) => (await pool.query({ name, text: STATEMENTS[name], values })).rows

app.get('/items/:item_id', { schema: { params: itemId, response: { 200: item } } }, async (request, reply) => {
  const [found] = await run('read', [request.params.item_id])
  if (found === undefined) {
    return reply.code(404).send({ statusCode: 404, error: 'Not Found', message: 'Item not found' })
  }
  return found
})

app.get('/items', { schema: { querystring: paging, response: { 200: page } } }, async (request) => {
  const { page, per_page } = request.query
  const rows = await run('page', [per_page, (page - 1) * per_page])
  const total = Number(rows[0].total)
  return { items: rows.filter(({ id }) => id !== null), page, per_page, total, pages: Math.ceil(total / per_page) }
})

app.post('/items', { schema: { body: newItem, response: { 201: item } } }, async (request, reply) => {
  const { name, description, price, is_active } = request.body
  const [created] = await run('create', [name, description, price, is_active])
  return reply.code(201).send(created)
})

app.get('/metrics', { config: { rateLimit: false } }, async (request, reply) => {
  reply.type(prometheus.register.contentType)
  return prometheus.register.metrics()
})

for (const signal of ['SIGINT', 'SIGTERM']) {
  process.once(signal, async () => {
    await app.close()
    await pool.end()
  })
}

await app.listen({ host: '127.0.0.1', port: Number(process.env.PORT) })
