// The two clients of the SDK behind one face, so that the same rounds are played with both.
import { pathToFileURL } from "node:url";

const sdk = (file) => import(pathToFileURL(`${process.env.NODE_MODULES}/@opencode-ai/sdk/dist/${file}`));

/** The data of an answer; an error is thrown with what the server said. */
async function data(call) {
  const { data, error, response } = await call;
  if (error !== undefined || data === undefined) {
    throw new Error(`${response?.status}: ${JSON.stringify(error)}`);
  }
  return data;
}

const text = (message) => [{ type: "text", text: message }];

async function v1(config) {
  const { createOpencodeClient } = await sdk("client.js");
  const client = createOpencodeClient(config);
  return {
    create: (title) => data(client.session.create({ body: { title } })),
    get: (id) => client.session.get({ path: { id } }),
    list: () => data(client.session.list()),
    rename: (id, title) => data(client.session.update({ path: { id }, body: { title } })),
    remove: (id) => data(client.session.delete({ path: { id } })),
    prompt: (id, message) => data(client.session.prompt({ path: { id }, body: { parts: text(message) } })),
    messages: (id) => data(client.session.messages({ path: { id } })),
    abort: (id) => data(client.session.abort({ path: { id } })),
    events: (options) => client.event.subscribe(options),
  };
}

async function v2(config) {
  const { createOpencodeClient } = await sdk("v2/client.js");
  const client = createOpencodeClient(config);
  return {
    create: (title) => data(client.session.create({ title })),
    get: (sessionID) => client.session.get({ sessionID }),
    list: () => data(client.session.list()),
    rename: (sessionID, title) => data(client.session.update({ sessionID, title })),
    remove: (sessionID) => data(client.session.delete({ sessionID })),
    prompt: (sessionID, message) => data(client.session.prompt({ sessionID, parts: text(message) })),
    messages: (sessionID) => data(client.session.messages({ sessionID })),
    abort: (sessionID) => data(client.session.abort({ sessionID })),
    events: (options) => client.event.subscribe({}, options),
  };
}

/** The client of this version (`v1` or `v2`) for the server and the directory that the environment names. */
export function connect(version) {
  const config = { baseUrl: process.env.SERVER_URL, directory: process.env.DIRECTORY };
  return version === "v1" ? v1(config) : v2(config);
}
