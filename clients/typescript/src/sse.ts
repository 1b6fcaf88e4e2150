/** An event of a stream (WHATWG HTML, server-sent events). */
export interface StreamEvent {
  event: string;
  data: string;
}

/** Parses the text of a stream as it arrives. */
export class EventParser {
  /** The reconnection delay that the service asked for, in milliseconds. */
  retryMs: number | null = null;
  #rest = "";
  #event = "";
  #data: string[] = [];

  /** Returns the events that the text completes. */
  push(text: string): StreamEvent[] {
    const lines = (this.#rest + text).split(/\r\n|\n|\r(?!$)/);
    this.#rest = lines.pop() ?? "";
    const events: StreamEvent[] = [];
    for (const line of lines) {
      const event = this.#readLine(line);
      if (event) events.push(event);
    }
    return events;
  }

  #readLine(line: string): StreamEvent | null {
    if (line === "") {
      const complete = { event: this.#event || "message", data: this.#data.join("\n") };
      const isEmpty = this.#data.length === 0;
      this.#event = "";
      this.#data = [];
      return isEmpty ? null : complete;
    }
    const colon = line.indexOf(":");
    const field = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (field === "event") this.#event = value;
    else if (field === "data") this.#data.push(value);
    else if (field === "retry" && /^\d+$/.test(value)) this.retryMs = Number(value);
    // Other fields, and comments, which begin with a colon, carry nothing for this client.
    return null;
  }
}
