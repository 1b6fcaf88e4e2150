"""A backend with one route for each check. It reads USHER_URL and USHER_QUEUE.

Usage: uvicorn app:app --port 3000
"""

import os

from fastapi import FastAPI, Request

from usher_admission import AdmissionMiddleware, PassMiddleware, QueueTokenMiddleware

URL = os.environ.get("USHER_URL", "http://127.0.0.1:8080")
QUEUE = os.environ.get("USHER_QUEUE", "demo")

app = FastAPI()


# A mounted application has the middleware for all its routes.
def mount_seats(path: str, middleware: type[AdmissionMiddleware]) -> None:
    seats = FastAPI()
    seats.add_middleware(middleware, url=URL, queue=QUEUE)

    @seats.get("/seats")
    async def read_seats(request: Request) -> dict[str, str]:
        return {"user": request.state.admitted_user}

    app.mount(path, seats)


mount_seats("/by-pass", PassMiddleware)
mount_seats("/by-token", QueueTokenMiddleware)
