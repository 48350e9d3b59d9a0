"""The text that `tokenkeeper up` prints once everything works."""

from __future__ import annotations

from sandbox.run_config import RunConfig

SELECT = "SELECT access_token FROM hubspot.tokens WHERE hub_id = {hub_id}"
HUB_ID = 62515  #: the first account on the simulator's consent page
RULE = "─" * 100


def format_banner(config: RunConfig, password: str, servers: dict[str, str], *, psql: str, env: str) -> str:
    """`servers`: addresses of the embedded servers by name. `psql` is empty where the database is not embedded."""
    if config.is_simulated:
        simulator = f"http://localhost:{config.ports.simulator}/"
        hubspot = {"HubSpot, simulated": f"{simulator}  (for the real one: copy .env.example to .env)"}
    elif "HUBSPOT_APPS_FILE" in config.settings:
        hubspot = {"HubSpot's redirect URLs": "of each app: tokenkeeper app list  (enter them on the apps' pages)"}
    else:
        callback = config.settings.get("HUBSPOT_REDIRECT_URI", "as your settings say")
        hubspot = {"HubSpot's redirect URL": f"{callback}  (enter it on your app's page)"}
    rows = {
        "Web": config.web_url,
        "Flower": f"http://localhost:{config.ports.flower}/",
        **hubspot,
        **servers,
        "Overview": f"{config.web_url}operator",
        "Login": f"user operator, password {password}  (for Overview and Flower)",
    }
    width = max(map(len, rows)) + 3
    select = SELECT.format(hub_id=HUB_ID)
    sql_lines = [f"  Read a token, in any language:   {select};"]
    if psql:
        sql_lines.append(f'  Here, in another terminal:       {psql} -c "{select}"')
    return "\n".join(
        (
            RULE,
            f"  tokenkeeper is up. Connect an account: {config.web_url}",
            "",
            *(f"  {name:<{width}}{value}" for name, value in rows.items()),
            "",
            *sql_lines,
            f"  The tokenkeeper command there:   . {env} && tokenkeeper status",
            f"  A connect link for a customer:   . {env} && tokenkeeper link --customer acme",
            "",
            "  Ctrl-C stops all of it; the data is kept for the next time.",
            RULE,
        )
    )
