// The example backends, and how to start them.

import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";

const examples = fileURLToPath(new URL("..", import.meta.url));
// The Python with the packages of fastapi/requirements.txt, and the class path of spring-boot/.
const python = process.env.EXAMPLES_PYTHON ?? "python3";

export const BACKENDS = {
  Express: { command: [process.execPath, "express_app.js"], directory: `${examples}/node/dist` },
  NestJS: { command: [process.execPath, "nestjs_app.js"], directory: `${examples}/node/dist` },
  FastAPI: {
    command: [python, "-B", "-m", "uvicorn", "app:app", "--port", "0"],
    directory: `${examples}/fastapi`,
  },
  "Spring Boot filter": {
    command: ["java", "-cp", process.env.EXAMPLES_CLASS_PATH ?? "", "FilterServerKt"],
    directory: examples,
    skip: process.env.EXAMPLES_CLASS_PATH ? false : "the Kotlin compiler is not installed",
  },
};

/** Starts a backend that uses Usher at an address, and returns it once it listens. */
export async function startBackend({ command: [program, ...args], directory }, usherUrl, queue) {
  const env = { ...process.env, PORT: "0", USHER_URL: usherUrl, USHER_QUEUE: queue };
  const child = spawn(program, args, { cwd: directory, env, stdio: ["ignore", "pipe", "pipe"] });
  const url = await new Promise((resolve, reject) => {
    let output = "";
    const read = (chunk) => {
      output += chunk;
      const address = /(http:\/\/127\.0\.0\.1:\d+)\s/.exec(output);
      if (address) resolve(address[1]);
    };
    child.stdout.on("data", read);
    child.stderr.on("data", read);
    child.on("error", reject);
    child.on("exit", (code) => reject(new Error(`exited with ${code}: ${output}`)));
  });
  return { url, stop: () => stop(child) };
}

function stop(child) {
  const exited = new Promise((resolve) => child.on("exit", resolve));
  child.kill("SIGTERM");
  return exited;
}
