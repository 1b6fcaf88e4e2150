// A backend with one route for each check. It reads USHER_URL, USHER_QUEUE and PORT.

import "reflect-metadata";
import { Controller, Get, Module, UseGuards } from "@nestjs/common";
import { NestFactory } from "@nestjs/core";
import { options, port, printAddress } from "./environment.js";
import { AdmissionModule, AdmittedUser, PassGuard, QueueTokenGuard } from "./nestjs.js";

@Controller()
class SeatController {
  @Get("by-pass/seats")
  @UseGuards(PassGuard)
  byPass(@AdmittedUser() user: string) {
    return { user };
  }

  @Get("by-token/seats")
  @UseGuards(QueueTokenGuard)
  byToken(@AdmittedUser() user: string) {
    return { user };
  }
}

@Module({ imports: [AdmissionModule.forRoot(options)], controllers: [SeatController] })
class AppModule {}

const app = await NestFactory.create(AppModule, { logger: ["error", "warn"] });
await app.listen(port, "127.0.0.1");
printAddress(app.getHttpServer());
