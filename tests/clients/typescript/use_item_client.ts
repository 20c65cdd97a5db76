// Uses the items by the client that openapi-typescript generates. Its first argument is the server's URL.

import assert from "node:assert/strict";
import createClient from "openapi-fetch";
import type { components, paths } from "./api.js";

type Item = components["schemas"]["ItemRead"];

const client = createClient<paths>({ baseUrl: process.argv[2]! });

async function create(body: components["schemas"]["ItemCreate"]): Promise<Item> {
  const { data, response } = await client.POST("/items", { body });
  assert.equal(response.status, 201);
  assert.ok(data);
  return data;
}

const created = await create({ name: "Kettle", price: 9999999999.99, is_active: true });
assert.equal(created.price, 9999999999.99);
assert.equal(created.description, null);
for (const name of ["Pan", "Pot"]) {
  await create({ name, description: "Made of steel.", is_active: true });
}

const names: string[] = [];
let cursor: string | null | undefined;
do {
  const query = cursor ? { per_page: 1, cursor } : { per_page: 1 };
  const { data } = await client.GET("/items", { params: { query } });
  assert.ok(data);
  names.push(...data.items.map((item) => item.name));
  cursor = data.next_cursor;
} while (cursor);
assert.deepEqual(names, ["Kettle", "Pan", "Pot"]);

const path = { item_id: created.id };
const first = await client.GET("/items/{item_id}", { params: { path } });
const version = first.response.headers.get("ETag")!;
const changed = await client.PATCH("/items/{item_id}", {
  params: { path, header: { "If-Match": version } },
  body: { price: null },
});
assert.equal(changed.data?.price, null);
assert.equal(changed.data.name, "Kettle");

const late = await client.PUT("/items/{item_id}", {
  params: { path, header: { "If-Match": version } },
  body: { name: "Jug", is_active: true },
});
assert.equal(late.response.status, 412);
assert.equal(late.error?.code, "precondition_failed");

const missing = await client.GET("/items/{item_id}", { params: { path: { item_id: 1 } } });
assert.equal(missing.error?.code, "item_not_found");

// A JavaScript number is exact up to 2 ** 53 - 1.
console.log("created", created.id);
