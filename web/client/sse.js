export class EventParser {
    retryMs = null;
    #rest = "";
    #event = "";
    #data = [];
    push(text) {
        const lines = (this.#rest + text).split(/\r\n|\n|\r(?!$)/);
        this.#rest = lines.pop() ?? "";
        const events = [];
        for (const line of lines) {
            const event = this.#readLine(line);
            if (event)
                events.push(event);
        }
        return events;
    }
    #readLine(line) {
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
        if (field === "event")
            this.#event = value;
        else if (field === "data")
            this.#data.push(value);
        else if (field === "retry" && /^\d+$/.test(value))
            this.retryMs = Number(value);
        return null;
    }
}
