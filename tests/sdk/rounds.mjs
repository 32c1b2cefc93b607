// Rounds of create, prompt, event stream, abort, rename, list and delete.
// Usage: node rounds.mjs v1|v2 ROUNDS
import assert from "node:assert/strict";
import { connect } from "./facade.mjs";
import { follow } from "./events.mjs";

const [version, rounds] = [process.argv[2], Number(process.argv[3])];
const client = await connect(version);
const events = await follow(client);
await events.until("server.connected", (event) => event.type === "server.connected");

const of = (id, type) => (event) => event.type === type && event.properties.sessionID === id;

for (let round = 0; round < rounds; round++) {
  const session = await client.create(`round ${round}`);
  const { id } = session;

  const answer = await client.prompt(id, `say ${round}`);
  assert.equal(answer.info.role, "assistant");
  assert.equal(answer.parts.find((part) => part.type === "text").text, `you said ${round}, and that is all`);
  await events.until("session.idle", of(id, "session.idle"));
  assert.equal(events.spoken(id), `you said ${round}, and that is all`);
  assert.deepEqual((await client.messages(id)).at(-1), answer);

  const begun = events.seen.length;
  const hanging = client.prompt(id, "hang");
  const later = (predicate) => (event) => events.seen.indexOf(event) >= begun && predicate(event);
  await events.until("a delta", later((event) => of(id, "message.part.delta")(event) && event.properties.delta === "waiting"));
  assert.equal(await client.abort(id), true);
  const aborted = await hanging;
  assert.equal(aborted.info.error.name, "MessageAbortedError");
  await events.until("session.error", later(of(id, "session.error")));

  assert.equal((await client.rename(id, `renamed ${round}`)).title, `renamed ${round}`);
  const listed = await client.list();
  assert.deepEqual(listed.map((one) => one.title), [`renamed ${round}`]);

  assert.equal(await client.remove(id), true);
  await events.until("session.deleted", (event) => event.type === "session.deleted" && event.properties.info.id === id);
  const gone = await client.get(id);
  assert.equal(gone.response.status, 404);
  assert.deepEqual(await client.list(), []);
}

assert.deepEqual(events.failures, []);
await events.close();
console.log(`${version}: ${rounds} rounds`);
