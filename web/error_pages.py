"""The page of a problem: in the operator's frame where the address is the operator's, else in everybody's."""

from __future__ import annotations

from flask import Response, render_template, request

from web.problems import Problem

#: Below these every page is the operator's.
OPERATORS = ("/operator", "/connections")


def render_problem(problem: Problem) -> Response:
    frame = "admin/base.html" if is_admin_path(request.path) else "base.html"
    return Response(render_template("problem.html", problem=problem, frame=frame), problem.status)


def is_admin_path(path: str) -> bool:
    return any(path == place or path.startswith(f"{place}/") for place in OPERATORS)
