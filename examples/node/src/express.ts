// Express middleware. It stores the user in `request.admittedUser`.

import type { Request, RequestHandler } from "express";
import { Admission, AdmissionError, type AdmissionOptions } from "./admission.js";

declare global {
  namespace Express {
    interface Request {
      admittedUser?: string;
    }
  }
}

/** Requires a pass, and verifies it without a request to Usher. */
export function requirePass(options: AdmissionOptions): RequestHandler {
  const admission = new Admission(options);
  return middleware((request) => admission.verifyPass(request));
}

/** Requires a queue token, and asks Usher about it. */
export function requireQueueToken(options: AdmissionOptions): RequestHandler {
  const admission = new Admission(options);
  return middleware((request) => admission.checkToken(request));
}

function middleware(check: (request: Request) => Promise<string>): RequestHandler {
  return async (request, response, next) => {
    try {
      request.admittedUser = await check(request);
    } catch (error) {
      if (!(error instanceof AdmissionError)) throw error;
      response.status(error.problem.status).set(error.headers).json(error.problem);
      return;
    }
    next();
  };
}
