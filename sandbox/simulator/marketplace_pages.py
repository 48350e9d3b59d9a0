"""The pages of HubSpot's Marketplace: the listings, the frame in which an app is installed, and `returnUrl`."""

from __future__ import annotations

from flask import Blueprint, Response, redirect, render_template, request
from werkzeug.wrappers import Response as BaseResponse

from sandbox.simulator.consent import ConsentError, parse_hub_id
from sandbox.simulator.marketplace import FLOWS, Marketplace, MarketplaceInstall, ReturnVisit, UnknownInstall
from sandbox.simulator.simulation import Simulation

_LISTED_ACCOUNTS = 50


def make_marketplace_routes(sim: Simulation, marketplace: Marketplace) -> Blueprint:
    routes = Blueprint("marketplace", __name__, url_prefix="/marketplace")

    @routes.get("")
    def show_listings() -> str:
        apps = {client_id: sim.behaviour.find(client_id) for client_id in sim.behaviour.list_client_ids()}
        accounts = [account for account, _ in sim.accounts.list_accounts(_LISTED_ACCOUNTS)]
        return render_template("marketplace.html", apps=apps, accounts=accounts)

    @routes.post("")
    def start() -> BaseResponse:
        install, url = _start_from_form(sim, marketplace)
        if install.flow == "sign_in":
            return Response(render_template("marketplace_sign_in.html", url=url))
        return _open(install, url, is_framed=install.is_framed and install.flow == "code")

    @routes.get("/return/<install_id>")
    def come_back(install_id: str) -> BaseResponse:
        visit = ReturnVisit(
            request.args.to_dict(), request.headers.get("Sec-Fetch-Dest", ""), request.headers.get("Referer", "")
        )
        install = marketplace.add_visit(install_id, visit)
        if install.flow == "sign_in" and not install.has_answered:
            return Response(render_template("marketplace_consent.html", install=install))
        return Response(render_template("marketplace_done.html", install=install))

    @routes.post("/return/<install_id>")
    def answer(install_id: str) -> BaseResponse:
        url = marketplace.answer(install_id, is_allowed=request.form.get("answer") == "allow")
        install = next(each for each in marketplace.list_installs() if each.id == install_id)
        return _open(install, url, is_framed=install.is_framed)

    routes.register_error_handler(ConsentError, _show_error)
    routes.register_error_handler(UnknownInstall, _show_unknown)
    return routes


def _start_from_form(sim: Simulation, marketplace: Marketplace) -> tuple[MarketplaceInstall, str]:
    """Raises ConsentError."""
    form = request.form
    client_id, flow = form.get("client_id"), form.get("flow", "")
    install_url = form.get("install_url") or "".join(sim.behaviour.find(client_id).redirect_uris[:1])
    if client_id is None or not sim.behaviour.is_app(client_id) or flow not in FLOWS or not install_url:
        raise ConsentError("Choose an app, how it is installed, and its install URL.")
    return marketplace.start(
        sim.make_installation(parse_hub_id(form.get("hub_id", "")), client_id, form.get("user_id", type=int)),
        flow=flow,
        install_url=install_url,
        origin=request.host_url.rstrip("/"),
        return_query=form.get("return_query", ""),
        is_framed="top" not in form,
    )


def _show_error(error: ConsentError) -> str:
    return render_template("problem.html", text=str(error))


def _show_unknown(_: UnknownInstall) -> tuple[str, int]:
    return render_template("problem.html", text="Please verify connection: there is no such install."), 404


def _open(install: MarketplaceInstall, url: str, *, is_framed: bool) -> BaseResponse:
    if not is_framed:
        return redirect(url, 303)
    return Response(render_template("marketplace_frame.html", install=install, url=url))
