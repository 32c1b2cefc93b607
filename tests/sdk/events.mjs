// A subscription that is read in the background and can be waited on.

/** Reads the events of a client; `failures` holds what the connection suffered. */
export async function follow(client) {
  const stop = new AbortController();
  const seen = [];
  const failures = [];
  let wake = () => {};
  const { stream } = await client.events({ signal: stop.signal, onSseError: (error) => failures.push(String(error)) });
  const reading = (async () => {
    for await (const event of stream) {
      seen.push(event);
      wake();
    }
  })().catch((error) => failures.push(String(error)));

  /** Waits until an event, from the first one on, satisfies the predicate. */
  async function until(what, predicate, bound = 30_000) {
    const end = Date.now() + bound;
    for (let at = 0; ; ) {
      for (; at < seen.length; at++) {
        if (predicate(seen[at])) return seen[at];
      }
      const left = end - Date.now();
      if (left <= 0) throw new Error(`no ${what}; the stream had ${seen.map((event) => event.type).join(" ")}`);
      await new Promise((resolve) => {
        const timer = setTimeout(resolve, left);
        wake = () => {
          clearTimeout(timer);
          resolve();
        };
      });
    }
  }

  /** The deltas of a session, joined. */
  const spoken = (id) =>
    seen
      .filter((event) => event.type === "message.part.delta" && event.properties.sessionID === id)
      .map((event) => event.properties.delta)
      .join("");

  async function close() {
    stop.abort();
    await reading;
  }

  return { until, spoken, close, failures, seen };
}
