// A backend with one route for each check. It reads USHER_URL, USHER_QUEUE and PORT.

import express from "express";
import { requirePass, requireQueueToken } from "./express.js";
import { options, port, printAddress } from "./environment.js";

const app = express();
app.get("/by-pass/seats", requirePass(options), (request, response) => {
  response.json({ user: request.admittedUser });
});
app.get("/by-token/seats", requireQueueToken(options), (request, response) => {
  response.json({ user: request.admittedUser });
});
const server = app.listen(port, "127.0.0.1", () => printAddress(server));
