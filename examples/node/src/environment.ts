// The settings of the two example backends.

import type { Server } from "node:http";
import type { AddressInfo } from "node:net";

export const port = Number(process.env["PORT"] ?? 3000);

export const options = {
  url: process.env["USHER_URL"] ?? "http://127.0.0.1:8080",
  queue: process.env["USHER_QUEUE"] ?? "demo",
};

export function printAddress(server: Server): void {
  console.log(`http://127.0.0.1:${(server.address() as AddressInfo).port}`);
}
