"""The planner's commands: `brim plan` and `brim rpc-worker`."""

from __future__ import annotations

import typer

from server.commands.plan import plan
from server.commands.rpc_worker import rpc_worker

app = typer.Typer()
app.command()(plan)
app.command("rpc-worker")(rpc_worker)
