import { NetworkError, ProblemError, UsherError } from "./errors.js";
export const systemClock = {
    now: () => performance.now(),
    random: () => Math.random(),
    sleep(ms, signal) {
        return new Promise((resolve, reject) => {
            if (signal?.aborted)
                return reject(signal.reason);
            const onAbort = () => {
                clearTimeout(timer);
                reject(signal?.reason);
            };
            const timer = setTimeout(() => {
                signal?.removeEventListener("abort", onAbort);
                resolve();
            }, ms);
            signal?.addEventListener("abort", onAbort, { once: true });
        });
    },
};
export function newIdempotencyKey() {
    const bytes = crypto.getRandomValues(new Uint8Array(16));
    return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
export class Transport {
    options;
    constructor(options) {
        this.options = options;
    }
    get clock() {
        return this.options.clock;
    }
    async send(request) {
        const { retry, clock } = this.options;
        const start = clock.now();
        for (let attempt = 1;; attempt += 1) {
            const outcome = await this.#attempt(request);
            if ("value" in outcome)
                return outcome.value;
            if (outcome.uncertain)
                request.onUncertain?.();
            const delay = this.retryDelay(outcome.error, attempt);
            const isLast = attempt >= retry.maxAttempts;
            if (delay === null || isLast || clock.now() - start + delay > retry.maxElapsedMs) {
                throw outcome.error;
            }
            await clock.sleep(delay, request.signal);
        }
    }
    retryDelay(error, attempt) {
        const { retry, clock } = this.options;
        const backoff = Math.min(retry.maxDelayMs, retry.baseDelayMs * 2 ** (attempt - 1));
        const jittered = backoff * (0.5 + clock.random() / 2);
        if (error instanceof NetworkError)
            return jittered;
        if (!(error instanceof ProblemError))
            return null;
        if (error.retryAfter !== null && (error.status === 429 || error.status >= 500)) {
            return Math.max(error.retryAfter * 1000 * (1 + clock.random() / 4), jittered);
        }
        return error.status >= 500 ? jittered : null;
    }
    async #attempt(request) {
        const prepared = await this.prepare(request);
        const timer = setTimeout(() => prepared.abort(), this.options.timeoutMs);
        try {
            const response = await prepared.fetch();
            const text = await response.text();
            if (response.ok)
                return { value: parseBody(text) };
            const error = problemFrom(response, text);
            return { error, uncertain: error.status >= 500 };
        }
        catch (cause) {
            request.signal?.throwIfAborted();
            if (cause instanceof UsherError)
                return { error: cause, uncertain: false };
            return { error: new NetworkError(cause), uncertain: true };
        }
        finally {
            clearTimeout(timer);
            prepared.close();
        }
    }
    async prepare(request) {
        const { url, user, bearer, fetch } = this.options;
        const headers = { Accept: "application/json" };
        if (user !== undefined)
            headers["Usher-User"] = user;
        if (bearer !== undefined) {
            const token = typeof bearer === "string" ? bearer : await bearer();
            headers["Authorization"] = `Bearer ${token}`;
        }
        if (request.queueToken !== undefined)
            headers["Queue-Token"] = request.queueToken;
        if (request.challenge !== undefined)
            headers["Usher-Challenge"] = request.challenge;
        if (request.idempotencyKey !== undefined)
            headers["Idempotency-Key"] = request.idempotencyKey;
        const init = { method: request.method, headers };
        if (request.body !== undefined) {
            headers["Content-Type"] = "application/json";
            init.body = JSON.stringify(request.body);
        }
        const { signal } = request;
        signal?.throwIfAborted();
        const controller = new AbortController();
        const abort = () => controller.abort();
        signal?.addEventListener("abort", abort, { once: true });
        init.signal = controller.signal;
        const address = url.replace(/\/+$/, "") + request.path + queryString(request.query);
        return {
            fetch: () => fetch(address, init),
            abort,
            close: () => signal?.removeEventListener("abort", abort),
        };
    }
}
function queryString(query = {}) {
    const parameters = new URLSearchParams();
    for (const [name, value] of Object.entries(query)) {
        if (value !== undefined)
            parameters.set(name, String(value));
    }
    const text = parameters.toString();
    return text ? `?${text}` : "";
}
function parseBody(text) {
    if (text === "")
        return null;
    try {
        return JSON.parse(text);
    }
    catch {
        throw new UsherError("The response is not JSON. Check the address of the service.");
    }
}
export function problemFrom(response, text) {
    let body = {};
    try {
        const parsed = JSON.parse(text);
        if (typeof parsed === "object" && parsed !== null)
            body = parsed;
    }
    catch {
    }
    return new ProblemError(response.status, body, parseRetryAfter(response));
}
function parseRetryAfter(response) {
    const header = response.headers.get("Retry-After")?.trim();
    if (!header)
        return null;
    if (/^\d+$/.test(header))
        return Number(header);
    const date = Date.parse(header);
    return Number.isNaN(date) ? null : Math.max(0, (date - Date.now()) / 1000);
}
