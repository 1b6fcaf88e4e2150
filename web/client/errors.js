export class UsherError extends Error {
    name = "UsherError";
    get isTemporary() {
        return false;
    }
}
export class ProblemError extends UsherError {
    status;
    body;
    retryAfter;
    name = "ProblemError";
    constructor(status, body, retryAfter = null) {
        super(`${status} ${body.code ?? "unknown"}: ${body.detail ?? body.title ?? "no detail"}`);
        this.status = status;
        this.body = body;
        this.retryAfter = retryAfter;
    }
    get isTemporary() {
        return this.status >= 500 || [408, 425, 429].includes(this.status);
    }
    get code() {
        return this.body.code ?? "unknown";
    }
    get detail() {
        return this.body.detail ?? "";
    }
    get errors() {
        return this.body.errors ?? [];
    }
}
export class NetworkError extends UsherError {
    name = "NetworkError";
    constructor(cause) {
        super("The service did not respond.", { cause });
    }
    get isTemporary() {
        return true;
    }
}
