/** The base class of all errors of this client. */
export class UsherError extends Error {
  override name = "UsherError";

  /** Whether the same call may succeed later. After any other error it has had no effect. */
  get isTemporary(): boolean {
    return false;
  }
}

/** A field of the request that the service rejected. */
export interface FieldError {
  field: string;
  message: string;
}

/** The body of an error response (RFC 9457), with the extension members of its `code`. */
export interface ProblemBody {
  type?: string;
  title?: string;
  status?: number;
  detail?: string;
  code?: string;
  errors?: FieldError[];
  [member: string]: unknown;
}

/** The service refused a request. Branch on `code`, which is stable. */
export class ProblemError extends UsherError {
  override name = "ProblemError";

  constructor(
    /** The HTTP status. */
    readonly status: number,
    /** The whole body, with extension members such as `seats` of `seat_taken`. */
    readonly body: ProblemBody,
    /** Seconds until a retry can succeed, from the Retry-After header. */
    readonly retryAfter: number | null = null,
  ) {
    super(`${status} ${body.code ?? "unknown"}: ${body.detail ?? body.title ?? "no detail"}`);
  }

  override get isTemporary(): boolean {
    return this.status >= 500 || [408, 425, 429].includes(this.status);
  }

  /** A stable word such as `seat_taken`, or `unknown` if the response is not from the service. */
  get code(): string {
    return this.body.code ?? "unknown";
  }

  /** A sentence that describes this occurrence. */
  get detail(): string {
    return this.body.detail ?? "";
  }

  /** The rejected fields of a 422 `invalid_request`. */
  get errors(): FieldError[] {
    return this.body.errors ?? [];
  }
}

/** No response arrived, after all retries. It is unknown whether the service ran the request. */
export class NetworkError extends UsherError {
  override name = "NetworkError";

  constructor(cause: unknown) {
    super("The service did not respond.", { cause });
  }

  override get isTemporary(): boolean {
    return true;
  }
}
