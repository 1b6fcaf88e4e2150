import { NetworkError, ProblemError, UsherError, type ProblemBody } from "./errors.js";

/** Bounds of the retries of one call. A call stops at the first bound that it reaches. */
export interface RetryPolicy {
  /** Number of attempts, including the first one. Default 5. */
  maxAttempts: number;
  /** Time after which no further attempt starts, in milliseconds. Default 60,000. */
  maxElapsedMs: number;
  /** Delay before the second attempt. It doubles with each attempt. Default 200. */
  baseDelayMs: number;
  /** Upper bound of the delay, unless the service asks for more. Default 10,000. */
  maxDelayMs: number;
}

/** Time and chance. Tests replace it. */
export interface Clock {
  /** Milliseconds on a monotonic clock. */
  now(): number;
  /** Rejects with the reason of the signal when it is aborted. */
  sleep(ms: number, signal?: AbortSignal): Promise<void>;
  /** A number from 0 (inclusive) to 1 (exclusive). */
  random(): number;
}

export interface TransportOptions {
  url: string;
  user?: string | undefined;
  bearer?: string | (() => string | Promise<string>) | undefined;
  timeoutMs: number;
  retry: RetryPolicy;
  fetch: typeof globalThis.fetch;
  clock: Clock;
}

/** One call of the API. Every call is safe to repeat: see `idempotencyKey`. */
export interface ApiRequest {
  method: "GET" | "POST" | "PUT" | "PATCH" | "DELETE";
  path: string;
  query?: Record<string, string | number | undefined>;
  body?: unknown;
  /** Required for a POST that is not idempotent otherwise. All attempts send the same key. */
  idempotencyKey?: string;
  queueToken?: string | undefined;
  challenge?: string | undefined;
  signal?: AbortSignal | undefined;
  /** Called when an attempt may have run without its response arriving. */
  onUncertain?: () => void;
}

export const systemClock: Clock = {
  now: () => performance.now(),
  random: () => Math.random(),
  sleep(ms, signal) {
    return new Promise((resolve, reject) => {
      if (signal?.aborted) return reject(signal.reason);
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

/** Makes an idempotency key. Unlike `crypto.randomUUID`, this works in pages without TLS too. */
export function newIdempotencyKey(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Sends requests and retries them. */
export class Transport {
  constructor(readonly options: TransportOptions) {}

  get clock(): Clock {
    return this.options.clock;
  }

  /** Returns the parsed body, or null for a response without one. */
  async send<T>(request: ApiRequest): Promise<T> {
    const { retry, clock } = this.options;
    const start = clock.now();
    for (let attempt = 1; ; attempt += 1) {
      const outcome = await this.#attempt<T>(request);
      if ("value" in outcome) return outcome.value;
      if (outcome.uncertain) request.onUncertain?.();
      const delay = this.retryDelay(outcome.error, attempt);
      const isLast = attempt >= retry.maxAttempts;
      if (delay === null || isLast || clock.now() - start + delay > retry.maxElapsedMs) {
        throw outcome.error;
      }
      await clock.sleep(delay, request.signal);
    }
  }

  /**
   * Milliseconds to wait before the next attempt, or null if the error is final. Temporary errors
   * are lost responses, 5xx, and 429 with a Retry-After header.
   */
  retryDelay(error: UsherError, attempt: number): number | null {
    const { retry, clock } = this.options;
    // Between half of the backoff and all of it, so that many clients do not retry together.
    const backoff = Math.min(retry.maxDelayMs, retry.baseDelayMs * 2 ** (attempt - 1));
    const jittered = backoff * (0.5 + clock.random() / 2);
    if (error instanceof NetworkError) return jittered;
    if (!(error instanceof ProblemError)) return null;
    if (error.retryAfter !== null && (error.status === 429 || error.status >= 500)) {
      return Math.max(error.retryAfter * 1000 * (1 + clock.random() / 4), jittered);
    }
    return error.status >= 500 ? jittered : null;
  }

  async #attempt<T>(
    request: ApiRequest,
  ): Promise<{ value: T } | { error: UsherError; uncertain: boolean }> {
    const prepared = await this.prepare(request);
    const timer = setTimeout(() => prepared.abort(), this.options.timeoutMs);
    try {
      const response = await prepared.fetch();
      const text = await response.text();
      if (response.ok) return { value: parseBody<T>(text) };
      const error = problemFrom(response, text);
      return { error, uncertain: error.status >= 500 };
    } catch (cause) {
      request.signal?.throwIfAborted();
      if (cause instanceof UsherError) return { error: cause, uncertain: false };
      return { error: new NetworkError(cause), uncertain: true };
    } finally {
      clearTimeout(timer);
      prepared.close();
    }
  }

  /** Prepares one attempt. `close` must be called after it. */
  async prepare(request: ApiRequest): Promise<PreparedAttempt> {
    const { url, user, bearer, fetch } = this.options;
    const headers: Record<string, string> = { Accept: "application/json" };
    if (user !== undefined) headers["Usher-User"] = user;
    if (bearer !== undefined) {
      const token = typeof bearer === "string" ? bearer : await bearer();
      headers["Authorization"] = `Bearer ${token}`;
    }
    if (request.queueToken !== undefined) headers["Queue-Token"] = request.queueToken;
    if (request.challenge !== undefined) headers["Usher-Challenge"] = request.challenge;
    if (request.idempotencyKey !== undefined) headers["Idempotency-Key"] = request.idempotencyKey;
    const init: RequestInit = { method: request.method, headers };
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

/** One attempt of a request. */
export interface PreparedAttempt {
  /** Sends the attempt. Rejects if no response arrives. */
  fetch(): Promise<Response>;
  abort(): void;
  close(): void;
}

function queryString(query: ApiRequest["query"] = {}): string {
  const parameters = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) {
    if (value !== undefined) parameters.set(name, String(value));
  }
  const text = parameters.toString();
  return text ? `?${text}` : "";
}

function parseBody<T>(text: string): T {
  if (text === "") return null as T;
  try {
    return JSON.parse(text) as T;
  } catch {
    throw new UsherError("The response is not JSON. Check the address of the service.");
  }
}

/** Makes the error of a response that is not a success. */
export function problemFrom(response: Response, text: string): ProblemError {
  let body: ProblemBody = {};
  try {
    const parsed: unknown = JSON.parse(text);
    if (typeof parsed === "object" && parsed !== null) body = parsed as ProblemBody;
  } catch {
    // A proxy answered with its own page.
  }
  return new ProblemError(response.status, body, parseRetryAfter(response));
}

// Retry-After is a number of seconds or a date (RFC 9110, 10.2.3).
function parseRetryAfter(response: Response): number | null {
  const header = response.headers.get("Retry-After")?.trim();
  if (!header) return null;
  if (/^\d+$/.test(header)) return Number(header);
  const date = Date.parse(header);
  return Number.isNaN(date) ? null : Math.max(0, (date - Date.now()) / 1000);
}
