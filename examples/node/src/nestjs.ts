// NestJS module with two guards, and a decorator for the user.

import {
  Catch,
  createParamDecorator,
  Injectable,
  Module,
  type ArgumentsHost,
  type CanActivate,
  type DynamicModule,
  type ExceptionFilter,
  type ExecutionContext,
} from "@nestjs/common";
import { APP_FILTER } from "@nestjs/core";
import type { Request, Response } from "express";
import { Admission, AdmissionError, type AdmissionOptions } from "./admission.js";

type AdmittedRequest = Request & { admittedUser?: string };

abstract class AdmissionGuard implements CanActivate {
  protected abstract check(request: Request): Promise<string>;

  async canActivate(context: ExecutionContext): Promise<true> {
    const request = context.switchToHttp().getRequest<AdmittedRequest>();
    request.admittedUser = await this.check(request);
    return true;
  }
}

/** Requires a pass, and verifies it without a request to Usher. */
@Injectable()
export class PassGuard extends AdmissionGuard {
  constructor(private readonly admission: Admission) {
    super();
  }

  protected check(request: Request): Promise<string> {
    return this.admission.verifyPass(request);
  }
}

/** Requires a queue token, and asks Usher about it. */
@Injectable()
export class QueueTokenGuard extends AdmissionGuard {
  constructor(private readonly admission: Admission) {
    super();
  }

  protected check(request: Request): Promise<string> {
    return this.admission.checkToken(request);
  }
}

/** The user whom a guard admitted. */
export const AdmittedUser = createParamDecorator(
  (_: unknown, context: ExecutionContext) =>
    context.switchToHttp().getRequest<AdmittedRequest>().admittedUser,
);

@Catch(AdmissionError)
class AdmissionErrorFilter implements ExceptionFilter<AdmissionError> {
  catch({ problem, headers }: AdmissionError, host: ArgumentsHost): void {
    host.switchToHttp().getResponse<Response>().status(problem.status).set(headers).json(problem);
  }
}

@Module({})
export class AdmissionModule {
  static forRoot(options: AdmissionOptions): DynamicModule {
    return {
      module: AdmissionModule,
      global: true,
      providers: [
        { provide: Admission, useValue: new Admission(options) },
        { provide: APP_FILTER, useClass: AdmissionErrorFilter },
      ],
      exports: [Admission],
    };
  }
}
