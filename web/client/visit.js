import { NetworkError, ProblemError, UsherError } from "./errors.js";
import { EventParser } from "./sse.js";
import { newIdempotencyKey, problemFrom } from "./transport.js";
const DEFAULT_MAX_OUTAGE_MS = 300_000;
const MAX_STREAM_FAILURES = 3;
const STREAM_IDLE_MS = 45_000;
const HIDDEN_POLL_FACTOR = 1.5;
const PAYMENT_POLL_MS = 500;
const PAYMENT_WAIT_MS = 60_000;
export class QueueVisit {
    queueId;
    #transport;
    #token;
    #ticket;
    constructor(transport, queueId, start) {
        this.queueId = queueId;
        this.#transport = transport;
        this.#ticket = typeof start === "string" ? null : start;
        this.#token = typeof start === "string" ? start : start.token;
    }
    get token() {
        return this.#token;
    }
    get ticket() {
        return this.#ticket;
    }
    async refresh(options = {}) {
        const path = `${this.#path()}/tokens/me`;
        return this.#accept(await this.#send({ method: "GET", path, ...options }));
    }
    async waitUntilActive(options = {}) {
        let last;
        for await (const ticket of this.tickets(options)) {
            options.onTicket?.(ticket);
            last = ticket;
        }
        if (!last)
            throw new UsherError("The stream of tickets ended without a ticket.");
        return last;
    }
    async *tickets(options = {}) {
        const { clock } = this.#transport;
        const { signal, maxOutageMs = DEFAULT_MAX_OUTAGE_MS, onOutage } = options;
        let ticket = this.#ticket ?? (await this.refresh(signal ? { signal } : {}));
        yield ticket;
        let streamFailures = 0;
        let lastContact = clock.now();
        let retryAfterMs = 0;
        while (ticket.status === "waiting") {
            const wasHidden = isHidden();
            if (options.stream && !wasHidden && streamFailures < MAX_STREAM_FAILURES) {
                let hasTicket = false;
                const stream = this.#openStream(options);
                try {
                    let step = await stream.next();
                    for (; !step.done; step = await stream.next()) {
                        hasTicket = true;
                        ticket = step.value;
                        lastContact = clock.now();
                        onOutage?.(null);
                        yield ticket;
                    }
                    if (isHidden())
                        continue;
                    streamFailures = hasTicket ? 0 : streamFailures + 1;
                    if (ticket.status === "waiting")
                        await clock.sleep(step.value, signal);
                }
                finally {
                    await stream.return(0);
                }
                continue;
            }
            const pace = ticket.poll_after_ms * (wasHidden ? HIDDEN_POLL_FACTOR : 1);
            await clock.sleep(Math.max(pace, retryAfterMs) * (1 + clock.random() / 10), signal);
            retryAfterMs = 0;
            try {
                ticket = await this.refresh(signal ? { signal } : {});
                lastContact = clock.now();
                onOutage?.(null);
            }
            catch (error) {
                const isOver = clock.now() - lastContact > maxOutageMs;
                if (isOver || !(error instanceof UsherError) || !this.#isTemporary(error))
                    throw error;
                if (error instanceof ProblemError)
                    retryAfterMs = (error.retryAfter ?? 0) * 1000;
                onOutage?.(error);
                continue;
            }
            if (wasHidden && !isHidden())
                streamFailures = 0;
            yield ticket;
        }
    }
    async leave(options = {}) {
        try {
            await this.#send({ method: "DELETE", path: `${this.#path()}/tokens/me`, ...options });
        }
        catch (error) {
            if (!(error instanceof ProblemError && error.code === "queue_token_expired"))
                throw error;
        }
    }
    async listSchedules(concertId) {
        const path = `/v1/concerts/${encodeURIComponent(concertId)}/schedules`;
        return (await this.#send({ method: "GET", path })).items;
    }
    async listSeats(scheduleId, options = {}) {
        const path = `/v1/schedules/${encodeURIComponent(scheduleId)}/seats`;
        return this.#send({ method: "GET", path, query: { status: options.status } });
    }
    async holdSeats(scheduleId, seats, options = {}) {
        const body = { schedule_id: scheduleId, seats };
        return this.#change("/v1/reservations", body, options);
    }
    async holdBestSeats(scheduleId, quantity, options = {}) {
        const { section } = options;
        const body = { schedule_id: scheduleId, quantity, ...(section !== undefined && { section }) };
        return this.#change("/v1/reservations/best", body, options);
    }
    async createPayment(reservationId, options = {}) {
        const { couponIssueId, expectedAmount, method, walletAmount } = options;
        const body = {
            reservation_id: reservationId,
            ...(couponIssueId !== undefined && { coupon_issue_id: couponIssueId }),
            ...(expectedAmount !== undefined && { expected_amount: expectedAmount }),
            ...(method !== undefined && { method }),
            ...(walletAmount !== undefined && { wallet_amount: walletAmount }),
        };
        return this.#change("/v1/payments", body, options);
    }
    async pay(reservationId, options = {}) {
        const { clock } = this.#transport;
        let payment = await this.createPayment(reservationId, options);
        const deadline = clock.now() + PAYMENT_WAIT_MS;
        while (payment.status === "pending" && clock.now() < deadline) {
            await clock.sleep(PAYMENT_POLL_MS * (1 + clock.random() / 4), options.signal);
            const path = `/v1/payments/${encodeURIComponent(payment.id)}`;
            try {
                payment = await this.#send({ method: "GET", path, signal: options.signal });
            }
            catch (error) {
                if (!this.#isTemporary(error))
                    throw error;
            }
        }
        return payment;
    }
    #isTemporary(error) {
        return error instanceof UsherError && this.#transport.retryDelay(error, 1) !== null;
    }
    #path() {
        return `/v1/queues/${encodeURIComponent(this.queueId)}`;
    }
    #send(request) {
        return this.#transport.send({ ...request, queueToken: this.#token });
    }
    #change(path, body, options) {
        const { idempotencyKey = newIdempotencyKey(), signal } = options;
        return this.#send({ method: "POST", path, body, idempotencyKey, signal });
    }
    #accept(ticket) {
        this.#ticket = ticket;
        this.#token = ticket.token;
        if (ticket.status !== "expired")
            return ticket;
        const detail = "The place in the queue has expired.";
        throw new ProblemError(410, { code: "queue_token_expired", status: 410, detail });
    }
    async *#openStream(options) {
        const { signal, onOutage } = options;
        const { clock } = this.#transport;
        const parser = new EventParser();
        const path = `${this.#path()}/tokens/me/events`;
        const request = { method: "GET", path, queueToken: this.#token, signal };
        const prepared = await this.#transport.prepare(request);
        const stopListening = onceHidden(prepared.abort);
        let timer = setTimeout(prepared.abort, STREAM_IDLE_MS);
        let reader;
        try {
            const response = await prepared.fetch();
            if (!response.ok)
                throw problemFrom(response, await response.text());
            reader = response.body?.getReader();
            const decoder = new TextDecoder();
            while (reader) {
                const chunk = await reader.read();
                if (chunk.done)
                    break;
                clearTimeout(timer);
                timer = setTimeout(prepared.abort, STREAM_IDLE_MS);
                for (const event of parser.push(decoder.decode(chunk.value, { stream: true }))) {
                    if (event.event !== "ticket")
                        continue;
                    const ticket = this.#accept(JSON.parse(event.data));
                    yield ticket;
                    if (ticket.status === "active")
                        return 0;
                }
            }
        }
        catch (error) {
            signal?.throwIfAborted();
            if (isHidden())
                return 0;
            const known = error instanceof UsherError ? error : new NetworkError(error);
            const delay = this.#transport.retryDelay(known, 1);
            if (delay === null)
                throw error;
            if (known instanceof NetworkError)
                onOutage?.(known);
            return Math.max(delay, parser.retryMs ?? 1000);
        }
        finally {
            stopListening();
            clearTimeout(timer);
            await reader?.cancel().catch(() => { });
            prepared.close();
        }
        return (parser.retryMs ?? 1000) * (1 + clock.random() / 4);
    }
}
function isHidden() {
    return "document" in globalThis && document.hidden;
}
function onceHidden(action) {
    if (!("document" in globalThis))
        return () => { };
    const listener = () => document.hidden && action();
    document.addEventListener("visibilitychange", listener);
    return () => document.removeEventListener("visibilitychange", listener);
}
