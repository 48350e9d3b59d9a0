"""What `tokenkeeper up` says once everything works."""

from __future__ import annotations

from sandbox.world import World

SELECT = "SELECT access_token FROM hubspot.tokens WHERE hub_id = {hub_id}"
HUB_ID = 62515  #: the first account on the simulator's consent page
RULE = "─" * 100


def banner(world: World, password: str, servers: dict[str, str], *, psql: str, env: str) -> str:
    """`servers`: what else listens, and where. `psql` is empty where the database is not ours."""
    rows = {
        "Web": world.home,
        "Flower": f"http://localhost:{world.ports.flower}/",
        **_hubspot(world),
        **servers,
        "Overview": f"{world.home}operator",
        "Operator": f"user operator, password {password}",
    }
    width = max(map(len, rows)) + 3
    select = SELECT.format(hub_id=HUB_ID)
    reading = [f"  Read a token, in any language:   {select};"]
    if psql:
        reading.append(f'  Here, in another terminal:       {psql} -c "{select}"')
    return "\n".join(
        (
            RULE,
            f"  tokenkeeper is up. Connect an account: {world.home}",
            "",
            *(f"  {name:<{width}}{value}" for name, value in rows.items()),
            "",
            *reading,
            f"  The tokenkeeper command there:   . {env} && tokenkeeper status",
            "",
            "  Ctrl-C stops all of it; the data is kept for the next time.",
            RULE,
        )
    )


def _hubspot(world: World) -> dict[str, str]:
    if world.simulated:
        simulator = f"http://localhost:{world.ports.simulator}/"
        return {"HubSpot, simulated": f"{simulator}  (for the real one: copy .env.example to .env)"}
    callback = world.settings.get("HUBSPOT_REDIRECT_URI", "as your settings say")
    return {"HubSpot's redirect URL": f"{callback}  (enter it on your app's page)"}
