"""Serves the page of the playground, to this machine alone unless told otherwise; it loads nothing from elsewhere."""

import ipaddress
import logging
import socket

import gradio as gr
import uvicorn
from fastapi import FastAPI
from gradio.themes.utils.fonts import Font, LocalFont
from starlette.datastructures import MutableHeaders
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from page.html import CSS

# What a browser may load for this page: the server's own files. The browser itself enforces it, whatever gradio's next
# version would like to fetch. gradio compiles the templates of its HTML in the browser, hence unsafe-eval.
POLICY = "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; frame-ancestors 'self'"
LOOPBACK = ["127.0.0.1", "localhost", "[::1]"]
# From gradio's own files, of which those of weight 600, its default, lack most letters.
FONT: list[Font | str] = [LocalFont("IBM Plex Sans", weights=(400, 700)), "sans-serif"]
MONO: list[Font | str] = [LocalFont("IBM Plex Mono", weights=(400, 700)), "monospace"]


class WithPolicy:
    """Adds POLICY to every response of `app`."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_policy(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["Content-Security-Policy"] = POLICY
            await send(message)

        await self.app(scope, receive, with_policy)


class Server(uvicorn.Server):
    """A server that ends at once: gradio keeps a connection to every open page, which would delay the end."""

    def __init__(self, config: uvicorn.Config, page: gr.Blocks) -> None:
        super().__init__(config)
        self.page = page

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.page.app.stop_event.set()
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)  # an answer cut short by Ctrl-C is not an error
        await super().shutdown(sockets)


def application(page: gr.Blocks, host: str, port: int) -> FastAPI:
    """Makes a web application of the page. On a loopback address it answers to loopback names alone; otherwise a page
    from anywhere could reach it under a name of its own that it points here (DNS rebinding)."""
    app = FastAPI(openapi_url=None)
    app.add_middleware(WithPolicy)
    if ipaddress.ip_address(host).is_loopback:
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=[*LOOPBACK, host])
    # gradio would store what any website sends here; the page has nothing to upload.
    app.add_route("/gradio_api/upload", lambda _: Response(status_code=404), methods=["POST"])
    theme = gr.themes.Default(primary_hue="blue", neutral_hue="slate", font=FONT, font_mono=MONO)
    return gr.mount_gradio_app(
        app, page.queue(api_open=False), "/", server_name=host, server_port=port, footer_links=[], run_history=False,
        ssr_mode=False, show_error=True, theme=theme, css=CSS,
    )  # fmt: skip


def serve(page: gr.Blocks, listening: socket.socket) -> None:
    """Serves the page until Ctrl-C."""
    app = application(page, *listening.getsockname()[:2])
    config = uvicorn.Config(app, log_level="error", access_log=False, timeout_graceful_shutdown=1)
    try:
        Server(config, page).run([listening])
    except KeyboardInterrupt:
        print("\nended", flush=True)
